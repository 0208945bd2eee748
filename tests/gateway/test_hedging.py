"""Hedges: when a second endpoint is asked, whose answer counts, and what they cost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.errors import DeadlineError, EndpointRefusedError, EndpointResetError, UnavailableError
from tidegate.gateway import Call, DispatchConfig, Dispatcher, Outcome
from tidegate.gateway.bindings import Sequence
from tidegate.gateway.latencies import ENOUGH, WINDOW, Latencies
from tidegate.ports import Endpoint, Hedge, HttpRequest, HttpResponse
from tidegate.rules.decision import Decision, HedgeAt
from tidegate.testing import MemoryEndpointDirectory, MemoryTransport

from tests.gateway.world import BACKUP, INFER, MAIN, OK, answer, decide
from tests.support import virtual_time

FAST_S = 0.010
STALL_S = 0.500
Serve = Callable[[Endpoint], HttpResponse | Exception | float | tuple[float, HttpResponse | Exception]]


@dataclass
class Site:
    """Endpoints `a1` and `a2` of shard `a`, and `c1` of the fallback's, which answer as `serve` says: after how many seconds,
    what, or both. `ended` has the endpoints whose answers were waited for to the end, `left` the others."""

    serve: Serve
    ended: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    config: DispatchConfig = field(default_factory=DispatchConfig)
    endpoints: int = 2
    is_a_down: bool = False

    async def answer(self, endpoint: Endpoint, request: HttpRequest) -> HttpResponse:
        if self.is_a_down and endpoint.shard == "a":
            raise EndpointRefusedError("refused")
        if request.apart:
            return OK
        served = self.serve(endpoint)
        after_s, what = served if isinstance(served, tuple) and not isinstance(served, HttpResponse) else (served, OK)
        if not isinstance(after_s, float):
            after_s, what = FAST_S, after_s
        try:
            await asyncio.sleep(after_s)
        except asyncio.CancelledError:
            self.left.append(endpoint.host)
            raise
        self.ended.append(endpoint.host)
        if isinstance(what, Exception):
            raise what
        return what

    def dispatcher(self) -> Dispatcher:
        self.transport = MemoryTransport(self.answer)
        shard = tuple(Endpoint("a", f"a{number + 1}", 8000) for number in range(self.endpoints))
        directory = MemoryEndpointDirectory({"a": shard, "c": (Endpoint("c", "c1", 8000),)})
        return Dispatcher(self.transport, directory, self.config, clock=lambda: asyncio.get_running_loop().time())

    @property
    def hosts(self) -> list[str]:
        return [endpoint.host for endpoint, request in self.transport.sent if not request.apart]


def hedging(after_ms: int | None = None, at: HedgeAt | None = None, timeout_ms: int | None = None) -> Decision:
    return replace(
        decide(BACKUP, target=replace(MAIN, shards=("a",)), timeout_ms=timeout_ms), hedge_after_ms=after_ms, hedge_at=at
    )


def once(site: Site, decision: Decision, call: Call = INFER) -> Outcome:
    async def scenario() -> Outcome:
        dispatcher = site.dispatcher()
        try:
            return await dispatcher.dispatch(decision, call, dispatcher.deadline_s(decision))
        finally:
            await asyncio.sleep(0)
            dispatcher.close()

    return virtual_time.run(scenario())


def in_turn(*served: HttpResponse | Exception | float | tuple[float, HttpResponse | Exception]) -> Serve:
    """Serve attempts in the order in which they are sent."""
    left = list(served)
    return lambda _: left.pop(0)


def test_a_slow_endpoint_is_not_waited_for() -> None:
    site = Site(in_turn(STALL_S, FAST_S))
    outcome = once(site, hedging(20))
    assert (outcome.response, outcome.hedge, outcome.failures) == (OK, Hedge.WON, ())
    assert outcome.attempt.endpoint.host == site.hosts[1] != site.hosts[0]
    assert site.left == site.hosts[:1], "the loser is cancelled"


def test_the_first_endpoint_may_still_win() -> None:
    site = Site(in_turn(0.025, STALL_S))
    outcome = once(site, hedging(20))
    assert (outcome.hedge, outcome.attempt.endpoint.host) == (Hedge.LOST, site.hosts[0])
    assert site.left == site.hosts[1:]


def test_no_hedge_is_sent_before_its_time() -> None:
    site = Site(in_turn(0.019))
    assert once(site, hedging(20)).hedge is None
    assert len(site.hosts) == 1


@pytest.mark.parametrize("failure", [answer(500, "no"), EndpointResetError("reset"), answer(504)])
@pytest.mark.parametrize("first_fails", [True, False])
def test_a_failure_waits_for_the_other_attempt(failure: HttpResponse | Exception, first_fails: bool) -> None:
    late = (0.030, failure)
    site = Site(in_turn(late, 0.1) if first_fails else in_turn(0.1, (FAST_S, failure)))
    outcome = once(site, hedging(20))
    assert outcome.response is OK
    assert outcome.hedge is (Hedge.WON if first_fails else Hedge.LOST)
    assert len(outcome.failures) == 1
    assert sorted(site.ended) == ["a1", "a2"]


def test_the_fallback_follows_when_both_fail() -> None:
    site = Site(in_turn((0.03, answer(500, "no")), (0.03, answer(500, "no")), FAST_S))
    outcome = once(site, hedging(20))
    assert (outcome.target, outcome.hedge, len(outcome.failures)) == (BACKUP, None, 2)
    assert site.hosts[2:] == ["c1"]


def test_a_request_that_may_have_ended_a_server_is_sent_to_no_third() -> None:
    site = Site(in_turn((0.03, EndpointResetError("reset")), (0.03, EndpointResetError("reset"))), endpoints=3)
    with pytest.raises(UnavailableError):
        once(site, hedging(20))
    assert len(site.hosts) == 2


def test_both_attempts_end_at_the_deadline() -> None:
    site = Site(in_turn(STALL_S, STALL_S, STALL_S))
    with pytest.raises(DeadlineError):
        once(site, hedging(20, timeout_ms=100))
    assert site.ended == []


def test_a_caller_that_leaves_ends_both_attempts() -> None:
    site = Site(in_turn(STALL_S, STALL_S))

    async def scenario() -> None:
        dispatcher, decision = site.dispatcher(), hedging(20)
        asking = asyncio.create_task(dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision)))
        await asyncio.sleep(0.1)
        asking.cancel()
        await asyncio.wait([asking])
        await asyncio.sleep(0)
        dispatcher.close()

    virtual_time.run(scenario())
    assert sorted(site.left) == ["a1", "a2"]


async def _rest():  # type: ignore[no-untyped-def]  # an async generator
    yield b""


@pytest.mark.parametrize(
    "call",
    [
        Call("GET", "/config"),
        Call("POST", "/infer", sequence=Sequence("7", starts=True)),
        Call("POST", "/infer", rest=_rest(), rest_bytes=1),
    ],
)
def test_what_must_not_be_sent_twice_is_not_hedged(call: Call) -> None:
    site = Site(in_turn(STALL_S))
    assert once(site, hedging(20), call).hedge is None
    assert len(site.hosts) == 1


def test_the_same_endpoint_is_never_the_hedge() -> None:
    site = Site(in_turn(STALL_S), endpoints=1)
    assert once(site, hedging(20)).hedge is None
    assert site.hosts == ["a1"]


def test_hedges_leave_half_of_the_retry_budget() -> None:
    site = Site(lambda _: STALL_S, config=DispatchConfig(retry_burst=10, retry_floor_per_s=0))

    async def scenario() -> int:
        dispatcher, decision = site.dispatcher(), hedging(1)
        await asyncio.gather(
            *(dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision)) for _ in range(20))
        )
        dispatcher.close()
        return len(site.hosts) - 20

    assert virtual_time.run(scenario()) == 6


def test_no_hedge_waits_for_room() -> None:
    site = Site(lambda _: STALL_S, config=DispatchConfig(initial_in_flight=4, most_in_flight=4))

    async def scenario() -> None:
        dispatcher, decision = site.dispatcher(), hedging(1)
        # Those that come at the same time spread over the endpoints, too.
        await asyncio.gather(*(dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision)) for _ in range(8)))
        dispatcher.close()

    virtual_time.run(scenario())
    assert len(site.hosts) == 8


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_hedging_at_p95_halves_the_p99_of_a_model_that_stalls(seed: int) -> None:
    """2 % of the executions take 50 times as long as the others, which vary by a fifth."""
    count = 6000

    async def scenario(decision: Decision) -> tuple[float, int]:
        chance = random.Random(seed)
        site = Site(lambda _: STALL_S if chance.random() < 0.02 else FAST_S * chance.uniform(0.9, 1.1))
        dispatcher, loop, took = site.dispatcher(), asyncio.get_running_loop(), []

        async def ask() -> None:
            began_s = loop.time()
            await dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision))
            took.append(loop.time() - began_s)

        async with asyncio.TaskGroup() as asking:
            for _ in range(count):
                asking.create_task(ask())
                await asyncio.sleep(chance.expovariate(200.0))
        dispatcher.close()
        return sorted(took)[int(count * 0.99)], len(site.hosts)

    plain_s, _ = virtual_time.run(scenario(hedging()))
    hedged_s, executions = virtual_time.run(scenario(hedging(at="p95")))
    assert hedged_s <= plain_s / 2
    assert executions <= 1.06 * count


def test_a_fallbacks_latencies_are_not_the_targets() -> None:
    """While the target's shard is down, its fallback serves, which is slow."""
    took_s = {"a1": FAST_S, "a2": FAST_S, "c1": 2 * STALL_S}
    site = Site(lambda endpoint: took_s[endpoint.host])

    async def scenario() -> Outcome:
        dispatcher, decision = site.dispatcher(), hedging(at="p95")

        async def ask(times: int) -> Outcome:
            for _ in range(times):
                outcome = await dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision))
            return outcome

        await ask(ENOUGH)
        site.is_a_down = True
        assert (await ask(ENOUGH)).target == BACKUP
        site.is_a_down = False
        await asyncio.sleep(30)
        took_s.update(a1=STALL_S, a2=STALL_S)
        outcome = await ask(1)
        dispatcher.close()
        return outcome

    assert virtual_time.run(scenario()).hedge is not None


@pytest.mark.parametrize("limit_ms", [0.0, 5.0])
def test_the_short_deadlines_of_callers_say_nothing_of_the_target(limit_ms: float) -> None:
    site = Site(lambda _: FAST_S)

    async def scenario() -> Outcome:
        dispatcher, decision = site.dispatcher(), hedging(at="p50")
        for _ in range(ENOUGH):
            await dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision))
        for _ in range(2 * ENOUGH):
            with pytest.raises(DeadlineError):
                await dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision, limit_ms))
            await asyncio.sleep(1)
        # The retries after the time-outs have used up the budget, of which a hedge takes.
        await asyncio.sleep(60)
        site.serve = lambda _: 0.9 * FAST_S
        outcome = await dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision))
        dispatcher.close()
        return outcome

    assert virtual_time.run(scenario()).hedge is None


@given(st.lists(st.floats(1e-6, 200.0), min_size=ENOUGH, max_size=WINDOW), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_a_percentile_is_exact_to_4_percent(latencies_s: list[float], share: float) -> None:
    seen = Latencies()
    for each in latencies_s:
        seen.record(each)
    exact_s = sorted(latencies_s)[max(0, -int(-share * len(latencies_s) // 1) - 1)]
    found_s = seen.percentile_s(share)
    assert found_s is not None
    assert min(exact_s, 100.0) / 1.001 <= found_s <= max(exact_s, 1e-4) * 1.041


def test_percentiles_are_of_recent_latencies() -> None:
    seen = Latencies()
    assert seen.percentile_s(0.5) is None
    for took_s in (0.010, 0.100):
        for _ in range(2 * WINDOW + 1):
            seen.record(took_s)
    assert seen.percentile_s(0.5) == pytest.approx(0.100, rel=0.04)
