"""How many requests a model gets at one time, who waits, and who is refused: simulated in virtual time.

The model here works on everything that it was sent, first come, first served, also when nobody waits any more, as Triton
does.
"""

from __future__ import annotations

import asyncio
import collections
import random
import tracemalloc
from dataclasses import dataclass, field

import pytest
from tidegate.errors import DeadlineError, DispatchError, EndpointTimeoutError, OverloadedError
from tidegate.gateway import Call, DispatchConfig, Dispatcher, concurrency
from tidegate.gateway.fair_queue import FairQueue, RankedFlow
from tidegate.ports import Done, Endpoint, HttpRequest, HttpResponse
from tidegate.rules.decision import Decision, Target
from tidegate.testing import MemoryEndpointDirectory

from tests.support import virtual_time

ENDPOINT = Endpoint("a", "a1", 8000)
OK = HttpResponse(200, [], b"ok")


@dataclass
class Model:
    """Instances that need `service_s` for each request of their queue; with batching, one takes all waiting requests at once."""

    service_s: float
    instances: int = 1
    batches: bool = False
    most: int = 0
    under_way: int = 0
    served: list[float] = field(default_factory=list)
    free_at: list[float] = field(default_factory=list)

    async def send(
        self, endpoint: Endpoint, request: HttpRequest, timeout_s: float, done: Done | None = None
    ) -> HttpResponse:
        if request.apart:
            return OK
        assert done is not None
        loop = asyncio.get_running_loop()
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        began_s = loop.time()
        if not self.free_at:
            self.free_at = [0.0] * self.instances
        at = min(range(self.instances), key=lambda each: self.free_at[each])
        start_s = max(began_s, self.free_at[at])
        ends_s = start_s + self.service_s * random.Random(len(self.served) + self.under_way).uniform(0.9, 1.1)
        self.free_at[at] = start_s if self.batches else ends_s
        answer: asyncio.Future[None] = loop.create_future()

        def end() -> None:
            self.under_way -= 1
            self.served.append(loop.time())
            if not answer.done():
                done(loop.time() - began_s)
                answer.set_result(None)

        loop.call_at(ends_s, end)
        try:
            async with asyncio.timeout(timeout_s):
                await answer
        except (TimeoutError, asyncio.CancelledError) as error:
            # The model goes on with it, and nobody hears of its end.
            done(None)
            if isinstance(error, TimeoutError):
                raise EndpointTimeoutError("late") from None
            raise
        return OK

    def hang_up(self, endpoint: Endpoint) -> None:
        raise AssertionError("the endpoint answers for its health")


@dataclass
class Load:
    """What callers got: the times of successful answers by flow, their latencies, and the errors by kind."""

    dispatcher: Dispatcher
    decision: Decision
    good: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    took_s: dict[str, list[float]] = field(default_factory=lambda: collections.defaultdict(list))
    errors: collections.Counter[str] = field(default_factory=collections.Counter)

    async def ask(self, flow: str | RankedFlow, timeout_ms: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        name = flow if isinstance(flow, str) else flow.caller
        call = Call("POST", "/infer", (), name.encode(), flow=flow)
        try:
            await self.dispatcher.dispatch(self.decision, call, self.dispatcher.deadline_s(self.decision, timeout_ms))
        except DispatchError as error:
            self.errors[type(error).__name__] += 1
        else:
            self.good[name].append(loop.time())
            self.took_s[name].append(loop.time() - began_s)

    async def closed_loop(self, flow: str | RankedFlow, until_s: float, pause_s: float = 0.001) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < until_s:
            await self.ask(flow)
            await asyncio.sleep(pause_s)

    async def open_loop(self, flow: str, rate: float, until_s: float, timeout_ms: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while loop.time() < until_s:
                group.create_task(self.ask(flow, timeout_ms))
                await asyncio.sleep(1 / rate)


def load_on(model: Model, **config: float) -> Load:
    loop = asyncio.get_running_loop()
    dispatcher = Dispatcher(
        model,
        MemoryEndpointDirectory({"a": (ENDPOINT,)}),
        DispatchConfig(**config),  # type: ignore[arg-type]
        clock=loop.time,
    )
    return Load(dispatcher, Decision("o", "r", Target("m", "m", 1, ("a",)), "serve", "r1", parameters={}))


def test_under_five_times_its_load_a_model_answers_at_its_capacity_and_recovers_at_once() -> None:
    async def main() -> None:
        model = Model(0.1)
        load = load_on(model)
        now_s = asyncio.get_running_loop().time()
        await load.open_loop("noisy", 50, now_s + 30)
        good = [at for at in load.good["noisy"] if at >= now_s + 5]
        assert len(good) >= 0.8 * 10 * 25
        assert load.errors["OverloadedError"] > 0

        ended_s = asyncio.get_running_loop().time()
        await load.ask("quiet")
        assert load.good["quiet"][0] - ended_s <= 2.0

    virtual_time.run(main())


def test_two_hundred_closed_loops_do_not_leave_a_backlog() -> None:
    async def main() -> None:
        model = Model(0.1)
        load = load_on(model)
        now_s = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(load.closed_loop(f"f{number}", now_s + 5, 0.05))
        await load.ask("quiet")
        assert load.good["quiet"][0] - (now_s + 5) <= 3.0
        assert model.most <= 32

    virtual_time.run(main())


@pytest.mark.parametrize("model", [Model(0.004), Model(0.04, instances=8), Model(0.1, batches=True)])
@pytest.mark.patches
def test_the_limit_does_not_hold_a_model_back(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "MEASURE_EVERY_S", 4.0)

    async def main() -> None:
        load = load_on(model)
        now_s = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for number in range(64):
                group.create_task(load.closed_loop(f"f{number}", now_s + 12))
        assert not load.errors
        served = sum(at >= now_s + 2 for at in model.served) / 10
        capacity = 64 / (model.service_s + 0.001) if model.batches else model.instances / model.service_s
        assert served >= 0.85 * capacity

    virtual_time.run(main())


def test_a_quiet_caller_is_served_before_those_who_send_much() -> None:
    async def main() -> None:
        load = load_on(Model(0.01))
        now_s = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for number in range(64):
                group.create_task(load.closed_loop(f"noisy{number % 4}", now_s + 20))
            group.create_task(load.closed_loop("quiet", now_s + 20, pause_s=0.2))
        noisy = sorted(took for flow, each in load.took_s.items() if flow != "quiet" for took in each)
        quiet = sorted(load.took_s["quiet"])
        assert quiet[len(quiet) // 2] <= 0.5 * noisy[len(noisy) // 2]

    virtual_time.run(main())


def test_hopeless_deadlines_take_no_room_from_others_in_the_queue() -> None:
    async def main() -> None:
        load = load_on(Model(0.15))
        now_s = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            group.create_task(load.open_loop("hopeless", 40, now_s + 20, timeout_ms=25))
            group.create_task(load.closed_loop("patient", now_s + 20, pause_s=0.5))
        assert len(load.good["patient"]) >= 10
        assert load.dispatcher.open_breakers() == 0

    virtual_time.run(main())


def test_the_error_says_that_it_is_load() -> None:
    async def main() -> None:
        load = load_on(Model(1.0), queue_ms=0, initial_in_flight=1, most_in_flight=1)
        first = asyncio.create_task(load.ask("first"))
        await asyncio.sleep(0.01)
        with pytest.raises(OverloadedError):
            await load.dispatcher.dispatch(load.decision, Call("POST", "/infer"), asyncio.get_running_loop().time() + 9)
        await first

    virtual_time.run(main())


def test_a_caller_who_leaves_the_queue_leaves_room() -> None:
    async def main() -> None:
        model = Model(0.1)
        load = load_on(model, initial_in_flight=1, most_in_flight=1, queue_ms=60_000)
        waiting = [asyncio.create_task(load.ask(f"f{number}")) for number in range(10)]
        await asyncio.sleep(0.05)
        for task in waiting[1:9]:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert len(model.served) == 2
        await load.ask("next")
        assert len(model.served) == 3
        assert not load.errors

    virtual_time.run(main())


def test_a_request_that_timed_out_keeps_its_room_until_the_model_is_done_with_it() -> None:
    async def main() -> None:
        model = Model(1.0)
        load = load_on(model, initial_in_flight=1, most_in_flight=1, queue_ms=5_000)
        with pytest.raises(DeadlineError):
            await load.dispatcher.dispatch(
                load.decision, Call("POST", "/infer"), asyncio.get_running_loop().time() + 0.1
            )
        await load.ask("next")
        assert model.most == 1

    virtual_time.run(main())


def test_time_in_the_queue_is_no_time_that_the_model_had() -> None:
    async def main() -> None:
        model = Model(0.3)
        load = load_on(model, initial_in_flight=1, most_in_flight=1, breaker_failures=1)
        await load.ask("known")
        model.service_s = 0.6
        slow = asyncio.create_task(load.ask("slow"))
        await asyncio.sleep(0)
        await load.ask("waits", timeout_ms=700)
        assert load.errors["DeadlineError"] == 1
        assert load.dispatcher.open_breakers() == 0
        await slow

    virtual_time.run(main())


@dataclass
class HangsWhileMeasured(Model):
    """Never answers the first request that it gets alone after a while, as when the idle latency is measured."""

    hangs_after_s: float = 3.0

    async def send(
        self, endpoint: Endpoint, request: HttpRequest, timeout_s: float, done: Done | None = None
    ) -> HttpResponse:
        if not request.apart and not self.under_way and asyncio.get_running_loop().time() >= self.hangs_after_s:
            self.hangs_after_s = float("inf")
            self.under_way += 1
            await asyncio.sleep(timeout_s)
            raise EndpointTimeoutError("late")
        return await super().send(endpoint, request, timeout_s, done)


@pytest.mark.patches
def test_one_request_that_hangs_while_the_idle_latency_is_measured_holds_up_nobody_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(concurrency, "MEASURE_EVERY_S", 4.0)

    async def main() -> None:
        model = HangsWhileMeasured(0.1, instances=8)
        load = load_on(model, most_in_flight=16)
        async with asyncio.TaskGroup() as group:
            for number in range(32):
                group.create_task(load.closed_loop(f"f{number}", 20))
        assert model.hangs_after_s == float("inf")
        assert sum(at >= 10 for at in model.served) >= 0.8 * 80 * 10

    virtual_time.run(main())


def test_a_queue_that_nobody_leaves_but_by_giving_up_does_not_grow() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue = FairQueue()
        queue.push("patient", first := loop.create_future())
        tracemalloc.start()
        for number in range(50_000):
            waiter: asyncio.Future[None] = loop.create_future()
            queue.push(("10.0.0.1", number), waiter)
            waiter.cancel()
            queue.forget()
        held_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held_bytes < 2_000_000
        assert queue.pop() is first
        assert queue.pop() is None

    virtual_time.run(main())


async def steadily(load: Load, flow: str, until_s: float) -> None:
    loop = asyncio.get_running_loop()
    while loop.time() < until_s:
        await load.ask(flow)
        await asyncio.sleep(0.2)


def test_under_pressure_a_lower_priority_waits_longer_and_is_refused_first() -> None:
    async def main() -> None:
        load = load_on(Model(0.05))
        async with asyncio.TaskGroup() as group:
            for flow in (RankedFlow("high", 0), "normal", RankedFlow("low", 2)):
                for _ in range(20):
                    group.create_task(load.closed_loop(flow, 20, 0.05))
        served = {name: len(load.good[name]) for name in ("high", "normal", "low")}
        assert served["high"] > 5 * max(served["normal"], served["low"])
        assert sum(served.values()) >= 0.9 * 20 / 0.05
        # What the high one leaves is the next one's, and nothing is held back.
        calm = load_on(Model(0.05))
        async with asyncio.TaskGroup() as group:
            group.create_task(calm.closed_loop(RankedFlow("low", 2), 25, 0.05))
            group.create_task(calm.closed_loop(RankedFlow("high", 0), 25, 0.05))
        assert len(calm.good["low"]) > 10

    virtual_time.run(main())


def test_whoever_fills_the_queue_keeps_no_other_caller_out_of_it() -> None:
    async def main() -> None:
        load = load_on(Model(0.1))
        async with asyncio.TaskGroup() as group:
            for _ in range(60):
                group.create_task(load.closed_loop("noisy", 14, 0.05))
            await asyncio.sleep(4)
            load.errors.clear()
            group.create_task(steadily(load, "quiet", 14))
        assert len(load.good["quiet"]) >= 10
        assert max(load.took_s["quiet"]) <= 1.5
        assert load.errors["OverloadedError"] > 0

    virtual_time.run(main())


def test_of_many_flows_each_has_its_share_however_often_it_asks() -> None:
    async def main() -> None:
        load = load_on(Model(0.1))
        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(load.closed_loop(f"f{number}", 40, 0.05))
            group.create_task(steadily(load, "quiet", 40))
        shares = sorted(len(each) for each in load.good.values())
        assert len(load.good["quiet"]) >= 0.6 * shares[len(shares) // 2]

    virtual_time.run(main())


def test_whoever_opens_a_connection_for_each_request_is_not_always_first() -> None:
    async def main() -> None:
        load = load_on(Model(0.1))
        now_s = asyncio.get_running_loop().time()

        async def fresh(number: int) -> None:
            for turn in range(10_000):
                if asyncio.get_running_loop().time() >= now_s + 20:
                    return
                await load.ask(f"fresh{number}-{turn}")
                await asyncio.sleep(0.05)

        async with asyncio.TaskGroup() as group:
            for number in range(32):
                group.create_task(fresh(number))
            group.create_task(steadily(load, "kept", now_s + 20))
        assert len(load.good["kept"]) >= 10

    virtual_time.run(main())
