"""A fair queue: flows that send many requests do not delay the others."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count
from typing import Final, NamedTuple

from tidegate.rules import Caller, Priority

MOST_FLOWS: Final = 4096
"""Flows that are remembered before those without waiters are forgotten."""

_MOST_GONE: Final = 64
"""Entries of waiters that have given up are kept until they outnumber the live ones by this many."""
_RANKS: Final = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}
_NORMAL: Final = _RANKS[Priority.NORMAL]


class RankedFlow(NamedTuple):
    """A flow whose waiters come before (rank 0) or after (rank 2) those of other flows, whose rank is 1."""

    caller: str
    rank: int


def flow_of(caller: Caller) -> str | RankedFlow:
    """Return the flow of a caller's requests."""
    priority = caller.priority
    return caller.name if priority is Priority.NORMAL else RankedFlow(caller.name, _RANKS[priority])


_Entry = tuple[int, int, int, object, "asyncio.Future[None]"]


class FairQueue:
    """Waiters of many flows, served in turn within a rank, and rank by rank.

    This is start-time fair queueing with the same cost for every request (Goyal, Vin & Cheng 1997,
    https://doi.org/10.1109/90.649569). A flow is a caller or a connection. A new flow enters as if it had just been served;
    otherwise a caller that opens a connection for each request would always come first.

    `waiting` is how many wait: the length, without a call.
    """

    __slots__ = ("_finish", "_first", "_last", "_number", "_virtual", "waiting")

    def __init__(self) -> None:
        self._first: list[_Entry] = []
        self._last: list[_Entry] = []
        self._finish: dict[object, int] = {}
        self._virtual = [0] * len(_RANKS)
        self._number = count()
        self.waiting = 0

    def __len__(self) -> int:
        return self.waiting

    def push(self, flow: object, waiter: asyncio.Future[None]) -> None:
        """Add a waiter of a flow. Call `forget` if it gives up."""
        rank, start, number = _rank(flow), self._start(flow), next(self._number)
        self._remember(flow, start + 1)
        heapq.heappush(self._first, (rank, start, number, flow, waiter))
        heapq.heappush(self._last, (-rank, -start, -number, flow, waiter))
        self.waiting += 1

    def pop(self) -> asyncio.Future[None] | None:
        """Remove and return the next waiter; None when none waits."""
        while self._first:
            rank, start, _, _, waiter = heapq.heappop(self._first)
            if waiter.done():
                continue
            self._virtual[rank] = start
            self.waiting -= 1
            self._tidy()
            return waiter
        self._tidy()
        return None

    def precedes(self, flow: object) -> bool:
        """Return whether a new waiter of a flow would come before one that waits already."""
        while self._last and self._last[0][4].done():
            heapq.heappop(self._last)
        if not self._last:
            return False
        rank, start, _, _, _ = self._last[0]
        return (_rank(flow), self._start(flow)) < (-rank, -start)

    def displace(self, flow: object) -> asyncio.Future[None] | None:
        """Remove and return the last waiter, to make room for a new one of a flow that precedes it.

        None if the flow does not precede it. Its place in the order is then remembered, so that it will once others were
        served.
        """
        if not self.precedes(flow):
            self._remember(flow, self._start(flow))
            return None
        _, start, _, displaced, waiter = heapq.heappop(self._last)
        # The displaced flow was not served, so its turn is given back.
        self._finish[displaced] = -start
        self.waiting -= 1
        return waiter

    def forget(self) -> None:
        """Note that a waiter, whose future is done, has given up."""
        self.waiting -= 1
        self._tidy()

    def _remember(self, flow: object, finish: int) -> None:
        if len(self._finish) >= max(MOST_FLOWS, 2 * self.waiting):
            waiting = {each for _, _, _, each, waits in self._first if not waits.done()}
            self._finish = {each: kept for each, kept in self._finish.items() if each in waiting}
        self._finish[flow] = finish

    def _start(self, flow: object) -> int:
        virtual = self._virtual[_rank(flow)]
        return max(virtual, self._finish.get(flow, virtual + 1))

    def _tidy(self) -> None:
        """Drop the entries of waiters that are done, which `pop` reaches only in their turn."""
        if not self.waiting:
            self._first.clear()
            self._last.clear()
            self._finish.clear()
            self._virtual = [0] * len(_RANKS)
            return
        if max(len(self._first), len(self._last)) > 2 * self.waiting + _MOST_GONE:
            self._first = [entry for entry in self._first if not entry[4].done()]
            self._last = [entry for entry in self._last if not entry[4].done()]
            heapq.heapify(self._first)
            heapq.heapify(self._last)


def _rank(flow: object) -> int:
    return flow.rank if isinstance(flow, RankedFlow) else _NORMAL
