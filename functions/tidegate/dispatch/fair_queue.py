"""A queue in which whoever sends much does not make others wait."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

MOST_FLOWS = 4096
"""Flows that are remembered before those that wait for nothing are forgotten."""

_MOST_GONE = 64
"""Waiters that gave up are kept until they are as many as those that wait, and this many more."""


class FairQueue:
    """Waiters of many flows, served in turn: start-time fair queueing, every request at the same cost.

    A flow is a caller or its connection. A flow that has nothing in the queue enters at the present virtual time, before
    those that were served since: https://doi.org/10.1109/90.649569 (Goyal, Vin, Cheng 1997).
    """

    __slots__ = ("_finish", "_heap", "_live", "_number", "_virtual")

    def __init__(self) -> None:
        self._heap: list[tuple[int, bool, int, object, asyncio.Future[None]]] = []
        self._finish: dict[object, int] = {}
        self._virtual = 0
        self._number = count()
        self._live = 0

    def __len__(self) -> int:
        return self._live

    def push(self, flow: object, waiter: asyncio.Future[None]) -> None:
        """Enter a waiter of a flow. One that gives up must be told by `forget`."""
        if len(self._finish) >= max(MOST_FLOWS, 2 * self._live):
            waiting = {each for _, _, _, each, waits in self._heap if not waits.done()}
            self._finish = {each: finish for each, finish in self._finish.items() if each in waiting}
        last = self._finish.get(flow)
        start = self._virtual if last is None else max(self._virtual, last)
        self._finish[flow] = start + 1
        heapq.heappush(self._heap, (start, last is not None, next(self._number), flow, waiter))
        self._live += 1

    def pop(self) -> asyncio.Future[None] | None:
        """Take the next waiter out; None: nobody waits."""
        while self._heap:
            start, _, _, _, waiter = heapq.heappop(self._heap)
            if waiter.done():
                continue
            self._virtual = start
            self._live -= 1
            self._tidy()
            return waiter
        self._tidy()
        return None

    def forget(self) -> None:
        """A waiter, which is done, has given up."""
        self._live -= 1
        if len(self._heap) > 2 * self._live + _MOST_GONE:
            # Where nobody is served, nobody else takes them out.
            self._heap = [entry for entry in self._heap if not entry[4].done()]
            heapq.heapify(self._heap)
        self._tidy()

    def _tidy(self) -> None:
        if not self._live:
            self._heap.clear()
            self._finish.clear()
            self._virtual = 0
