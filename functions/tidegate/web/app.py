"""The ASGI app, assembled from the handlers of `/v1` and `/v2`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from tidegate.byte_budget import ByteBudget
from tidegate.gateway import Dispatcher
from tidegate.gateway.grants import CallerOf, Grants
from tidegate.gateway.load import LoadLimit
from tidegate.gateway.private_ids import PrivateIds
from tidegate.gateway.quotas import Quotas, QuotasElsewhere
from tidegate.gateway.service import Service
from tidegate.gateway.shadowing import Shadowing
from tidegate.ports import CountRequest, Endpoint, EngineSource, FleetStatus, Observe, Offload, Tracer
from tidegate.ports.console import ConsoleBackend
from tidegate.web.access_log import AccessLog
from tidegate.web.authorize import Authorization
from tidegate.web.callers import Operators, header_caller
from tidegate.web.console.forwarding import Forwarder
from tidegate.web.decided import DecisionHeaders
from tidegate.web.entry import function_time_left_ms, served
from tidegate.web.errors import encoded_path, oip_failure, problem
from tidegate.web.heavy import InlineOffload
from tidegate.web.model_answers import ModelAnswers, ModelErrors
from tidegate.web.parts import HandlerParts, TimeLeft
from tidegate.web.v1 import V1Handler
from tidegate.web.v1_bundle import BundleHandler
from tidegate.web.v2 import V2Handler

_BUFFERED_BYTES = 512 * 1024 * 1024
_HOW_TO_SEND = "send it in the header Tidegate-Caller"


class Gateway(Starlette):
    """The app. Requests to `/v2` bypass Starlette's middleware and route table, which would slow every inference."""

    v2: V2Handler
    parts: HandlerParts
    forwarder: Forwarder | None
    authorization: Authorization | None

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Answer one connection (ASGI). No coroutine itself, as the one that it returns is compiled."""
        if scope["type"] != "http":
            return super().__call__(scope, receive, send)
        path: str = scope["path"]
        # The server has decoded `path` once; `raw_path` is the path as it was sent.
        app: ASGIApp
        if "%" in path or b"%" in (scope.get("raw_path") or b""):
            app = _refuse_encoded
        else:
            app = self.v2 if path.startswith("/v2/") or path == "/v2" else super().__call__
            if self.authorization is not None and path.startswith("/authorize/"):
                app = self.authorization
        return served(app, self.parts.log, self.parts.traces, self.parts.count, scope, receive, send)


async def _refuse_encoded(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a path with a percent-encoded character, in the error format of the API that the raw path begins with.

    Starlette routes on the decoded path, where `%2F` separates segments as `/` does. A proxy in front with rules by path
    may decode it differently, so that the two would read one request as two paths.
    """
    sent: bytes = scope.get("raw_path") or scope["path"].encode()
    answer = oip_failure(encoded_path()) if sent.startswith((b"/v2", b"/authorize/v2")) else problem(encoded_path())
    await answer(scope, receive, send)


def create_app(
    *,
    engines: EngineSource,
    dispatcher: Dispatcher,
    fleet: FleetStatus | None = None,
    max_body_bytes: int = 64 * 1024 * 1024,
    max_json_bytes: int = 4 * 1024 * 1024,
    stream_above_bytes: int = 512 * 1024,
    max_v1_body_bytes: int = 8 * 1024 * 1024,
    max_v1_values: int = 1_000_000,
    streams: bool = True,
    offload: Offload | None = None,
    budget: ByteBudget | None = None,
    model_errors: ModelErrors = ModelErrors.REDACTED,
    decision_ttl_ms: int = 5_000,
    time_left_ms: TimeLeft = function_time_left_ms,
    caller_of: CallerOf = header_caller,
    observe: Observe | None = None,
    shadowing: Shadowing | None = None,
    operator_token: str | None = None,
    sequence_key: Callable[[], str] = str,
    max_active_requests: int = 1024,
    limit_shares: int = 1,
    counts_limits: bool = True,
    log: AccessLog | None = None,
    console: ConsoleBackend | None = None,
    tracer: Tracer | None = None,
    count: CountRequest | None = None,
    routes: Sequence[BaseRoute] = (),
    authorizes: bool = False,
    is_bundle_open: bool = False,
    is_bundle_open_unlisted: bool = False,
    rpc_port_of: Callable[[Endpoint], int | None] | None = None,
) -> Gateway:
    """Create the gateway's ASGI app.

    Args:
        engines: source of the engine of the live bundle; each request asks it once.
        dispatcher: carries decisions out; the default deadline of a request is in its configuration.
        fleet: answers `GET /v1/fleet` to operators; None makes that path a 404.
        max_body_bytes: a larger request body is refused with 413 (> 0).
        max_json_bytes: a request to `/v2` with more JSON, not counting the binary tensors after it, is refused with 413 (> 0).
        stream_above_bytes: a larger body of a request or an answer is passed on as it arrives, where nothing needs it whole (> 0).
        max_v1_body_bytes: a larger body of `/v1` is refused with 413 (> 0).
        max_v1_values: inputs of more values are refused on `/v1` with 413 (> 0).
        streams: whether the server of the app sends an answer while it arrives; without, streams are refused with 501.
        offload: runs the work whose time grows with a request's size; None runs it on the event loop.
        budget: limits the bytes of bodies that all requests of the process hold; None: a budget of 512 MiB for this app.
        model_errors: how much of an error that a model raised is shown to callers.
        decision_ttl_ms: how long a caller of `resolve` may keep a decision, in milliseconds (at least 0).
        time_left_ms: returns the milliseconds that the function running the app has left for a request, or None.
        caller_of: returns the name of a request's caller, from a source that can be trusted. The default reads the header
            `Tidegate-Caller`; nothing else reads that header.
        observe: callback for every decided inference, called before its answer is sent; None for no callback.
        shadowing: makes the copies for shadows; None for no copies.
        operator_token: the token that operators send; None: the operators' endpoints answer 401 to everyone.
        sequence_key: returns what keeps the sequence ids that callers get at the models' servers unpredictable; see `PrivateIds`.
        max_active_requests: the most requests under way at a time (> 0); the limit falls while the event loop is late.
        limit_shares: how many processes share the limits of callers and objectives (at least 1).
        counts_limits: whether requests that a limit applies to are counted against it; if not, they are refused.
        log: logs each request that names an objective; None for no log.
        console: answers the console and operators' paths; None: they are 404.
        tracer: records each request that names an objective; None for no traces.
        count: counts each request, by its route and its status; None: they are not counted.
        routes: further routes, after the gateway's own.
        is_bundle_open: whether every caller may read the bundle and the addresses of shards; else those with the grant.
        is_bundle_open_unlisted: whether everyone may while the rules have no callers.yaml.
        rpc_port_of: returns an endpoint's port for gRPC, if it has one; None: shards are shown without.
        authorizes: whether `/authorize` answers a proxy that carries requests itself.
    """
    grants = Grants(caller_of, _HOW_TO_SEND if caller_of is header_caller else "no authorizer gave it")
    parts = HandlerParts(
        service=Service(
            engines,
            dispatcher,
            grants,
            observe,
            Quotas(limit_shares) if counts_limits else QuotasElsewhere(),
            LoadLimit(max_active_requests),
            shadowing,
            PrivateIds(sequence_key),
            tracer,
        ),
        decided=DecisionHeaders(),
        answers=ModelAnswers(model_errors),
        time_left_ms=time_left_ms,
        offload=offload or InlineOffload(),
        budget=budget or ByteBudget(_BUFFERED_BYTES),
        max_body_bytes=max_body_bytes,
        max_json_bytes=max_json_bytes,
        stream_above_bytes=stream_above_bytes,
        max_v1_body_bytes=max_v1_body_bytes,
        max_v1_values=max_v1_values,
        log=log,
        streams=streams,
        traces=tracer is not None,
        count=count,
    )
    forwarder = None if console is None else Forwarder(console, parts.budget)
    forwarded = () if forwarder is None else forwarder.routes()
    operators = Operators(operator_token)
    bundles = BundleHandler(
        parts.service, operators, rpc_port_of, is_open=is_bundle_open, is_open_unlisted=is_bundle_open_unlisted
    )
    v1 = V1Handler(parts, fleet, operators, decision_ttl_ms, console is not None)
    app = Gateway(
        routes=[*v1.routes(), *bundles.routes(v1.guarded), *forwarded, *routes],
        exception_handlers=v1.exception_handlers(),
    )
    # A redirect would send the caller, with its context, to the host in its `Host` header.
    app.router.redirect_slashes = False
    app.parts = parts
    app.forwarder = forwarder
    app.v2 = V2Handler(parts)
    app.authorization = Authorization(parts, dispatcher.config) if authorizes else None
    return app
