"""The tallies of shadows, in the S3 of moto."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tidegate.aws.objects import Objects, Stored
from tidegate.aws.shadow_tallies import HOUR_S, MOST_READ, S3ShadowTallies, TallyWriter, hour_of
from tidegate.shadows.exchange import Answer, Exchange, NoAnswer, Pair
from tidegate.shadows.tallies import Tallies

from tests.support.aws import LocalAws

NOW = 1_796_000_000.0
END = NOW - NOW % HOUR_S + HOUR_S
"""The end of the hour."""


def tallies(shadows: int) -> Tallies:
    made = Tallies()
    for _ in range(shadows):
        answer = Answer(200, [], b"", 1.0)
        made.add(Exchange(Pair("main", "all", "a", "a/1", "b", "b/1"), "r", NOW, answer, NoAnswer.TIMEOUT))
    return made


def shadows_in(store: S3ShadowTallies, since: float) -> int:
    return sum(each.sent for each in asyncio.run(store.read(since)).tallies.pairs.values())


def test_a_writer_replaces_its_own_hour_and_readers_get_every_writer_since_an_hour(aws: LocalAws) -> None:
    store = S3ShadowTallies(aws.objects())

    async def work() -> Sequence[str]:
        await store.write(hour_of(NOW - HOUR_S), "a", tallies(1).to_json())
        await store.write(hour_of(NOW), "a", tallies(10).to_json())
        await store.write(hour_of(NOW), "a", tallies(20).to_json())
        await store.write(hour_of(NOW), "2026/11/29/[$LATEST]b", tallies(300).to_json())
        await store.write(hour_of(NOW), "c", b"whatever")
        return (await store.read(NOW)).unreadable

    assert len(asyncio.run(work())) == 1
    assert (shadows_in(store, NOW), shadows_in(store, NOW - HOUR_S)) == (320, 321)


def test_a_clock_that_is_set_back_replaces_no_hour_that_was_stored(aws: LocalAws) -> None:
    store, times = S3ShadowTallies(aws.objects()), [END - 10]
    writer = TallyWriter(store, "a", lambda: times[-1])

    async def work() -> None:
        for at, shadows in ((END - 10, 1), (END + 1, 10), (END - 1, 100), (END + 2, 1000)):
            times.append(at)
            writer.add(tallies(shadows))
            await writer.store()

    asyncio.run(work())
    assert shadows_in(store, END - 10) == 1111


def test_many_objects_are_read_a_few_at_a_time(aws: LocalAws) -> None:
    reading = most = 0

    class Counted(Objects):
        async def get(self, key: str, known_etag: str | None = None) -> Stored | None:
            nonlocal reading, most
            reading += 1
            most = max(most, reading)
            try:
                return await super().get(key, known_etag)
            finally:
                reading -= 1

    store = S3ShadowTallies(Counted(aws.clients(), aws.bucket))

    async def work() -> None:
        for number in range(MOST_READ + 4):
            await store.write(hour_of(NOW), str(number), tallies(1).to_json())

    asyncio.run(work())
    assert shadows_in(store, NOW) == MOST_READ + 4
    assert 1 < most <= MOST_READ
