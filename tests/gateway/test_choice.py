"""Which endpoint of a shard a request is sent to: load, returned endpoints, outliers, and the servers' own queues."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.errors import DispatchError, EndpointRefusedError
from tidegate.gateway import DispatchConfig, Dispatcher
from tidegate.gateway.outliers import LEAST_REQUESTS, Standing, outliers
from tidegate.ports import Endpoint, EndpointLoad, HttpRequest, HttpResponse
from tidegate.testing import MemoryEndpointDirectory, MemoryTransport

from tests.gateway.world import INFER, MAIN, OK, answer, decide
from tests.support import virtual_time

Serve = Callable[[str, float], float | HttpResponse | Exception]
Answers = Callable[[Endpoint, HttpRequest], Awaitable[HttpResponse]]
FAST_S = 0.010


def statistics(queued_ns: bytes) -> HttpResponse:
    return HttpResponse(200, [], b'{"model_stats":[{"inference_stats":{"queue":{"ns":%b}}}]}' % queued_ns)


@dataclass
class Shard:
    """Endpoints `a1`, `a2` … of one shard. `serve` gives, by endpoint and time, after how many seconds it answers, or what."""

    size: int
    serve: Serve = lambda _host, _now_s: FAST_S
    config: DispatchConfig = field(default_factory=DispatchConfig)
    asked: list[tuple[float, str]] = field(default_factory=list)
    queued_ns: Callable[[str, float], int] | None = None

    async def answer(self, endpoint: Endpoint, request: HttpRequest) -> HttpResponse:
        now_s = asyncio.get_running_loop().time()
        if request.path == "/v2/models/stats":
            assert self.queued_ns is not None
            return statistics(b"%d" % self.queued_ns(endpoint.host, now_s))
        served = self.serve(endpoint.host, now_s)
        if not request.apart:
            self.asked.append((now_s, endpoint.host))
            await asyncio.sleep(served if isinstance(served, float) else FAST_S)
        if isinstance(served, Exception):
            raise served
        return OK if isinstance(served, float) else served

    def endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(Endpoint("a", f"a{number + 1}", 8000) for number in range(self.size))

    def dispatcher(self, answer: Answers | None = None) -> Dispatcher:
        self.directory = MemoryEndpointDirectory({"a": self.endpoints()})
        return Dispatcher(
            MemoryTransport(answer or self.answer),
            self.directory,
            self.config,
            clock=lambda: asyncio.get_running_loop().time(),
            chance=random.Random(7).random,
        )

    def load(self, seconds: float, per_s: float = 50.0) -> Counter[str]:
        """Send requests at a constant rate, and return how many each endpoint got."""

        async def scenario() -> None:
            await self.send(self.dispatcher(), seconds, per_s)

        virtual_time.run(scenario())
        return Counter(host for _, host in self.asked)

    async def send(self, dispatcher: Dispatcher, seconds: float, per_s: float = 50.0) -> None:
        decision = decide(target=replace(MAIN, shards=("a",)))

        async def ask() -> None:
            with contextlib.suppress(DispatchError):
                await dispatcher.dispatch(decision, INFER, asyncio.get_running_loop().time() + 5)

        async with asyncio.TaskGroup() as asking:
            for _ in range(int(seconds * per_s)):
                asking.create_task(ask())
                await asyncio.sleep(1 / per_s)
        dispatcher.close()

    def during(self, begin_s: float, end_s: float) -> Counter[str]:
        return Counter(host for at_s, host in self.asked if begin_s <= at_s < end_s)


def test_requests_spread_evenly_over_equal_endpoints() -> None:
    asked = Shard(4).load(20)
    assert all(200 <= asked[host] <= 300 for host in ("a1", "a2", "a3", "a4")), asked


def test_an_endpoint_that_is_slow_is_left_alone_while_others_serve() -> None:
    shard = Shard(4, lambda host, _: 0.1 if host == "a1" else FAST_S)
    shard.load(60, per_s=100)
    assert shard.during(10, 30)["a1"] == 0


def test_an_endpoint_that_fails_is_left_alone_while_others_serve() -> None:
    shard = Shard(4, lambda host, _: answer(500, "no") if host == "a1" else FAST_S)
    shard.load(60)
    assert shard.during(10, 30)["a1"] == 0


@pytest.mark.parametrize("served", [0.1, answer(500, "no")])
def test_no_endpoint_is_left_alone_for_what_all_do(served: float | HttpResponse) -> None:
    shard = Shard(3, lambda _host, now_s: FAST_S if now_s < 20 else served)
    shard.load(60)
    assert all(shard.during(40, 60)[host] > 200 for host in ("a1", "a2", "a3"))


@pytest.mark.parametrize(("size", "most"), [(2, 1), (3, 1), (6, 2)])
def test_most_endpoints_are_never_ejected(size: int, most: int) -> None:
    """At least half are slow: they go on serving, apart from a third of all."""
    shard = Shard(size, lambda host, _: FAST_S if int(host[1:]) <= size / 2 else 0.1)
    shard.load(30, per_s=60.0 * size)
    assert sum(shard.during(15, 30)[f"a{number + 1}"] == 0 for number in range(size)) == most


def test_an_ejected_endpoint_comes_back_slowly_and_is_ejected_for_longer_if_it_is_no_better() -> None:
    shard = Shard(4, lambda host, _: 0.1 if host == "a1" else FAST_S)
    shard.load(180, per_s=100)
    times = [at_s for at_s, host in shard.asked if host == "a1"]
    pauses = [after - before for before, after in itertools.pairwise(times) if after - before > 20]
    assert pauses[0] == pytest.approx(30, abs=3)
    assert pauses[1] == pytest.approx(60, abs=3)


def test_an_endpoint_that_is_better_again_gets_its_share() -> None:
    shard = Shard(4, lambda host, now_s: 0.1 if host == "a1" and now_s < 10 else FAST_S)
    shard.load(70, per_s=100)
    assert shard.during(37, 40)["a1"] < shard.during(37, 40)["a2"] / 2
    assert shard.during(55, 65)["a1"] > 0.7 * shard.during(55, 65)["a2"]


def test_an_endpoint_that_was_down_comes_back_slowly() -> None:
    shard = Shard(2, lambda host, now_s: EndpointRefusedError("down") if host == "a1" and 20 < now_s < 40 else FAST_S)
    shard.load(60, per_s=100)
    assert shard.during(22, 40)["a1"] <= 1
    first, later, last = (shard.during(begin, begin + 2)["a1"] for begin in (41, 46, 55))
    assert first < 60 < later + 20
    assert first < later < last
    assert 80 <= last <= 120


def test_endpoints_that_join_get_their_requests_slowly() -> None:
    shard = Shard(1)

    async def scenario() -> None:
        dispatcher = shard.dispatcher()

        async def join() -> None:
            await asyncio.sleep(20)
            shard.size = 2
            shard.directory.shards["a"] = shard.endpoints()

        async with asyncio.TaskGroup() as group:
            group.create_task(join())
            group.create_task(shard.send(dispatcher, 60, 100))

    virtual_time.run(scenario())
    assert shard.during(20, 22)["a2"] < 50
    assert 80 <= shard.during(40, 42)["a2"] <= 120


def test_endpoints_that_come_back_together_share_the_load() -> None:
    """As after a restart of the whole shard: none is spared, so the least busy one gets the next request."""
    shard = Shard(3, lambda _host, now_s: EndpointRefusedError("down") if 20 < now_s < 40 else 1.0)
    shard.load(44, per_s=6)
    back = [host for at_s, host in shard.asked if at_s > 41]
    assert all(len(set(back[i : i + 3])) == 3 for i in range(0, len(back) - 3, 3)), back


def test_ejection_and_slow_start_can_be_turned_off() -> None:
    off = DispatchConfig(ejection_ms=0, slow_start_ms=0)
    shard = Shard(4, lambda host, _: answer(500, "no") if host == "a1" else FAST_S, off)
    assert shard.load(30)["a1"] > 300


def test_of_two_equals_the_one_with_the_shorter_queue_of_its_own_is_taken() -> None:
    """Another gateway keeps a1 busy: this one sees it only in the server's statistics."""
    shard = Shard(2, queued_ns=lambda host, now_s: int(now_s * 5e9) if host == "a1" else 0)

    async def scenario() -> None:
        dispatcher = shard.dispatcher()
        watching = asyncio.create_task(dispatcher.watch_queues(2.0))
        await shard.send(dispatcher, 20)
        assert {load.url: load.queue for load in dispatcher.loads()} == {"http://a1:8000": 5.0, "http://a2:8000": 0.0}
        watching.cancel()

    virtual_time.run(scenario())
    assert shard.during(0, 2)["a1"] > 20
    assert shard.during(6, 20)["a1"] == 0


@pytest.mark.parametrize(
    "queued",
    [
        EndpointRefusedError("no"),
        HttpResponse(200, [], b"[]"),
        HttpResponse(500, [], b""),
        statistics(b"1e999"),
        statistics(b"NaN"),
        statistics(b"9" * 400),
        statistics(b"-1"),
    ],
)
def test_a_server_that_tells_no_queue_is_used_as_before(queued: HttpResponse | Exception) -> None:
    shard = Shard(2)

    async def answers(endpoint: Endpoint, request: HttpRequest) -> HttpResponse:
        if request.path != "/v2/models/stats":
            return await shard.answer(endpoint, request)
        if isinstance(queued, Exception):
            raise queued
        return queued

    async def scenario() -> None:
        dispatcher = shard.dispatcher(answers)
        watching = asyncio.create_task(dispatcher.watch_queues(2.0))
        await shard.send(dispatcher, 20)
        assert [load.queue for load in dispatcher.loads()] == [None, None]
        assert not watching.done()
        watching.cancel()

    virtual_time.run(scenario())
    assert shard.during(6, 20)["a1"] > 200


def test_operators_see_what_decides() -> None:
    shard = Shard(3, lambda host, _: 0.1 if host == "a1" else FAST_S)

    async def scenario() -> None:
        dispatcher = shard.dispatcher()
        await shard.send(dispatcher, 8, 100)
        loads = {load.url: load for load in dispatcher.loads()}
        (slow,), (fast,) = loads["http://a1:8000"].places, loads["http://a2:8000"].places
        assert (slow.share, fast.share, fast.ejected_until) == (0.0, 1.0, None)
        assert slow.ejected_until is not None
        assert slow.usual_ms == pytest.approx(100, rel=0.01)
        assert all(load == EndpointLoad.from_dict(load.as_dict()) for load in loads.values())

    virtual_time.run(scenario())


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 200), st.floats(1e-4, 10.0)), min_size=0, max_size=8),
)
def test_some_place_never_stands_out(seen: list[tuple[int, int, float]]) -> None:
    standings = []
    for answers, errors, took_s in seen:
        standing = Standing()
        for _ in range(answers):
            standing.answered(took_s)
        for _ in range(errors):
            standing.failed()
        standings.append(standing)
    found = outliers(standings)
    judged = [standing for standing in standings if standing.requests >= LEAST_REQUESTS]
    assert len(found) < max(1, len(judged))
    assert len({index for index, _ in found}) == len(found)
    assert all(standings[index] in judged for index, _ in found)
