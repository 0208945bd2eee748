"""A server's pulse: whether it answers at all, beside everything else that is asked of it.

A process that is stopped, deadlocked or starved keeps its port open and answers nothing, so that its end is never seen. It is
asked for its health again and again, and how long it has been silent is counted in time that this process was there to
hear an answer: where this process is late itself, as its event loop is busy or its machine was asleep, that says nothing
about the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

EVERY_S = 1.0
"""Time between an answer and the next question; after a miss the next one follows at once."""

ANSWER_S = 2.0
"""How long an answer may take."""

MISSES = 2
"""Questions in a row without an answer after which a server is silent."""

SLICE_S = 0.1
"""The most that one turn of waiting counts: what is longer is the lateness of this process."""


class Pulse:
    """Asks one server.

    Args:
        ask: asks it once, and says whether it answered; it may take for ever.

    Attributes:
        silent_s: for how long the server has answered nothing, in seconds; 0 where it answered last.
    """

    def __init__(self, ask: Callable[[], Awaitable[bool]]) -> None:
        self._ask = ask
        self._misses = 0
        self.silent_s = 0.0

    @property
    def is_silent(self) -> bool:
        """Whether the server does not answer; one lost answer is not silence."""
        return self._misses >= MISSES

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._look()
            if not self._misses:
                await asyncio.sleep(EVERY_S)

    async def _look(self) -> None:
        asking = asyncio.ensure_future(self._ask())
        try:
            waited_s = await self._wait(asking)
            if asking.done() and asking.result():
                self._misses, self.silent_s = 0, 0.0
                return
            # A connection that is refused at once is no answer either, and is not asked for again at once.
            while waited_s < EVERY_S:
                waited_s += await _slice()
            self._misses += 1
            self.silent_s += waited_s
        finally:
            asking.cancel()
            await asyncio.wait([asking])

    async def _wait(self, asking: asyncio.Future[bool]) -> float:
        """Wait for an answer; for how long, as far as this process was on time."""
        waited_s = 0.0
        while waited_s < ANSWER_S and not asking.done():
            waited_s += await _slice(asking)
        return waited_s


async def _slice(asking: asyncio.Future[bool] | None = None) -> float:
    """Wait for a moment; how much of it counts."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    if asking is None:
        await asyncio.sleep(SLICE_S)
    else:
        await asyncio.wait([asking], timeout=SLICE_S)
    return min(loop.time() - began, SLICE_S)
