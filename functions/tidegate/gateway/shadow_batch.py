"""Sends the copies of a batch of messages to their shadows, in a function whose environments share the pauses of shadows."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from tidegate.errors import StoreError
from tidegate.gateway.shadow_lanes import FAILURES, pause_s, send_copy
from tidegate.ports import ShadowPause, ShadowPauses, Tracer, Transport
from tidegate.shadows.copy import ShadowCopy
from tidegate.shadows.counts import Drop
from tidegate.shadows.exchange import Answer, NoAnswer
from tidegate.tasks import run_all

_log = logging.getLogger(__name__)

SETTLED_S = 1.0
"""How much longer than its answer may take the one attempt after a pause keeps other processes from trying."""

Result = Answer | NoAnswer | Drop


class BatchLimits(NamedTuple):
    """The limits of each process.

    Attributes:
        timeout_s: how long a copy may have waited since the primary's answer, and again how long its answer may take.
        in_flight: the most copies that each shadow has at a time.
        spare_s: time that a batch keeps for what follows.
    """

    timeout_s: float
    in_flight: int
    spare_s: float


class ShadowBatches:
    """Sends copies once, those of each shadow apart from those of the others.

    A shadow that fails `FAILURES` times in a row is paused for all processes. After a pause one copy of one process is tried: a
    shadow that hangs keeps one of them waiting, and not all.

    Args:
        transport: reaches the shadows.
        placed: returns a copy with the address that it is sent to; None: no endpoint is known.
        pauses: what the processes share. Where it does not answer, copies are sent.
        limits: see `BatchLimits`.
        clock: Unix time in seconds.
        tracer: continues the traces of the requests that were copied; None: copies are not traced.
    """

    def __init__(
        self,
        transport: Transport,
        placed: Callable[[ShadowCopy], ShadowCopy | None],
        pauses: ShadowPauses,
        limits: BatchLimits,
        clock: Callable[[], float] = time.time,
        tracer: Tracer | None = None,
    ) -> None:
        self._transport = transport
        self._placed = placed
        self._pauses = pauses
        self._limits = limits
        self._clock = clock
        self._tracer = tracer
        self._failures: Counter[str] = Counter()

    async def send(self, copies: Sequence[ShadowCopy], left_s: Callable[[], float]) -> Sequence[Result]:
        """Send the copies of a batch, and return the answer to each, why there is none, or why it was not sent.

        Args:
            copies: the copies.
            left_s: returns how much of the batch's time is left.
        """
        results: list[Result] = [Drop.LATE] * len(copies)
        shadows: dict[str, list[int]] = defaultdict(list)
        for number, copy in enumerate(copies):
            shadows[copy.pair.shadow_model].append(number)

        async def of(shadow: str, numbers: Sequence[int]) -> None:
            found = await self._of(shadow, [copies[number] for number in numbers], left_s)
            for number, result in zip(numbers, found, strict=True):
                results[number] = result

        await run_all(of(shadow, numbers) for shadow, numbers in shadows.items())
        return results

    async def _of(self, shadow: str, copies: Sequence[ShadowCopy], left_s: Callable[[], float]) -> list[Result]:
        """Send the copies to one shadow."""
        placed = [self._ready(copy, left_s) for copy in copies]
        tried = [number for number, each in enumerate(placed) if isinstance(each, ShadowCopy)]
        pause = await self._pause_of(shadow) if tried else None
        if pause is None and self._failures[shadow] >= FAILURES:
            # Another process has found it healthy again.
            self._failures[shadow] = 0
        elif pause is not None:
            until = self._clock() + self._limits.timeout_s + SETTLED_S
            is_over = self._clock() >= pause.until
            tried = tried[:1] if is_over and await self._takes(shadow, pause, until) else []
        turns = asyncio.Semaphore(self._limits.in_flight)
        is_failing = False

        async def one(number: int, each: ShadowCopy | Drop) -> Result:
            nonlocal is_failing
            if isinstance(each, Drop):
                return each
            if number not in tried:
                return Drop.FAILING
            async with turns:
                ready = self._ready(each, left_s)
                if is_failing or isinstance(ready, Drop):
                    return Drop.FAILING if is_failing else Drop.LATE
                result = await send_copy(self._transport, ready, self._limits.timeout_s, self._tracer)
            failures = self._noted(shadow, result, pause)
            if failures is not None and not is_failing:
                is_failing = True
                await self._store(self._pauses.pause(shadow, ShadowPause(failures, self._clock() + pause_s(failures))))
            elif pause is not None and not is_failing:
                await self._store(self._pauses.resume(shadow))
            return result

        return await run_all(one(number, each) for number, each in enumerate(placed))

    def _ready(self, copy: ShadowCopy, left_s: Callable[[], float]) -> ShadowCopy | Drop:
        """Return a copy with its address, if it is early enough and the batch's time suffices."""
        limits = self._limits
        # Both clocks are AWS's, or one machine's.
        if self._clock() - copy.at > limits.timeout_s or left_s() <= limits.timeout_s + limits.spare_s:
            return Drop.LATE
        return self._placed(copy) or Drop.NO_ENDPOINT

    def _noted(self, shadow: str, result: Result, pause: ShadowPause | None) -> int | None:
        """Count a failure, and return how many there were in a row if the shadow is to be paused."""
        if isinstance(result, Answer):
            self._failures[shadow] = 0
            return None
        self._failures[shadow] += 1
        failures = self._failures[shadow] if pause is None else pause.failures + 1
        return failures if failures >= FAILURES else None

    async def _pause_of(self, shadow: str) -> ShadowPause | None:
        try:
            return await self._pauses.pause_of(shadow)
        except StoreError as error:
            _log.warning("whether a shadow is paused is not known: %s", error)
            return None

    async def _takes(self, shadow: str, pause: ShadowPause, until: float) -> bool:
        try:
            return await self._pauses.try_again(shadow, pause, until)
        except StoreError:
            return False

    async def _store(self, change: Awaitable[None]) -> None:
        try:
            await change
        except StoreError as error:
            _log.warning("the pause of a shadow could not be stored: %s", error)
