"""Puts the handlers of `/v1` and `/v2` together."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from tidegate.byte_budget import ByteBudget
from tidegate.dispatch import Dispatcher
from tidegate.ports import EngineSource, FleetStatus, Observe, Offload
from tidegate.web.callers import CallerOf, Grants, Operators, header_caller
from tidegate.web.decided import DecisionHeaders
from tidegate.web.errors import encoded_path, oip_failure, problem
from tidegate.web.heavy import InlineOffload
from tidegate.web.limits import function_time_left_ms
from tidegate.web.metadata import MetadataCache
from tidegate.web.model_answers import ModelAnswers, ModelErrors
from tidegate.web.objectives import JsonDoor
from tidegate.web.observed import unobserved
from tidegate.web.oip import OipDoor
from tidegate.web.parts import DoorParts, TimeLeft

_BUFFERED_BYTES = 512 * 1024 * 1024


class Gateway(Starlette):
    """The app. `/v2` is in the path of every inference and passes by Starlette's middleware and route table."""

    oip: OipDoor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection (ASGI)."""
        if scope["type"] == "http":
            path: str = scope["path"]
            # A server decodes `path` once; what it was sent as is in `raw_path`.
            if "%" in path or b"%" in (scope.get("raw_path") or b""):
                await _refuse_encoded(scope, receive, send)
                return
            if path.startswith("/v2/") or path == "/v2":
                await self.oip(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


async def _refuse_encoded(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a path with a percent-encoded character, in the form of the handler that the path as sent begins with.

    Starlette routes on the decoded path, where `%2F` separates segments as `/` does. An edge that makes rules by path need
    not decode as often as this server, so the two would take one request for two paths.
    """
    sent: bytes = scope.get("raw_path") or scope["path"].encode()
    answer = oip_failure(encoded_path()) if sent.startswith(b"/v2") else problem(encoded_path())
    await answer(scope, receive, send)


def create_app(
    *,
    engines: EngineSource,
    dispatcher: Dispatcher,
    fleet: FleetStatus | None = None,
    max_body_bytes: int = 64 * 1024 * 1024,
    max_json_bytes: int = 4 * 1024 * 1024,
    stream_above_bytes: int = 1024 * 1024,
    max_v1_body_bytes: int = 8 * 1024 * 1024,
    max_v1_values: int = 1_000_000,
    offload: Offload | None = None,
    budget: ByteBudget | None = None,
    model_errors: ModelErrors = ModelErrors.REDACTED,
    decision_ttl_ms: int = 5_000,
    time_left_ms: TimeLeft = function_time_left_ms,
    caller_of: CallerOf = header_caller,
    observe: Observe = unobserved,
    operator_token: str | None = None,
    routes: Sequence[BaseRoute] = (),
) -> Starlette:
    """The gateway as an ASGI app.

    Args:
        engines: holds the engine of the live bundle; each request asks it once.
        dispatcher: carries decisions out; the default deadline of a request is in its configuration.
        fleet: answers `GET /v1/fleet` to operators; None makes that path a 404.
        max_body_bytes: a larger request body is refused with 413 (> 0).
        max_json_bytes: a request to `/v2` with more JSON, without the tensors in binary after it, is refused with 413 (> 0).
        stream_above_bytes: a larger body is passed on as it comes, where nothing needs it whole (> 0).
        max_v1_body_bytes: a larger body of `/v1` is refused with 413 (> 0).
        max_v1_values: inputs of more values are refused on `/v1` with 413 (> 0).
        offload: does the work whose time grows with a request; None does it where it arises.
        budget: counts the bytes of bodies that are held, over all requests of the process; None is one of 512 MiB of its own.
        model_errors: what callers are told of an error that a model raised.
        decision_ttl_ms: how long a caller of `resolve` may keep a decision, in milliseconds (at least 0).
        time_left_ms: what the function that runs the app has left for a request, in milliseconds, or None.
        caller_of: gives the name of a request's caller, from wherever it can be trusted; the default reads the header
            `Tidegate-Caller`, and no other function does.
        observe: gets every inference that was decided, before its answer is sent.
        operator_token: what operators send; None: there are none.
        routes: further routes, after the gateway's own.
    """
    parts = DoorParts(
        engines=engines,
        dispatcher=dispatcher,
        decided=DecisionHeaders(),
        metadata=MetadataCache(dispatcher),
        grants=Grants(caller_of),
        time_left_ms=time_left_ms,
        max_body_bytes=max_body_bytes,
        max_json_bytes=max_json_bytes,
        stream_above_bytes=stream_above_bytes,
        max_v1_body_bytes=max_v1_body_bytes,
        max_v1_values=max_v1_values,
        offload=offload or InlineOffload(),
        budget=budget or ByteBudget(_BUFFERED_BYTES),
        answers=ModelAnswers(model_errors),
        observe=observe,
    )
    door = JsonDoor(parts, fleet, Operators(operator_token), decision_ttl_ms)
    app = Gateway(routes=[*door.routes(), *routes], exception_handlers=door.exception_handlers())
    # A redirect would send a caller, with its context, to whatever host its request named.
    app.router.redirect_slashes = False
    app.oip = OipDoor(parts)
    return app
