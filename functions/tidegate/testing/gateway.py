"""The ports of the gateway in memory: engine, endpoints, transport."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tidegate.errors import EndpointRefusedError, EndpointTimeoutError
from tidegate.ports.requests import Done, Endpoint, HttpRequest, HttpResponse
from tidegate.rules import Engine


@dataclass(slots=True)
class MemoryEngineSource:
    live: Engine

    def engine(self) -> Engine:
        return self.live

    def catching_up(self) -> None:
        """Nothing to wait for: what was swapped in is live."""


@dataclass(slots=True)
class MemoryEndpointDirectory:
    shards: dict[str, tuple[Endpoint, ...]] = field(default_factory=dict)

    def endpoints(self, shard: str) -> Sequence[Endpoint]:
        return self.shards.get(shard, ())


@dataclass(slots=True)
class MemoryTransport:
    """A `Transport` that answers from a function and keeps the requests in `sent`."""

    answer: Callable[[Endpoint, HttpRequest], Awaitable[HttpResponse]]
    sent: list[tuple[Endpoint, HttpRequest]] = field(default_factory=list)

    async def send(
        self, endpoint: Endpoint, request: HttpRequest, timeout_s: float, done: Done | None = None
    ) -> HttpResponse:
        self.sent.append((endpoint, request))
        loop, took_s, is_sent = asyncio.get_running_loop(), None, True
        began_s = loop.time()
        try:
            async with asyncio.timeout(timeout_s):
                response = await self.answer(endpoint, request)
                took_s = loop.time() - began_s if response.status < 400 else None
                return response
        except EndpointRefusedError:
            is_sent = False
            raise
        except TimeoutError:
            raise EndpointTimeoutError(f"no whole response within {timeout_s:g} s") from None
        finally:
            if done is not None and is_sent:
                done(took_s)

    def hang_up(self, endpoint: Endpoint) -> None:
        """Nothing is under way without an answer to come."""
