"""The composition root: settings in, wired objects out. The only package that knows which part implements which port."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidegate.byte_budget import ByteBudget
from tidegate.gateway import DispatchConfig, Dispatcher, ignore_suspect
from tidegate.ports import (
    CountRequest,
    Endpoint,
    EndpointDirectory,
    EngineSource,
    FleetStatus,
    Observe,
    Offload,
    ShadowSink,
    Suspect,
    Tracer,
    Transport,
)
from tidegate.settings import Settings
from tidegate.shadows.sampled import PairCounts
from tidegate.triton.connection import ResponseLimits
from tidegate.triton.transport import PooledTransport

if TYPE_CHECKING:
    from tidegate.gateway.grants import CallerOf
    from tidegate.ports.console import ConsoleBackend
    from tidegate.web.access_log import WriteLine


@dataclass(frozen=True, slots=True)
class Gateway:
    """A wired gateway: `app` is the ASGI app, `close` ends its connections to Triton, and `dispatcher` knows the state of
    the endpoints. `shadow_counts` counts the requests that shadows sampled, `shadow_pairs` those of each pair; see
    `tidegate.shadows.counts`."""

    app: Any
    close: Callable[[], Awaitable[None]]
    dispatcher: Dispatcher
    shadow_counts: Counter[str]
    shadow_pairs: PairCounts


def build_transport(settings: Settings, budget: ByteBudget | None = None) -> PooledTransport:
    """The connections to Triton servers; `budget` counts the responses that are held (None: one of their own)."""
    return PooledTransport(
        connect_timeout_s=settings.connect_timeout_ms / 1000,
        max_idle_per_endpoint=settings.pool_connections_per_endpoint,
        max_per_endpoint=settings.max_connections_per_endpoint,
        limits=response_limits(settings, budget or ByteBudget(settings.max_buffered_bytes)),
    )


def build_tracer(settings: Settings, report: Callable[[str], None]) -> Tracer | None:
    """Return the tracer of this process, by its environment; None: requests are not traced. `report` gets a text for the log, in
    another thread.

    Raises:
        SettingsError: the packages are not installed, or a variable of OpenTelemetry has a value that cannot be used.
    """
    if settings.tracing == "off":
        return None
    from tidegate.tracing.environment import check_tracing

    check_tracing(os.environ)
    # Nothing else needs OpenTelemetry's SDK, which takes longer to import than the gateway.
    from tidegate.tracing.otlp import OtlpTracer

    return OtlpTracer(os.environ, report)


def response_limits(settings: Settings, budget: ByteBudget) -> ResponseLimits:
    return ResponseLimits(settings.max_response_bytes, budget)


def build_gateway(
    settings: Settings,
    engines: EngineSource,
    directory: EndpointDirectory,
    fleet: FleetStatus | None = None,
    caller_of: CallerOf | None = None,
    observe: Observe | None = None,
    offload: Offload | None = None,
    suspects: Callable[[Suspect], None] = ignore_suspect,
    streams: bool = True,
    rpc_port_of: Callable[[Endpoint], int | None] | None = None,
    shadows: ShadowSink | None = None,
    write_line: WriteLine | None = None,
    console: ConsoleBackend | None = None,
    sequence_key: Callable[[], str] | None = None,
    tracer: Tracer | None = None,
    count: CountRequest | None = None,
    authorizes: bool = False,
    counts_limits: bool = True,
) -> Gateway:
    """The gateway over the engine of `engines` and the endpoints of `directory`; `fleet` answers `GET /v1/fleet` to
    operators.

    `caller_of` gives the name of a request's caller. The default believes the caller's own header, so a gateway that
    strangers reach is given one that asks its authorizer. `observe` gets every decided inference, `suspects` every model that
    callers cannot use on an endpoint, and `shadows` the copies of requests; None: no request is copied. `write_line` gets a
    line for the log of each request that names an objective, and `tracer` records each; `count` counts every request. `streams` is false where
    the app's server sends only whole answers. `console` answers the console and the operators' paths; None: they are 404.
    `authorizes` says whether `/authorize` answers a proxy, and `counts_limits` whether requests with a limit are counted here; if not, they are refused. `rpc_port_of` gives an endpoint's port for gRPC, where the gateway serves that. `sequence_key` returns the key of sequence ids,
    where it is not that of the settings.
    """
    # Here, as the control plane's functions are wired in this package too, and have no web framework.
    from tidegate.gateway.shadowing import Shadowing
    from tidegate.web import create_app
    from tidegate.web.access_log import AccessLog
    from tidegate.web.callers import header_caller
    from tidegate.web.model_answers import ModelErrors

    budget = ByteBudget(settings.max_buffered_bytes)
    http = build_transport(settings, budget)
    transport: Transport = http
    rpc = None
    if rpc_port_of is not None:
        # Nothing else needs grpc, which takes 50 ms to import, and no function has it.
        from tidegate.triton.rpc_transport import RpcTransport

        rpc = transport = RpcTransport(
            http, rpc_port_of, response_limits(settings, budget), cancels=settings.cancel_rpcs
        )
    config = DispatchConfig(
        default_timeout_ms=settings.default_timeout_ms,
        attempt_share=settings.attempt_share,
        retry_ratio=settings.retry_budget_percent / 100,
        breaker_failures=settings.breaker_failures,
        breaker_open_ms=settings.breaker_open_ms,
        queue_ms=settings.queue_ms,
        most_in_flight=settings.max_in_flight,
        quarantine_s=settings.quarantine_s,
        slow_start_ms=settings.slow_start_ms,
        ejection_ms=settings.ejection_ms,
        stream_idle_ms=settings.stream_idle_ms,
        stream_most_ms=settings.stream_most_ms,
    )
    dispatcher = Dispatcher(transport, directory, config, suspects=suspects)
    shadowing = None
    if shadows is not None:
        shadowing = Shadowing(dispatcher, shadows, rpc_port_of=rpc_port_of if shadows.takes_rpcs else None)
    app = create_app(
        engines=engines,
        dispatcher=dispatcher,
        fleet=fleet,
        max_body_bytes=settings.max_body_bytes,
        max_json_bytes=settings.max_json_bytes,
        stream_above_bytes=settings.stream_above_bytes,
        max_v1_body_bytes=settings.max_v1_body_bytes,
        max_v1_values=settings.max_v1_values,
        streams=streams,
        offload=offload,
        budget=budget,
        model_errors=ModelErrors(settings.model_errors or ModelErrors.REDACTED),
        caller_of=caller_of or header_caller,
        observe=observe,
        shadowing=shadowing,
        operator_token=settings.operator_token,
        is_bundle_open=settings.bundle_readers == "everyone",
        is_bundle_open_unlisted=settings.bundle_readers == "unlisted",
        rpc_port_of=rpc_port_of,
        sequence_key=sequence_key or (lambda: settings.sequence_key or ""),
        max_active_requests=settings.max_active_requests,
        limit_shares=settings.limit_shares,
        counts_limits=counts_limits,
        console=console,
        log=None if write_line is None else AccessLog(write_line, settings.access_log_percent),
        tracer=tracer,
        count=count,
        authorizes=authorizes,
    )

    async def close() -> None:
        dispatcher.close()
        if rpc is not None:
            await rpc.aclose()
        await http.aclose()

    counts, pairs = (Counter[str](), PairCounts()) if shadowing is None else (shadowing.counts, shadowing.pairs)
    return Gateway(app, close, dispatcher, counts, pairs)
