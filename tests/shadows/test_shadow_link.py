"""The process that sends copies, as the gateway starts and ends it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tidegate.bootstrap.copy_reader import CopyReader
from tidegate.bootstrap.frames import SIZE
from tidegate.bootstrap.shadow_link import LinkedShadows
from tidegate.gateway.shadow_lanes import FAILURES, ShadowLimits
from tidegate.shadows.copy import ShadowCopy
from tidegate.shadows.counts import Drop
from tidegate.shadows.exchange import Answer, Pair
from tidegate.shadows.sampled import PairCounts
from tidegate.shadows.tallies import Tallies

from tests.support.processes import refusing_port

LIMITS = ShadowLimits(timeout_s=5.0, in_flight=1, waiting=8, buffered_bytes=1024 * 1024)


def copy_to(port: int) -> ShadowCopy:
    pair = Pair("main", "all", "base", "base/1", "ahead", "ahead/1")
    answer = Answer(200, [], b"{}", 1.0)
    return ShadowCopy(pair, "r", time.time(), None, "a", ("127.0.0.1", port), "/", [], b"{}", answer)


def test_an_orderly_end_loses_nothing_that_was_counted() -> None:
    counts: Counter[str] = Counter()
    tallies, lost = Tallies(), PairCounts()

    def report(found: Counter[str], data: bytes) -> None:
        counts.update(found)
        if data:
            tallies.merge(Tallies.from_json(data))

    async def work() -> None:
        shadows, copy = LinkedShadows(LIMITS, 1000, 1024 * 1024, report, lost), copy_to(refusing_port())
        for _ in range(FAILURES):
            shadows.offer(copy)
        async with asyncio.timeout(30):
            # All failed: that is logged at once, the counts once a second.
            while shadows.refusal(copy.pair) is None:
                await asyncio.sleep(0.01)
        await shadows.aclose()

    asyncio.run(work())
    assert counts == {"sent": FAILURES, "failed: refused": FAILURES}
    (tally,) = tallies.pairs.values()
    assert tally.shadow_failed == {"refused": FAILURES}
    assert not lost


def test_the_copies_of_a_process_that_is_killed_are_lost_in_their_pairs() -> None:
    counts: Counter[str] = Counter()

    async def work() -> list[Any]:
        lost = PairCounts()
        shadows = LinkedShadows(LIMITS, 1000, 1024 * 1024, lambda found, _: counts.update(found), lost)
        silent = await asyncio.start_server(lambda reader, writer: asyncio.sleep(3600), "127.0.0.1", 0)
        copy = copy_to(silent.sockets[0].getsockname()[1])
        for _ in range(2):
            assert shadows.offer(copy) is None
        async with asyncio.timeout(30):
            while counts["sent"] == 0:
                await asyncio.sleep(0.01)
        assert shadows._process is not None
        shadows._process.kill()
        async with asyncio.timeout(30):
            while not lost:
                await asyncio.sleep(0.01)
        await shadows.aclose()
        silent.close()
        return lost.take()

    ((pair, revision, _, _, counted),) = asyncio.run(work())
    assert (pair[-1], revision, counted) == ("ahead/1", "r", {"dropped: lost": 2})
    assert counts["dropped: lost"] == 2


def test_a_process_that_gets_no_time_takes_no_more_copies_than_it_has_room_for() -> None:
    async def work() -> None:
        shadows = LinkedShadows(LIMITS, 1000, 1024 * 1024, lambda *_: None, PairCounts())
        closing = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        copy = copy_to(closing.sockets[0].getsockname()[1])
        assert shadows.offer(copy) is None
        async with asyncio.timeout(30):
            while (process := shadows._process) is None:
                await asyncio.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        taken = 1
        while shadows.refusal(copy.pair) is None:
            assert shadows.offer(copy) is None
            taken += 1
        assert (taken, shadows.refusal(copy.pair)) == (LIMITS.in_flight + LIMITS.waiting, Drop.QUEUE_FULL)
        process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(30):
            while shadows.refusal(copy.pair) is Drop.QUEUE_FULL:
                await asyncio.sleep(0.01)
        await shadows.aclose()
        closing.close()

    asyncio.run(work())


class Unreadable(ShadowCopy):
    def parts(self) -> list[bytes]:
        return [b"\xff\0\0"]


def test_copies_that_cannot_be_read_give_their_places_back() -> None:
    counts: Counter[str] = Counter()

    async def work() -> list[Any]:
        lost = PairCounts()
        shadows = LinkedShadows(LIMITS, 1000, 1024 * 1024, lambda found, _: counts.update(found), lost)
        copy = copy_to(refusing_port())
        room = LIMITS.in_flight + LIMITS.waiting
        for _ in range(2):
            for number in range(room):
                assert shadows.refusal(copy.pair) is None
                assert shadows.offer(Unreadable(*copy) if number else copy) is None
            assert shadows.refusal(copy.pair) is Drop.QUEUE_FULL
            async with asyncio.timeout(30):
                while shadows._under_way:
                    await asyncio.sleep(0.01)
        await shadows.aclose()
        return lost.take()

    ((pair, revision, _, _, counted),) = asyncio.run(work())
    unread = 2 * (LIMITS.in_flight + LIMITS.waiting - 1)
    assert (pair[-1], revision, counted) == ("ahead/1", "r", {"dropped: lost": unread})
    assert counts == {"sent": 2, "failed: refused": 2, "failed: other": unread}


@given(st.lists(st.binary(max_size=40), max_size=5), st.lists(st.integers(1, 60), max_size=30), st.booleans())
def test_copies_arrive_whole_however_the_socket_cuts_them(bodies: list[bytes], cuts: list[int], spoilt: bool) -> None:
    sent = [copy_to(1)._replace(body=body) for body in bodies]
    framed = [(SIZE.pack(len(data)) + data) for data in (b"".join(each.parts()) for each in sent)]
    if spoilt:
        framed.insert(len(framed) // 2, SIZE.pack(3) + b"\xff\0\0")
    left, errors, taken = b"".join(framed), [], []
    reader = CopyReader(taken.append, errors.append)
    for cut in cuts:
        if left:
            reader.data_received(left[:cut])
            left = left[cut:]
    if left:
        reader.data_received(left)
    assert taken == sent
    assert len(errors) == spoilt
