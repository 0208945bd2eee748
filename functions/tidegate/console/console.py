"""The console of one process: what its handlers ask, with what is kept between two questions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Generic, TypeVar

from tidegate.console.live_rules import LiveRules
from tidegate.console.overview import overview
from tidegate.console.sources import ConsoleSources

T = TypeVar("T")

OVERVIEW_S = 0.8
"""How long an overview is given to further viewers: to read one takes as much time of the CPU as thirty requests."""

PAIRS_S = 30.0


class Kept(Generic[T]):
    """A value that is read at most once in `most_s` seconds, and by one reader at a time."""

    def __init__(self, read: Callable[[], Awaitable[T]], most_s: float) -> None:
        self._read = read
        self._most_s = most_s
        self._reading: asyncio.Task[T] | None = None
        self._until = 0.0

    async def get(self) -> T:
        """Return the value, or raise what reading it raised."""
        now = time.monotonic()
        if self._reading is None or (self._reading.done() and (now >= self._until or self._failed(self._reading))):
            self._reading = asyncio.ensure_future(self._timed())
        return await asyncio.shield(self._reading)

    async def _timed(self) -> T:
        value = await self._read()
        self._until = time.monotonic() + self._most_s
        return value

    @staticmethod
    def _failed(task: asyncio.Task[T]) -> bool:
        return task.cancelled() or task.exception() is not None


class Console:
    """What operators see and do, as plain JSON values. Use it on one event loop."""

    def __init__(self, sources: ConsoleSources) -> None:
        if sources.pairs is not None:
            sources = replace(sources, pairs=Kept(sources.pairs, PAIRS_S).get)
        self._sources = sources
        self._live = LiveRules(sources.plane)
        self._overview = Kept(lambda: overview(sources, self._live), OVERVIEW_S)

    async def overview(self) -> Mapping[str, Any]:
        """See `tidegate.console.overview`."""
        return await self._overview.get()

    async def metrics(self, accepted: str) -> tuple[str, bytes] | None:
        """Return the metrics in a format of the header `Accept`, with their media type; None: nothing counts."""
        return None if self._sources.metrics is None else await self._sources.metrics(accepted)
