"""The process that sends copies, as the gateway starts and ends it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from tidegate.bootstrap.shadow_link import LinkedShadows
from tidegate.gateway.shadow_lanes import FAILURES, ShadowLimits
from tidegate.shadows.copy import ShadowCopy
from tidegate.shadows.exchange import Answer, Pair
from tidegate.shadows.tallies import Tallies

from tests.support.processes import refusing_port

LIMITS = ShadowLimits(timeout_s=5.0, in_flight=1, waiting=8, buffered_bytes=1024 * 1024)


def copy_to(port: int) -> ShadowCopy:
    pair = Pair("main", "all", "base", "base/1", "ahead", "ahead/1")
    answer = Answer(200, [], b"{}", 1.0)
    return ShadowCopy(pair, "r", time.time(), None, "a", ("127.0.0.1", port), "/", [], b"{}", answer)


def test_an_orderly_end_loses_nothing_that_was_counted() -> None:
    counts: Counter[str] = Counter()
    tallies = Tallies()

    def report(found: Counter[str], data: bytes) -> None:
        counts.update(found)
        if data:
            tallies.merge(Tallies.from_json(data))

    async def work() -> None:
        shadows, copy = LinkedShadows(LIMITS, 1000, 1024 * 1024, report), copy_to(refusing_port())
        for _ in range(FAILURES):
            shadows.offer(copy)
        async with asyncio.timeout(30):
            # All failed: that is told at once, the counts once a second.
            while shadows.refusal(copy.pair) is None:
                await asyncio.sleep(0.01)
        await shadows.aclose()

    asyncio.run(work())
    assert counts == {"sent": FAILURES, "failed: refused": FAILURES}
    (tally,) = tallies.pairs.values()
    assert tally.shadow_failed == {"refused": FAILURES}
