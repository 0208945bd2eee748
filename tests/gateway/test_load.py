"""The limit on the requests under way in a process, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest
from tidegate.errors import OverloadedError
from tidegate.gateway.fair_queue import RankedFlow
from tidegate.gateway.load import LEAST, QUEUE_MOST, QUEUE_S, LoadLimit

from tests.support import virtual_time


async def busy(load: LoadLimit, for_s: float, late_s: float) -> None:
    """Have as many requests under way as may be, on a loop whose every turn of work takes `late_s`."""
    loop: Any = asyncio.get_running_loop()
    held = 0
    while load.enter():
        held += 1
    end_s = loop.time() + for_s
    while loop.time() < end_s:
        await asyncio.sleep(0.01)
        loop._clock.now_s += late_s
        while load.enter():
            held += 1
    for _ in range(held):
        load.leave()


def test_the_limit_falls_while_the_loop_is_late_and_comes_back() -> None:
    async def main() -> None:
        load = LoadLimit(1024)
        await busy(load, 2.0, 0.001)
        assert load.limit == 1024, "a loop that keeps up has no lower limit"
        await busy(load, 2.0, 0.05)
        assert LEAST <= load.limit < 128
        await asyncio.sleep(30)
        assert load.limit == 1024
        assert len(asyncio.all_tasks()) == 1

    virtual_time.run(main())


def test_a_few_requests_are_never_limited_however_late_the_loop_is() -> None:
    async def main() -> None:
        load = LoadLimit(1024)
        for _ in range(20):
            assert load.enter()
        loop: Any = asyncio.get_running_loop()
        for _ in range(100):
            await asyncio.sleep(0.01)
            loop._clock.now_s += 0.2
        assert load.limit == 1024

    virtual_time.run(main())


def full(most: int = 1) -> LoadLimit:
    load = LoadLimit(most)
    for _ in range(most):
        assert load.enter()
    assert not load.enter()
    return load


def test_a_request_waits_for_one_to_end_in_the_order_of_priorities() -> None:
    async def main() -> None:
        load, order = full(), []

        async def ask(name: str, rank: int) -> None:
            await load.wait(RankedFlow(name, rank), 10.0)
            order.append(name)

        async with asyncio.TaskGroup() as group:
            for name, rank in (("low", 2), ("normal", 1), ("high", 0), ("second", 0)):
                group.create_task(ask(name, rank))
            for _ in range(5):
                await asyncio.sleep(0.01)
                load.leave()
        assert order == ["high", "second", "normal", "low"]
        assert (load.in_flight, load.waiting) == (0, 0)

    virtual_time.run(main())


def test_nobody_waits_longer_than_its_caller_or_the_queue_allows() -> None:
    async def main() -> None:
        load, loop = full(), asyncio.get_running_loop()
        for within_s, waited_s in ((0.03, 0.03), (10.0, QUEUE_S)):
            began_s = loop.time()
            with pytest.raises(OverloadedError):
                await load.wait("a", within_s)
            assert loop.time() - began_s == pytest.approx(waited_s)
        assert load.waiting == 0

    virtual_time.run(main())


def test_a_full_queue_gives_way_to_a_higher_priority_and_refuses_a_lower_one_at_once() -> None:
    async def main() -> None:
        load, loop, refused = full(), asyncio.get_running_loop(), []

        async def ask(flow: object) -> None:
            try:
                await load.wait(flow, 10.0)
            except OverloadedError:
                refused.append((flow, loop.time()))

        normal = [asyncio.create_task(ask(f"f{number}")) for number in range(QUEUE_MOST)]
        await asyncio.sleep(0.01)
        await ask(RankedFlow("low", 2))
        high = asyncio.create_task(ask(RankedFlow("high", 0)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [flow for flow, _ in refused] == [RankedFlow("low", 2), f"f{QUEUE_MOST - 1}"]
        assert {at for _, at in refused} == {0.01}
        load.leave()
        await asyncio.wait([high, *normal])
        assert load.in_flight == 1, "the high one was let in"

    virtual_time.run(main())


def test_a_request_that_would_not_be_served_in_time_is_refused_at_once() -> None:
    async def main() -> None:
        load, loop = full(64), asyncio.get_running_loop()
        for _ in range(40):
            await asyncio.sleep(0.05)
            load.leave()
            assert load.enter()
        waiting = [asyncio.create_task(load.wait(f"f{number}", 10.0)) for number in range(2)]
        await asyncio.sleep(0)
        began_s = loop.time()
        with pytest.raises(OverloadedError):
            await load.wait("late", 10.0)
        assert loop.time() == began_s
        for each in waiting:
            each.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*waiting)
        for _ in range(64):
            load.leave()

    virtual_time.run(main())


def test_what_is_cancelled_at_the_moment_it_is_let_in_gives_its_place_back() -> None:
    async def main() -> None:
        load = full()
        first = asyncio.create_task(load.wait("a", 10.0))
        second = asyncio.create_task(load.wait("b", 10.0))
        await asyncio.sleep(0)
        load.leave()
        first.cancel()
        await second
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (load.in_flight, load.waiting) == (1, 0)
        load.leave()
        assert load.in_flight == 0

    virtual_time.run(main())
