"""The composition root: settings in, wired objects out. The only module that knows which part stands behind which port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidegate.byte_budget import ByteBudget
from tidegate.dispatch import DispatchConfig, Dispatcher, ignore_suspect
from tidegate.ports import EndpointDirectory, EngineSource, FleetStatus, Observe, Offload, Suspect
from tidegate.settings import Settings
from tidegate.triton.connection import ResponseLimits
from tidegate.triton.transport import PooledTransport

if TYPE_CHECKING:
    from tidegate.web.callers import CallerOf


@dataclass(frozen=True, slots=True)
class Gateway:
    """A wired gateway: `app` is the ASGI app, `close` ends its connections to Triton, and `open_breakers` counts the
    endpoints that are being left alone now."""

    app: Any
    close: Callable[[], Awaitable[None]]
    open_breakers: Callable[[], int]


ABANDONED_S = 60.0
"""How long a request that nobody waits for any more keeps its place, where the server does not end it."""


def build_transport(settings: Settings, budget: ByteBudget | None = None) -> PooledTransport:
    """The connections to Triton servers; `budget` counts the responses that are held (None: one of their own)."""
    return PooledTransport(
        connect_timeout_s=settings.connect_timeout_ms / 1000,
        max_idle_per_endpoint=settings.pool_connections_per_endpoint,
        max_per_endpoint=settings.max_connections_per_endpoint,
        limits=ResponseLimits(
            settings.max_response_bytes, budget or ByteBudget(settings.max_buffered_bytes), ABANDONED_S
        ),
    )


def build_gateway(
    settings: Settings,
    engines: EngineSource,
    directory: EndpointDirectory,
    fleet: FleetStatus | None = None,
    caller_of: CallerOf | None = None,
    observe: Observe | None = None,
    offload: Offload | None = None,
    suspects: Callable[[Suspect], None] = ignore_suspect,
) -> Gateway:
    """The gateway over the engine of `engines` and the endpoints of `directory`; `fleet` answers `GET /v1/fleet` to
    operators.

    `caller_of` gives the name of a request's caller. The default believes the caller's own header, so a gateway that
    strangers reach is given one that asks its authorizer. `observe` gets every decided inference, `suspects` every model that
    callers cannot use on an endpoint.
    """
    # Here, as the control plane's functions are wired in this package too, and have no web framework.
    from tidegate.web import create_app
    from tidegate.web.callers import header_caller
    from tidegate.web.model_answers import ModelErrors
    from tidegate.web.observed import unobserved

    budget = ByteBudget(settings.max_buffered_bytes)
    transport = build_transport(settings, budget)
    config = DispatchConfig(
        default_timeout_ms=settings.default_timeout_ms,
        attempt_share=settings.attempt_share,
        retry_ratio=settings.retry_budget_percent / 100,
        breaker_failures=settings.breaker_failures,
        breaker_open_ms=settings.breaker_open_ms,
        queue_ms=settings.queue_ms,
        most_in_flight=settings.max_in_flight,
        quarantine_s=settings.quarantine_s,
    )
    dispatcher = Dispatcher(transport, directory, config, suspects=suspects)
    app = create_app(
        engines=engines,
        dispatcher=dispatcher,
        fleet=fleet,
        max_body_bytes=settings.max_body_bytes,
        max_json_bytes=settings.max_json_bytes,
        stream_above_bytes=settings.stream_above_bytes,
        max_v1_body_bytes=settings.max_v1_body_bytes,
        max_v1_values=settings.max_v1_values,
        offload=offload,
        budget=budget,
        model_errors=ModelErrors(settings.model_errors or ModelErrors.REDACTED),
        caller_of=caller_of or header_caller,
        observe=observe or unobserved,
        operator_token=settings.operator_token,
    )

    async def close() -> None:
        dispatcher.close()
        await transport.aclose()

    return Gateway(app, close, dispatcher.open_breakers)
