"""Having answers compared elsewhere: the bytes that are held meanwhile, and the pairs that cannot be compared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from tidegate.bootstrap.shadow_process import MOST_COMPARED, MOST_COMPARED_BYTES, Comparer
from tidegate.byte_budget import ByteBudget
from tidegate.errors import OverloadedError
from tidegate.shadows.exchange import Answer, Exchange, Pair
from tidegate.shadows.tallies import compare_parts

Work = Callable[[Sequence[bytes]], bytes]


class Worker:
    """An `Offload` that compares at once, and keeps how many pairs each piece of work had."""

    def __init__(self, work: Work = lambda parts: b"+" + compare_parts(*parts)) -> None:
        self.pieces: list[int] = []
        self._work = work

    async def run(self, work: str, *parts: bytes | memoryview) -> bytes:
        assert work == "compare_shadows"
        self.pieces.append(len(parts) // 3)
        await asyncio.sleep(0)
        return self._work([bytes(part) for part in parts])


def pair_of(body: bytes = b"{}", headers: Sequence[tuple[bytes, bytes]] = ()) -> Exchange:
    answer = Answer(200, headers, body, 1.0)
    return Exchange(Pair("main", "all", "a", "a/1", "b", "b/1"), "r", 1.0, answer, answer)


def compared(work: Callable[[Comparer], Awaitable[None]], worker: Worker) -> Comparer:
    async def run() -> Comparer:
        comparer = Comparer(worker)
        running = asyncio.create_task(comparer.run())
        try:
            await work(comparer)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.wait([running])
        return comparer

    return asyncio.run(run())


def test_a_comparison_gives_back_the_bytes_that_it_held() -> None:
    budget = ByteBudget(100)

    async def work(comparer: Comparer) -> None:
        comparer.add(pair_of(), budget.lease(90))
        for _ in range(20):
            await asyncio.sleep(0)
        # The comparer still runs, and has nothing to do.
        assert budget.used_bytes == 0

    compared(work, Worker())


def refuse(error: Exception) -> Work:
    def work(parts: Sequence[bytes]) -> bytes:
        raise error

    return work


@pytest.mark.parametrize(
    "failing",
    [refuse(OverloadedError("too much")), refuse(BlockingIOError("no process")), lambda _: b"+{}"],
    ids=["overloaded", "no process can be started", "unreadable tallies"],
)
def test_pairs_that_cannot_be_compared_are_counted_and_the_next_ones_are_tried(failing: Work) -> None:
    budget, worker = ByteBudget(100), Worker(failing)

    async def work(comparer: Comparer) -> None:
        for _ in range(2):
            comparer.add(pair_of(), budget.lease(5))
            for _ in range(20):
                await asyncio.sleep(0)
            assert budget.used_bytes == 0

    comparer = compared(work, worker)
    assert comparer.counts == {"not compared": 2}
    assert [(each.sent, each.not_compared) for each in comparer.take().pairs.values()] == [(2, 2)]
    assert worker.pieces == [1, 1]


def test_pairs_that_wait_when_the_comparer_ends_are_counted() -> None:
    async def run() -> Comparer:
        comparer, budget = Comparer(Worker(refuse(OSError()))), ByteBudget(100)
        running = asyncio.create_task(comparer.run())
        comparer.add(pair_of(), budget.lease(5))
        await asyncio.sleep(0)  # it waits for the worker
        comparer.add(pair_of(), budget.lease(5))
        running.cancel()
        await asyncio.wait([running])
        return comparer

    assert asyncio.run(run()).counts == {"not compared": 2}


@pytest.mark.parametrize(
    ("exchange", "most"),
    [
        (pair_of(), MOST_COMPARED),
        (pair_of(bytes(MOST_COMPARED_BYTES // 4)), 2),
        (pair_of(bytes(MOST_COMPARED_BYTES)), 1),
        # A few bytes that may become millions.
        (pair_of(bytes(100_000), [(b"content-encoding", b"gzip")]), 1),
    ],
    ids=["small", "large", "too large", "compressed"],
)
def test_a_piece_of_work_is_bounded_by_pairs_and_bytes(exchange: Exchange, most: int) -> None:
    budget, worker = ByteBudget(1), Worker(refuse(OSError()))

    async def work(comparer: Comparer) -> None:
        for _ in range(most + 1):
            comparer.add(exchange, budget.lease(0))

    compared(work, worker)
    assert worker.pieces == [most, 1]
