"""What is read of the fleet for scrapes, and when, on a clock of the tests' own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Sequence

import pytest
from tidegate.console.kept import Expected
from tidegate.tasks import cancel

from tests.support import virtual_time

MOST_S = 2.0


class Reads:
    """Takes each of `took_s` in turn to read the time, and raises what it is given instead."""

    def __init__(self, *took_s: float) -> None:
        self.took_s = itertools.cycle(took_s)
        self.count = 0
        self.error: Exception | None = None

    async def __call__(self) -> float:
        self.count += 1
        await asyncio.sleep(next(self.took_s))
        if self.error is not None:
            raise self.error
        return asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def expected(read: Reads) -> AsyncIterator[Expected[float]]:
    value = Expected(read, MOST_S)
    running = asyncio.create_task(value.run())
    try:
        yield value
    finally:
        await cancel(running)


async def asked(value: Expected[float], times: Sequence[float]) -> list[tuple[float, float]]:
    """Ask at some times, and return how long each question took, and how old its answer was then."""
    loop = asyncio.get_running_loop()

    async def ask(at: float) -> tuple[float, float]:
        await asyncio.sleep(max(0.0, at - loop.time()))
        read_at = await value.get()
        return loop.time() - at, loop.time() - read_at

    return list(await asyncio.gather(*(ask(at) for at in times)))


@pytest.mark.parametrize("took_s", [(0.05,), (1.2,), (0.05, 1.2)])
@pytest.mark.parametrize("offsets", [(0.0,), (0.0, 6.0), (0.0, 0.02, 0.04), (0.0, 4.0, 6.0, 9.5)])
def test_questions_with_a_period_wait_for_no_read(took_s: tuple[float, ...], offsets: tuple[float, ...]) -> None:
    async def run() -> None:
        read = Reads(*took_s)
        times = [15.0 * turn + offset for turn in range(8) for offset in offsets]
        async with expected(read) as value:
            found = await asked(value, times)
        for waited_s, age_s in found[3 * len(offsets) :]:
            assert waited_s == 0.0
            assert age_s <= MOST_S
        assert read.count <= len(times) + 1

    virtual_time.run(run())


def test_whatever_the_times_no_answer_is_older_than_it_may_be() -> None:
    async def run(seed: int) -> None:
        chance, now_s, times = random.Random(seed), 0.0, []
        for _ in range(100):
            now_s += chance.choice((0.0, 0.1, 1.9, 2.1, 5.0, 15.0, chance.random() * 20))
            times.append(now_s)
        read = Reads(0.3)
        async with expected(read) as value:
            found = await asked(value, times)
        assert all(age_s <= MOST_S for _, age_s in found)
        assert read.count <= 2 * len(times)

    for seed in range(30):
        virtual_time.run(run(seed))


def test_a_read_ahead_is_one_for_a_question_that_does_not_come() -> None:
    async def run() -> None:
        read = Reads(0.1)
        async with expected(read) as value:
            await asked(value, (0.0, 15.0, 30.0))
            await asyncio.sleep(600.0)
            assert read.count == 4

    virtual_time.run(run())


def test_a_read_ahead_that_fails_is_raised_by_the_next_question_alone() -> None:
    async def run() -> None:
        read = Reads(0.1)
        async with expected(read) as value:
            await asked(value, (0.0, 15.0, 30.0))
            read.error = ValueError("lost")
            await asyncio.sleep(14.9)
            assert read.count == 4
            with pytest.raises(ValueError, match="lost"):
                await value.get()
            read.error = None
            found = await asked(value, (60.0, 75.0, 90.0, 105.0))
            assert found[-1][0] == 0.0

    virtual_time.run(run())
