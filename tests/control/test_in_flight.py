"""A swap waits for the requests that began before it, and for no others."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from tidegate.control.in_flight import InFlight


class Door:
    """An ASGI app whose requests last until they are let go."""

    def __init__(self) -> None:
        self.flights = InFlight()
        self._app = self.flights.wrap(self._answer)
        self._gates: list[asyncio.Event] = []

    async def begin(self) -> tuple[asyncio.Event, asyncio.Task[None]]:
        gate = asyncio.Event()
        self._gates.append(gate)
        task = asyncio.create_task(self._app({"type": "http"}, self._receive, self._send))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        return gate, task

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        await self._gates[-1].wait()

    async def _receive(self) -> MutableMapping[str, Any]:
        return {}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        del message


def test_a_drain_ends_with_the_last_request_that_began_before_it() -> None:
    async def run() -> None:
        door = Door()
        first, _ = await door.begin()
        drain = asyncio.create_task(door.flights.drain(5))
        await asyncio.sleep(0)
        second, later = await door.begin()
        await asyncio.sleep(0.05)
        assert not drain.done()
        first.set()
        assert await drain
        assert not later.done()
        second.set()
        await later

    asyncio.run(run())


def test_a_drain_gives_up_in_time() -> None:
    async def run() -> None:
        door = Door()
        gate, task = await door.begin()
        assert not await door.flights.drain(0.05)
        gate.set()
        await task
        assert await door.flights.drain(0.05)

    asyncio.run(run())
