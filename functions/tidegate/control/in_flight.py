"""Counts the requests under way, so that a swap can wait for those that began before it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

SETTLE_S = 0.25
"""How long shadow calls, which outlive their request, are given on top."""


class InFlight:
    """Requests under way, by the swap that they began after."""

    def __init__(self) -> None:
        self._generation = 0
        self._counts: dict[int, int] = {}
        self._changed = asyncio.Event()

    def wrap(self, app: App) -> App:
        """An ASGI app that counts its HTTP requests and is otherwise `app`."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            generation = self._generation
            self._counts[generation] = self._counts.get(generation, 0) + 1
            try:
                await app(scope, receive, send)
            finally:
                self._counts[generation] -= 1
                if not self._counts[generation]:
                    del self._counts[generation]
                    self._changed.set()

        return counted

    async def drain(self, timeout_s: float) -> bool:
        """Wait until every request that is under way now has been answered; False where `timeout_s` was not enough."""
        before = self._generation
        self._generation += 1
        try:
            async with asyncio.timeout(timeout_s):
                while any(generation <= before for generation in self._counts):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        await asyncio.sleep(SETTLE_S)
        return True
