"""Hedged requests: a second endpoint is asked if the first one is slow, and the first answer wins.

After Dean & Barroso, "The Tail at Scale" (CACM 2013), https://research.google/pubs/the-tail-at-scale/.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final

from tidegate.gateway.call import Call, Outcome
from tidegate.gateway.failures import Failure, Kind, Next
from tidegate.gateway.latencies import Latencies
from tidegate.rules.decision import Decision, HedgeAt

Tried = Outcome | Failure
Trying = Coroutine[Any, Any, Tried]

_MOST_TARGETS: Final = 1024


class Hedging:
    """Knows after which time the requests of a decision are hedged."""

    def __init__(self) -> None:
        self._latencies: dict[tuple[str, int | None], Latencies] = {}

    def after_s(self, decision: Decision) -> float | None:
        """Return the seconds without an answer after which a request is hedged; None: it is not, or the target's latencies
        are not known yet."""
        if decision.hedge_after_ms is not None:
            return decision.hedge_after_ms / 1000.0
        if decision.hedge_at is None:
            return None
        return self._of(decision).percentile_s(_share(decision.hedge_at))

    def record(self, decision: Decision, first: Tried | None, took_s: float) -> None:
        """Record what the first attempt of a request says about its target's latencies.

        An attempt without an answer, as its hedge won (`first` is None) or it timed out, would have taken longer than `took_s`. It
        counts if that is above the percentile already, without which the percentile would fall with each hedge. Otherwise, as after
        a caller's short deadline, it says nothing.
        """
        at = decision.hedge_at
        if at is None:
            return
        latencies = self._of(decision)
        if not isinstance(first, Outcome):
            if first is not None and first.kind is not Kind.LATE:
                return
            percentile_s = latencies.percentile_s(_share(at))
            if percentile_s is None or took_s < percentile_s:
                return
        latencies.record(took_s)

    def _of(self, decision: Decision) -> Latencies:
        key = decision.target.model, decision.target.version
        found = self._latencies.get(key)
        if found is None:
            if len(self._latencies) >= _MOST_TARGETS:
                del self._latencies[next(iter(self._latencies))]
            found = self._latencies[key] = Latencies()
        return found


def _share(at: HedgeAt) -> float:
    return float(at[1:]) / 100.0


def may_hedge(call: Call) -> bool:
    """Return whether a call may be sent twice. The answer is then held until the race for it is over."""
    return call.infers and not call.once and not call.generates and call.stream_above_bytes is None


class Race:
    """The first attempt of a request, and the hedge beside it if the first has not ended in time.

    An object, and no functions within one: compiled, those would be a reference cycle, which keeps each request until the collector
    runs.

    Args:
        first: the first attempt.
        hedge: returns the hedge, or None if none can be sent then.
    """

    __slots__ = ("_first", "_has_ended", "_has_won", "_hedge", "_own", "_second")

    def __init__(self, first: Trying, hedge: Callable[[], Trying | None]) -> None:
        self._first = first
        self._hedge = hedge
        self._own: asyncio.Task[Any] | None = None
        self._second: asyncio.Task[Tried] | None = None
        self._has_won = False
        self._has_ended = False

    async def run(self, after_s: float) -> list[Tried | None]:
        """Make the first attempt, and the hedge if the first has not ended after `after_s` seconds.

        As soon as one attempt has an answer, the other is cancelled; a failure waits for the other attempt. The first attempt runs
        in the caller's own task, so that it counts at its endpoint before the next request chooses one.

        Returns:
            The result of the first attempt and, if it was sent, of the hedge; None for the one that was cancelled.
        """
        self._own = own = asyncio.current_task()
        assert own is not None
        timer = asyncio.get_running_loop().call_later(after_s, self._begin)
        tries: list[Tried | None] = [None]
        try:
            try:
                tries[0] = await self._first
            except asyncio.CancelledError:
                # As `asyncio.timeout` does: the cancellation may be the caller's, and not the hedge's.
                if not self._has_won or own.uncancel() > 0:
                    raise
            finally:
                self._has_ended = True
                timer.cancel()
            second = self._second
            if second is not None:
                tries.append(_result(second) if isinstance(tries[0], Outcome) else await second)
            return tries
        finally:
            self._own = None
            if self._second is not None:
                self._second.cancel()

    def _begin(self) -> None:
        trying = self._hedge()
        if trying is not None:
            self._second = asyncio.get_running_loop().create_task(trying)
            self._second.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Tried]) -> None:
        # Asks for the result in any case: else asyncio would log the error of an abandoned hedge.
        if isinstance(_result(task), Outcome) and not self._has_ended and self._own is not None:
            self._has_won = True
            self._own.cancel()


def answered(tries: Sequence[Tried | None]) -> tuple[int, Outcome] | None:
    """Return the attempt whose answer the caller gets, and the answer; None: there is none."""
    return next(((index, tried) for index, tried in enumerate(tries) if isinstance(tried, Outcome)), None)


def decisive(failures: Sequence[Failure]) -> Failure:
    """Return the failure of an attempt, or of an attempt and its hedge, that says what may follow. A request that may have ended
    one of two servers is sent to no third."""
    worst = max(failures, key=lambda failure: failure.next.value)
    if len(failures) > 1 and any(failure.next is Next.ONE_MORE for failure in failures):
        return replace(worst, next=Next.STOP)
    return worst


def _result(task: asyncio.Task[Tried]) -> Tried | None:
    """Return the result of an attempt; None if it is under way, was cancelled or raised."""
    return task.result() if task.done() and not task.cancelled() and task.exception() is None else None
