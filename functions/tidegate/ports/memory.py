"""What the gateway needs, in memory: engine, endpoints, transport, fleet status."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidegate.ports.protocols import Done, Endpoint, HttpRequest, HttpResponse
from tidegate.rules import Engine


@dataclass(slots=True)
class MemoryEngineSource:
    """An `EngineSource` that is swapped in memory; an assignment is atomic, so no request sees half a swap."""

    live: Engine

    def engine(self) -> Engine:
        """The engine that was swapped in last."""
        return self.live

    def catching_up(self) -> None:
        """Nothing to wait for: what was swapped in is live."""

    def swap(self, engine: Engine) -> None:
        """Make `engine` live for every request that starts from now on."""
        self.live = engine


@dataclass(slots=True)
class MemoryEndpointDirectory:
    """An `EndpointDirectory` held in a dictionary."""

    shards: dict[str, tuple[Endpoint, ...]] = field(default_factory=dict)

    def endpoints(self, shard: str) -> Sequence[Endpoint]:
        """The endpoints registered for `shard`."""
        return self.shards.get(shard, ())


@dataclass(slots=True)
class MemoryTransport:
    """A `Transport` that answers from a function, for tests and simulations; it keeps what it was sent in `sent`."""

    answer: Callable[[Endpoint, HttpRequest], Awaitable[HttpResponse]]
    sent: list[tuple[Endpoint, HttpRequest]] = field(default_factory=list)

    async def send(
        self,
        endpoint: Endpoint,
        request: HttpRequest,
        timeout_s: float,  # noqa: ARG002  # the port's
        done: Done | None = None,
    ) -> HttpResponse:
        """Record the request and return what `answer` gives."""
        self.sent.append((endpoint, request))
        try:
            return await self.answer(endpoint, request)
        finally:
            if done is not None:
                done(None)

    def hang_up(self, endpoint: Endpoint) -> None:
        """Nothing is under way without an answer to come."""


@dataclass(slots=True)
class MemoryFleetStatus:
    """A `FleetStatus` that says what it is given; change `fleet` to change what it says."""

    fleet: Mapping[str, Any]

    async def status(self) -> Mapping[str, Any]:
        """The fleet as it stands now."""
        return self.fleet
