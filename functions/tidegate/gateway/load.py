"""The requests under way in this process, limited by how late its event loop is.

Each model on an endpoint has a limit of its own (`concurrency`), so a slow model does not lower this one: its requests cost the
process nothing while they wait. What all requests share is the event loop. Its lateness is the latency that the process itself
adds, and the limit follows it by the same gradient.
"""

from __future__ import annotations

import asyncio
from typing import Final

from tidegate.errors import OverloadedError
from tidegate.gateway.concurrency import next_limit
from tidegate.gateway.fair_queue import FairQueue

LEAST: Final = 64
"""The lowest limit. So many requests at once keep a loop busy for less than `LATE_S`; nothing is measured below half of it."""

LATE_S: Final = 0.010
"""A loop may be so late before the limit falls."""

TICK_S: Final = 0.02
WINDOW_TICKS: Final = 5
QUEUE_S: Final = 0.1
"""The longest wait. A longer one would only add latency, since the loop has no more time later."""

QUEUE_MOST: Final = 256


class LoadLimit:
    """Admits requests while the process keeps up.

    Args:
        most: the highest limit (at least 1).
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._measured_above = min(LEAST, most) // 2
        self._limit = float(most)
        self._queue = FairQueue()
        self._lags_s: list[float] = []
        self._due_s = 0.0
        self._is_measuring = False
        self._left = 0
        self._left_per_s = 0.0
        self.in_flight = 0

    @property
    def limit(self) -> int:
        """How many requests may be under way now."""
        return int(self._limit)

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    def enter(self) -> bool:
        """Count a request if it need not wait; return whether it was counted."""
        if self.in_flight >= self._limit or self._queue.waiting:
            return False
        self._count()
        return True

    async def wait(self, flow: object, within_s: float) -> None:
        """Wait until a request may be under way, and count it.

        Args:
            flow: who waits; see `FairQueue`.
            within_s: how long the caller would wait for its answer.

        Raises:
            OverloadedError: the request cannot be admitted in time.
        """
        most_s = min(QUEUE_S, within_s)
        self._make_room(flow, most_s)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.push(flow, waiter)
        try:
            async with asyncio.timeout(most_s):
                await waiter
        except TimeoutError:
            self._give_up(waiter)
            raise self._overloaded() from None
        except asyncio.CancelledError:
            self._give_up(waiter)
            raise

    def leave(self) -> None:
        """Count the end of a request, and admit the next that waits."""
        self.in_flight -= 1
        self._left += 1
        if self._queue.waiting:
            self._let_in()

    def _count(self) -> None:
        self.in_flight += 1
        if self.in_flight > self._measured_above and not self._is_measuring:
            self._is_measuring = True
            self._left = 0
            self._lags_s.clear()
            self._schedule()

    def _make_room(self, flow: object, most_s: float) -> None:
        """Refuse the new request, or the one whose turn is last, if there is no room for both.

        Raises:
            OverloadedError: the new one's turn would be last.
        """
        waiting = len(self._queue)
        is_late = self._left_per_s > 0.0 and (waiting + 1) / self._left_per_s > most_s
        if waiting < QUEUE_MOST and not is_late:
            return
        displaced = self._queue.displace(flow)
        if displaced is None:
            raise self._overloaded()
        displaced.set_exception(self._overloaded())

    def _overloaded(self) -> OverloadedError:
        return OverloadedError(f"the gateway has {self.in_flight} requests under way, and cannot serve more in time")

    def _let_in(self) -> None:
        while self._queue and self.in_flight < self._limit:
            waiter = self._queue.pop()
            if waiter is None:
                break
            # Counted on behalf of the waiter, so that no other request takes its place first.
            self._count()
            waiter.set_result(None)

    def _give_up(self, waiter: asyncio.Future[None]) -> None:
        if waiter.done() and not waiter.cancelled():
            if waiter.exception() is None:
                self.leave()
        else:
            waiter.cancel()
            self._queue.forget()

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._due_s = loop.time() + TICK_S
        loop.call_at(self._due_s, self._tick)

    def _tick(self) -> None:
        """Measure how late the loop is."""
        self._lags_s.append(asyncio.get_running_loop().time() - self._due_s)
        if len(self._lags_s) >= WINDOW_TICKS:
            late_s = sorted(self._lags_s)[WINDOW_TICKS // 2]
            self._left_per_s = self._left / (WINDOW_TICKS * (TICK_S + late_s))
            self._limit = min(float(self._most), max(float(LEAST), next_limit(self._limit, LATE_S, late_s)))
            self._lags_s.clear()
            self._left = 0
        self._let_in()
        if self.in_flight > self._measured_above or self._queue or self._limit < self._most:
            self._schedule()
        else:
            self._is_measuring = False
            self._left_per_s = 0.0
