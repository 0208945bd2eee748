"""The copies of a batch: each is sent once, those of one shadow a few at a time, and a shadow that fails is paused for all processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
from tidegate.errors import EndpointTimeoutError, StoreError
from tidegate.gateway.shadow_batch import SETTLED_S, BatchLimits, ShadowBatches
from tidegate.gateway.shadow_lanes import FAILURES, FIRST_PAUSE_S
from tidegate.ports import Done, Endpoint, HttpRequest, HttpResponse, ShadowPause
from tidegate.shadows.copy import ShadowCopy
from tidegate.shadows.exchange import Answer, Pair

LIMITS = BatchLimits(timeout_s=10.0, in_flight=2, spare_s=5.0)
NOW = 1_796_000_000.0


class Pauses:
    """`ShadowPauses` of several processes, in memory."""

    def __init__(self) -> None:
        self.pauses: dict[str, ShadowPause] = {}
        self.is_down = False

    async def pause_of(self, shadow: str) -> ShadowPause | None:
        if self.is_down:
            raise StoreError("down")
        await asyncio.sleep(0)
        return self.pauses.get(shadow)

    async def pause(self, shadow: str, pause: ShadowPause) -> None:
        if self.is_down:
            raise StoreError("down")
        self.pauses[shadow] = pause

    async def try_again(self, shadow: str, pause: ShadowPause, until: float) -> bool:
        await asyncio.sleep(0)
        if self.pauses.get(shadow) != pause:
            return False
        self.pauses[shadow] = pause._replace(until=until)
        return True

    async def resume(self, shadow: str) -> None:
        del self.pauses[shadow]


class World:
    """Processes that share pauses; the shadows in `hung` time out, and others answer."""

    def __init__(self) -> None:
        self.now = NOW
        self.pauses = Pauses()
        self.hung: set[str] = set()
        self.sent: list[str] = []
        self.in_flight = 0
        self.most = 0

    async def send(
        self, endpoint: Endpoint, request: HttpRequest, timeout_s: float, done: Done | None = None
    ) -> HttpResponse:
        assert timeout_s == LIMITS.timeout_s
        self.sent.append(request.path)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        for _ in range(5):
            await asyncio.sleep(0)
        self.in_flight -= 1
        if request.path in self.hung:
            raise EndpointTimeoutError("no answer")
        return HttpResponse(200, (), b"{}")

    def hang_up(self, endpoint: Endpoint) -> None:
        raise NotImplementedError

    def process(self) -> ShadowBatches:
        return ShadowBatches(
            self,
            lambda copy: None if copy.shard == "nowhere" else copy,
            self.pauses,
            LIMITS,
            lambda: self.now,
        )


@pytest.fixture
def world() -> World:
    return World()


def copies(shadow: str, count: int = 1, at: float = NOW, shard: str = "a") -> list[ShadowCopy]:
    pair = Pair("main", "all", "base", "base", shadow, shadow)
    answer = Answer(200, [], b"{}", 1.0)
    return [ShadowCopy(pair, "r", at, None, shard, ("h", 1), shadow, [], b"{}", answer)] * count


def sent(process: ShadowBatches, batch: Sequence[ShadowCopy], left_s: Callable[[], float] = lambda: 60.0) -> list[str]:
    """What became of each copy of a batch."""
    results = asyncio.run(process.send(batch, left_s))
    return ["answered" if isinstance(each, Answer) else str(each) for each in results]


def test_each_shadow_has_a_few_copies_at_a_time_and_each_copy_its_result(world: World) -> None:
    world.hung = {"bad"}
    batch = [*copies("good", 4), *copies("bad"), *copies("late", at=NOW - 11), *copies("lost", shard="nowhere")]
    assert sent(world.process(), batch) == ["answered"] * 4 + ["timeout", "late", "no endpoint"]
    assert sorted(world.sent) == ["bad", *["good"] * 4]
    assert world.most == LIMITS.in_flight + 1, "beside the one of another shadow"


def test_a_copy_for_which_its_batch_has_no_time_is_not_sent(world: World) -> None:
    assert sent(world.process(), copies("good"), lambda: 15.0) == ["late"]
    assert sent(world.process(), copies("good"), lambda: 15.1) == ["answered"]
    turns = iter([60.0, 60.0, 60.0, 60.0, 60.0, 15.0])
    assert sent(world.process(), copies("good", 3), lambda: next(turns)) == ["answered", "answered", "late"]


def test_a_shadow_that_fails_is_paused_for_every_process(world: World) -> None:
    world.hung = {"bad"}
    one, other = world.process(), world.process()
    assert sent(one, copies("bad", 6)) == ["timeout"] * (FAILURES + 1) + ["failing"] * 2
    assert world.pauses.pauses["bad"] == ShadowPause(FAILURES, NOW + FIRST_PAUSE_S)
    assert sent(other, [*copies("bad", 2), *copies("good")]) == ["failing", "failing", "answered"]


def test_after_a_pause_one_process_tries_one_copy(world: World) -> None:
    world.hung = {"bad"}
    world.pauses.pauses["bad"] = ShadowPause(FAILURES, NOW)
    processes = [world.process() for _ in range(3)]

    async def together() -> list[str]:
        batches = await asyncio.gather(*(each.send(copies("bad", 4), lambda: 60.0) for each in processes))
        return sorted(str(result) for batch in batches for result in batch)

    assert asyncio.run(together()) == ["failing"] * 11 + ["timeout"]
    assert world.pauses.pauses["bad"] == ShadowPause(FAILURES + 1, NOW + 2 * FIRST_PAUSE_S)
    world.now += 2 * FIRST_PAUSE_S
    world.hung = set()
    assert sent(processes[0], copies("bad", 2, world.now)) == ["answered", "failing"]
    assert world.pauses.pauses == {}
    # Also a process that has seen it fail lets it fail again before a pause.
    for each in processes:
        assert sent(each, copies("bad", 2, world.now)) == ["answered", "answered"]


def test_an_attempt_that_is_never_ended_is_made_again(world: World) -> None:
    """The process that took it may have been stopped."""
    world.pauses.pauses["bad"] = pause = ShadowPause(FAILURES, NOW)
    assert asyncio.run(world.pauses.try_again("bad", pause, NOW + LIMITS.timeout_s + SETTLED_S))
    assert sent(world.process(), copies("bad")) == ["failing"]
    world.now += LIMITS.timeout_s + SETTLED_S
    assert sent(world.process(), copies("bad", at=world.now)) == ["answered"]


def test_a_copy_that_is_not_sent_does_not_use_the_attempt_up(world: World) -> None:
    world.pauses.pauses["bad"] = pause = ShadowPause(FAILURES, NOW)
    assert sent(world.process(), copies("bad", at=NOW - 11)) == ["late"]
    assert world.pauses.pauses["bad"] == pause


def test_another_process_has_found_a_shadow_well(world: World) -> None:
    world.hung = {"bad"}
    one = world.process()
    sent(one, copies("bad", FAILURES))
    world.pauses.pauses.clear()
    assert sent(one, copies("bad")) == ["timeout"]
    assert world.pauses.pauses == {}, "one failure is none in a row"


def test_copies_are_sent_where_pauses_are_not_known(world: World) -> None:
    world.pauses.is_down = True
    world.hung = {"bad"}
    assert sent(world.process(), [*copies("good"), *copies("bad", 3)]) == ["answered", *["timeout"] * 3]
