"""A queue in which whoever sends much does not make others wait."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

MOST_FLOWS = 4096
"""Flows that are remembered before those that wait for nothing are forgotten."""

_MOST_GONE = 64
"""Entries of waiters that are gone are kept until they are as many as those that wait, and this many more."""


class FairQueue:
    """Waiters of many flows, served in turn: start-time fair queueing, every request at the same cost.

    A flow is a caller or its connection: https://doi.org/10.1109/90.649569 (Goyal, Vin, Cheng 1997). One that was not seen
    before enters as if it had just been served: else whoever opens a connection for each request would always be first.
    """

    __slots__ = ("_finish", "_first", "_last", "_live", "_number", "_virtual")

    def __init__(self) -> None:
        self._first: list[tuple[int, int, object, asyncio.Future[None]]] = []
        self._last: list[tuple[int, int, object, asyncio.Future[None]]] = []
        self._finish: dict[object, int] = {}
        self._virtual = 0
        self._number = count()
        self._live = 0

    def __len__(self) -> int:
        return self._live

    def push(self, flow: object, waiter: asyncio.Future[None]) -> None:
        """Enter a waiter of a flow. One that gives up must be told by `forget`."""
        start, number = self._start(flow), next(self._number)
        self._remember(flow, start + 1)
        heapq.heappush(self._first, (start, number, flow, waiter))
        heapq.heappush(self._last, (-start, -number, flow, waiter))
        self._live += 1

    def pop(self) -> asyncio.Future[None] | None:
        """Take the next waiter out; None: nobody waits."""
        while self._first:
            start, _, _, waiter = heapq.heappop(self._first)
            if waiter.done():
                continue
            self._virtual = start
            self._live -= 1
            self._tidy()
            return waiter
        self._tidy()
        return None

    def precedes(self, flow: object) -> bool:
        """Whether a newcomer of a flow would come before somebody who waits."""
        while self._last and self._last[0][3].done():
            heapq.heappop(self._last)
        return bool(self._last) and self._start(flow) < -self._last[0][0]

    def displace(self, flow: object) -> asyncio.Future[None] | None:
        """Take out the waiter whose turn is last, to make room for a newcomer of a flow that precedes it.

        None: it does not, and has its place in the order from now on, so that it will as others are served.
        """
        if not self.precedes(flow):
            self._remember(flow, self._start(flow))
            return None
        start, _, displaced, waiter = heapq.heappop(self._last)
        # It has had nothing for its turn.
        self._finish[displaced] = -start
        self._live -= 1
        return waiter

    def forget(self) -> None:
        """A waiter, which is done, has given up."""
        self._live -= 1
        self._tidy()

    def _remember(self, flow: object, finish: int) -> None:
        if len(self._finish) >= max(MOST_FLOWS, 2 * self._live):
            waiting = {each for _, _, each, waits in self._first if not waits.done()}
            self._finish = {each: kept for each, kept in self._finish.items() if each in waiting}
        self._finish[flow] = finish

    def _start(self, flow: object) -> int:
        return max(self._virtual, self._finish.get(flow, self._virtual + 1))

    def _tidy(self) -> None:
        """Let go of what is over; where nobody is served, or nobody gives up, nothing else does."""
        if not self._live:
            self._first.clear()
            self._last.clear()
            self._finish.clear()
            self._virtual = 0
            return
        if max(len(self._first), len(self._last)) > 2 * self._live + _MOST_GONE:
            self._first = [entry for entry in self._first if not entry[3].done()]
            self._last = [entry for entry in self._last if not entry[3].done()]
            heapq.heapify(self._first)
            heapq.heapify(self._last)
