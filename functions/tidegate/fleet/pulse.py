"""Checks whether a server answers at all.

A process that is stopped, deadlocked or starved keeps its port open and answers nothing, so that its end is never seen. It is
asked for its health again and again. Its silence is counted only in time that this process could have heard an answer: when
its own event loop is busy, or its machine was asleep, that says nothing about the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tidegate.tasks import cancel

EVERY_S = 1.0
"""Time between an answer and the next check; after a missing answer the next check follows at once."""

ANSWER_S = 2.0
"""How long an answer may take."""

MISSES = 2
"""Consecutive checks without an answer after which a server is silent."""

LATE_S = 1.0
"""How long a server may go without an answer before that is shown. It is not an alarm: a busy machine answers late, too."""

SLICE_S = 0.1
"""The most that one turn of waiting counts; the rest is the delay of this process."""


class Pulse:
    """Checks one server with `ask`, which returns whether it answered, and may never return.

    `silent_s` is how long the server has not answered, in seconds; 0 if it answered the last check.
    """

    def __init__(self, ask: Callable[[], Awaitable[bool]]) -> None:
        self._ask = ask
        self._misses = 0
        self._waited_s = 0.0
        self.silent_s = 0.0

    @property
    def unanswered_s(self) -> float:
        """How long the server has not answered, in seconds, with the check that is under way."""
        return self.silent_s + self._waited_s

    @property
    def is_silent(self) -> bool:
        """Whether the server does not answer; one lost answer does not count."""
        return self._misses >= MISSES

    async def run(self) -> None:
        while True:
            await self._look()
            if not self._misses:
                await asyncio.sleep(EVERY_S)

    async def _look(self) -> None:
        asking = asyncio.ensure_future(self._ask())
        try:
            # Without delays of this process.
            while self._waited_s < ANSWER_S and not asking.done():
                self._waited_s += await _slice(asking)
            if asking.done() and asking.result():
                self._misses, self.silent_s = 0, 0.0
                return
            # A connection that is refused at once does not count as an answer, and the next check must not follow at once.
            while self._waited_s < EVERY_S:
                self._waited_s += await _slice()
            self._misses += 1
            self.silent_s += self._waited_s
        finally:
            self._waited_s = 0.0
            await cancel(asking)


async def _slice(asking: asyncio.Future[bool] | None = None) -> float:
    """Wait for `SLICE_S`, or until `asking` is done. Return how much of the time counts."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    if asking is None:
        await asyncio.sleep(SLICE_S)
    else:
        await asyncio.wait([asking], timeout=SLICE_S)
    return min(loop.time() - began, SLICE_S)
