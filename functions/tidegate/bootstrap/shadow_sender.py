"""Sends copies for shadows to a queue from a local gateway, as the gateway's function does, in a thread beside its event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from tidegate.aws.shadow_queue import ShadowQueue
from tidegate.shadows.copy import ShadowCopy
from tidegate.shadows.counts import Drop
from tidegate.shadows.exchange import Pair
from tidegate.tasks import cancel, wait_at_most

TICK_S = 1.0
"""How often counts are handed over where there are no copies."""


class QueuedShadows:
    """A `tidegate.ports.ShadowSink` over the sender of the gateway's function. One event loop uses it.

    Args:
        queue: sends copies and counts; it may wait.
        most_bytes: the most bytes of copies that wait to be sent.
        counted: returns what was counted of each pair since the last time; see `PairCounts.take`.
        report: gets how many copies the queue took, and how many were dropped.
    """

    takes_rpcs = False

    def __init__(
        self,
        queue: ShadowQueue,
        most_bytes: int,
        counted: Callable[[], list[Any]],
        report: Callable[[Counter[str]], None],
    ) -> None:
        self._queue = queue
        self._most_bytes = most_bytes
        self._counted = counted
        self._report = report
        self._waiting: list[ShadowCopy] = []
        self._held_bytes = 0
        self._work = asyncio.Event()
        self._running = asyncio.create_task(self._run())

    def refusal(self, pair: Pair) -> Drop | None:
        return self._queue.refusal(pair)

    def offer(self, copy: ShadowCopy) -> Drop | None:
        if self._held_bytes + copy.size_bytes > self._most_bytes:
            return Drop.MEMORY
        self._held_bytes += copy.size_bytes
        self._waiting.append(copy)
        self._work.set()
        return None

    async def aclose(self) -> None:
        """Send what waits, counts included, and end."""
        await cancel(self._running)
        await self._send()
        await asyncio.to_thread(self._queue.send_counts)

    async def _run(self) -> None:
        while True:
            await wait_at_most(self._work, TICK_S)
            await self._send()

    async def _send(self) -> None:
        self._work.clear()
        copies, self._waiting = self._waiting, []
        records = self._counted()
        # A cancellation does not end the thread, and two must not send at a time.
        sending = asyncio.create_task(asyncio.to_thread(self._queue.send, copies, records))
        try:
            counts = await asyncio.shield(sending)
        except asyncio.CancelledError:
            self._report(await sending)
            raise
        finally:
            self._held_bytes -= sum(copy.size_bytes for copy in copies)
        self._report(counts)
