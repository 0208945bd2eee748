"""Health of endpoints and models, breakers, and the quarantine of requests that end servers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from tidegate.errors import (
    BrokenAnswerError,
    DeadlineError,
    EndpointAnswerError,
    EndpointAnswerTooLargeError,
    EndpointBusyError,
    EndpointError,
    EndpointRefusedError,
    EndpointResetError,
    EndpointTimeoutError,
    QuarantinedError,
    UnavailableError,
)
from tidegate.gateway import Call, Dispatcher, quarantine
from tidegate.gateway.bindings import Sequence
from tidegate.gateway.quarantine import digest
from tidegate.ports import HttpResponse, SuspectKind

from tests.gateway.world import A1, A2, B1, INFER, OK, Answer, World, answer, decide, only_b

RESET = EndpointResetError("reset")
REFUSED = EndpointRefusedError("refused")
DEAD_STUB = answer(500, "in ensemble 'ranker', Stub process 'step_0_0' is not healthy.")
FAST = {"breaker_open_ms": 1, "breaker_longest_ms": 4, "probe_interval_ms": 1}


def on_one_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on an event loop of its own, which the watch over endpoints needs."""

    @functools.wraps(test)
    def run(*arguments: Any, **names: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **names), 20))

    return run


async def ask(dispatcher: Dispatcher, call: Call = INFER) -> str:
    """Return the shard that answered, or the error's name."""
    decision = only_b()
    try:
        return (await dispatcher.dispatch(decision, call, dispatcher.deadline_s(decision))).shard
    except (UnavailableError, QuarantinedError) as error:
        return type(error).__name__


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("failure", [RESET, answer(502), answer(504), EndpointTimeoutError("late")])
@on_one_loop
async def test_a_model_that_fails_is_left_alone_until_it_says_that_it_is_ready(failure: Answer) -> None:
    world = World({"b1": failure})
    dispatcher = world.dispatcher(breaker_failures=3, retry_burst=100, **FAST)
    world.unhealthy.add("b1")
    for number in range(3):
        await ask(dispatcher, Call("POST", "/infer", (), b"%d" % number))
    world.sent.clear()
    assert await ask(dispatcher) == "c"
    assert world.hosts == ["c1"]
    assert dispatcher.open_breakers() >= 1

    world.answers.clear()
    world.unhealthy.clear()
    await until(lambda: not dispatcher.open_breakers())
    world.sent.clear()
    assert await ask(dispatcher) == "b"
    assert {path for _, path in world.probes} == {"/v2/health/live", "/v2/models/ranker/ready"}


@on_one_loop
async def test_what_one_model_does_takes_no_other_models_requests_away() -> None:
    world = World({"b1": EndpointTimeoutError("late")})
    dispatcher = world.dispatcher(breaker_failures=3, breaker_open_ms=60_000, retry_burst=100)
    for _ in range(5):
        assert await ask(dispatcher) == "c"
    world.answers.clear()
    other = decide(target=type(decide().target)("other", "other", None, ("b",)))
    outcome = await dispatcher.dispatch(other, INFER, dispatcher.deadline_s(other))
    assert outcome.attempt.endpoint == B1


@pytest.mark.parametrize(
    "response",
    [
        answer(400, "bad shape"),
        answer(500, "boom"),
        answer(404, "Request for unknown model: 'ranker' is not found"),
        answer(503, "Exceeds maximum queue size"),
    ],
)
@on_one_loop
async def test_what_a_model_answers_does_not_open_its_breaker(response: Answer) -> None:
    world = World({"b1": response})
    dispatcher = world.dispatcher(breaker_failures=2)
    for _ in range(6):
        await ask(dispatcher)
    assert world.hosts.count("b1") == 6


@on_one_loop
async def test_a_time_out_counts_only_where_the_model_had_the_time_that_it_usually_takes() -> None:
    world = World({"b1": (0.15, OK)})
    dispatcher = world.dispatcher(breaker_failures=2, retry_burst=100)
    for _ in range(10):
        await ask(dispatcher)
    for _ in range(20):
        await dispatcher.dispatch(only_b(), INFER, world.now_s + 0.05)
    world.sent.clear()
    assert await ask(dispatcher) == "b"
    assert world.suspects == []


@on_one_loop
async def test_an_endpoint_that_refuses_is_left_alone_at_once_and_comes_back_by_itself() -> None:
    world = World({"b1": REFUSED})
    dispatcher = world.dispatcher(probe_interval_ms=1)
    world.unhealthy.add("b1")
    assert await ask(dispatcher) == "c"
    world.sent.clear()
    for _ in range(5):
        assert await ask(dispatcher) == "c"
    assert set(world.hosts) == {"c1"}, "no caller's request is the probe"
    world.answers.clear()
    world.unhealthy.clear()
    await until(lambda: not dispatcher.open_breakers())
    assert await ask(dispatcher) == "b"


@on_one_loop
async def test_an_endpoint_that_answers_no_health_request_is_taken_out_and_its_requests_end() -> None:
    world = World({"b1": RESET})
    dispatcher = world.dispatcher(probe_interval_ms=1)
    world.unhealthy.add("b1")
    assert await ask(dispatcher) == "c"
    await until(lambda: world.hung_up == ["b1"])
    world.sent.clear()
    assert await ask(dispatcher) == "c"
    assert world.hosts == ["c1"]


@on_one_loop
async def test_an_endpoint_that_is_healthy_is_not_taken_out_for_a_reset() -> None:
    world = World({"b1": RESET})
    dispatcher = world.dispatcher(probe_interval_ms=1)
    assert await ask(dispatcher) == "c"
    await until(lambda: bool(world.probes))
    world.answers.clear()
    assert await ask(dispatcher) == "b"


@on_one_loop
async def test_when_every_place_is_left_alone_the_first_candidate_is_tried_anyway() -> None:
    world = World({"b1": REFUSED, "c1": REFUSED})
    dispatcher = world.dispatcher(probe_interval_ms=60_000)
    world.unhealthy |= {"b1", "c1"}
    assert await ask(dispatcher) == "UnavailableError"
    world.sent.clear()
    world.answers.clear()
    assert await ask(dispatcher) == "b"
    assert world.hosts == ["b1"]


@on_one_loop
async def test_a_request_that_was_reset_goes_to_one_more_server_from_the_budget() -> None:
    three = World({"a1": RESET, "a2": RESET, "b1": RESET})
    dispatcher = three.dispatcher()
    with pytest.raises((UnavailableError, QuarantinedError)):
        await dispatcher.dispatch(decide(), INFER, dispatcher.deadline_s(decide()))
    assert sorted(three.hosts) == ["a1", "a2"]

    one = World({"b1": RESET})
    dispatcher = one.dispatcher(retry_ratio=0.0, retry_floor_per_s=0.0, retry_burst=1.0)
    assert await ask(dispatcher) == "c"
    assert await ask(dispatcher, Call("POST", "/infer", (), b"{1}")) == "UnavailableError"


@on_one_loop
async def test_a_stale_connection_is_replaced_where_there_is_no_other_server() -> None:
    world = World({"b1": [EndpointResetError("closed", stale=True), OK]})
    dispatcher = world.dispatcher()
    alone = decide(target=only_b().target)
    assert (await dispatcher.dispatch(alone, INFER, dispatcher.deadline_s(alone))).shard == "b"
    assert world.hosts == ["b1", "b1"]


@on_one_loop
async def test_a_request_that_has_ended_two_servers_is_refused_for_a_while() -> None:
    killer = Call("POST", "/infer", (), b"killer")
    world = World({"a1": RESET, "a2": RESET})
    dispatcher = world.dispatcher(quarantine_s=60)
    decision = decide()
    with pytest.raises(UnavailableError):
        await dispatcher.dispatch(decision, killer, dispatcher.deadline_s(decision))
    assert sorted(world.hosts) == ["a1", "a2"]
    for _ in range(3):
        with pytest.raises(QuarantinedError):
            await dispatcher.dispatch(decision, killer, dispatcher.deadline_s(decision))
    assert len(world.hosts) == 2
    world.answers.clear()
    assert (await dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision))).shard == "a"
    world.now_s += 61
    assert (await dispatcher.dispatch(decision, killer, dispatcher.deadline_s(decision))).shard == "a"


@on_one_loop
async def test_what_was_answered_meanwhile_is_not_suspected() -> None:
    world = World({"a1": [RESET, RESET], "a2": []})
    dispatcher = world.dispatcher()
    decision = decide()
    for _ in range(20):
        await dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision))
        world.now_s += 5
    assert world.hosts.count("a1") >= 3


@on_one_loop
async def test_a_model_whose_process_has_ended_is_reported_and_left_alone() -> None:
    world = World({"a1": DEAD_STUB, "a2": []})
    dispatcher = world.dispatcher(breaker_open_ms=60_000)
    decision = decide()
    for number in range(6):
        call = Call("POST", "/infer", (), b"%d" % number)
        assert (await dispatcher.dispatch(decision, call, dispatcher.deadline_s(decision))).attempt.endpoint == A2
    assert world.hosts.count("a1") == 1
    assert [(each.endpoint, each.model, each.kind) for each in world.suspects] == [
        (A1, "ranker", SuspectKind.DEAD_STUB)
    ]


@pytest.mark.parametrize(
    ("sequence", "is_suspected"),
    [
        (Sequence("7", endpoint=B1), True),
        (Sequence("7", starts=True), False),
        (Sequence("7"), False),
    ],
)
@on_one_loop
async def test_a_model_that_may_let_a_sequence_wait_is_not_reported_to_hang(
    sequence: Sequence, is_suspected: bool
) -> None:
    # To reload it would end the sequences for whose end the request waits.
    world = World({"b1": EndpointTimeoutError("late")})
    dispatcher = world.dispatcher(breaker_failures=2)
    decision = only_b()
    for _ in range(3):
        with pytest.raises(DeadlineError):
            await dispatcher.dispatch(
                decision, Call("POST", "/infer", sequence=sequence), dispatcher.deadline_s(decision)
            )
        world.now_s += 60
    assert [each.kind for each in world.suspects] == ([SuspectKind.HUNG] * 2 if is_suspected else [])


@on_one_loop
async def test_whoever_finds_a_process_dead_is_not_suspected_of_having_ended_it() -> None:
    world = World({"a1": DEAD_STUB, "a2": DEAD_STUB, "b1": DEAD_STUB})
    dispatcher = world.dispatcher(breaker_open_ms=60_000)
    decision = decide()
    first = Call("POST", "/infer", (), b"first")
    with pytest.raises(UnavailableError):
        await dispatcher.dispatch(decision, first, dispatcher.deadline_s(decision))
    assert len(world.hosts) == 2, "one more server, no more"
    with pytest.raises(UnavailableError):
        await dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision))
    world.answers.clear()
    assert (await dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision))).shard in "ab"


@on_one_loop
async def test_what_ends_one_objectives_model_is_not_refused_to_another() -> None:
    killer = Call("POST", "/infer", (), b"killer")
    world = World({"a1": RESET, "a2": RESET})
    dispatcher = world.dispatcher()
    decision = decide()
    with pytest.raises(UnavailableError):
        await dispatcher.dispatch(decision, killer, dispatcher.deadline_s(decision))
    world.answers.clear()
    other = replace(decision, objective="another")
    assert (await dispatcher.dispatch(other, killer, dispatcher.deadline_s(other))).shard == "a"
    with pytest.raises(QuarantinedError):
        await dispatcher.dispatch(decision, killer, dispatcher.deadline_s(decision))


@on_one_loop
async def test_behind_a_load_balancer_the_one_more_server_has_the_same_address() -> None:
    world = World({"b1": [answer(502), OK]})
    dispatcher = world.dispatcher()
    alone = decide(target=only_b().target)
    assert (await dispatcher.dispatch(alone, INFER, dispatcher.deadline_s(alone))).shard == "b"
    assert world.hosts == ["b1", "b1"]


@on_one_loop
async def test_a_dispatcher_that_is_closed_asks_nobody_any_more() -> None:
    world = World({"b1": REFUSED})
    dispatcher = world.dispatcher(probe_interval_ms=1)
    world.unhealthy.add("b1")
    assert await ask(dispatcher) == "c"
    await until(lambda: len(world.probes) >= 2)
    dispatcher.close()
    await asyncio.sleep(0.02)
    asked = len(world.probes)
    await asyncio.sleep(0.02)
    assert len(world.probes) == asked


@pytest.mark.parametrize("failure", [REFUSED, DEAD_STUB])
def test_what_is_left_alone_comes_back_also_where_the_event_loop_ends(failure: Answer) -> None:
    world = World({"b1": failure})
    dispatcher = world.dispatcher(probe_interval_ms=60_000, breaker_open_ms=60_000)
    world.unhealthy.add("b1")

    async def first_loop() -> None:
        assert await ask(dispatcher) == "c"
        assert dispatcher.open_breakers() == 1

    asyncio.run(first_loop())
    world.answers.clear()
    world.unhealthy.clear()
    assert asyncio.run(ask(dispatcher)) == "b"


@pytest.mark.patches
@on_one_loop
async def test_no_request_is_hashed_once_the_suspicion_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World({"b1": [RESET], "c1": RESET})
    hashed = 0

    def counted(objective: str, call: Call) -> bytes:
        nonlocal hashed
        hashed += 1
        return digest(objective, call)

    monkeypatch.setattr(quarantine, "digest", counted)
    dispatcher = world.dispatcher(quarantine_s=60)
    assert await ask(dispatcher) == "UnavailableError"
    assert hashed
    world.answers.clear()
    world.now_s += 61
    before = hashed
    for number in range(3):
        await ask(dispatcher, Call("POST", "/infer", (), b"%d" % number))
    assert hashed == before


@on_one_loop
async def test_what_meets_a_server_that_is_down_behind_its_load_balancer_is_not_suspected() -> None:
    world = World({"b1": answer(502)})
    decision = replace(only_b(), fallbacks=())
    dispatcher = world.dispatcher(probe_interval_ms=1, retry_burst=100)
    world.unhealthy.add("b1")
    for _ in range(4):
        with pytest.raises(UnavailableError):
            await dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision))
        world.now_s += 5
    world.answers.clear()
    world.unhealthy.clear()
    await until(lambda: not dispatcher.open_breakers())
    assert (await dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision))).shard == "b"


READY = Call("GET", "/ready")


@on_one_loop
async def test_questions_about_a_model_do_not_shorten_the_time_that_it_usually_takes() -> None:
    world = World({"b1": (0.15, OK)})
    dispatcher = world.dispatcher(breaker_failures=2, retry_burst=100)
    for _ in range(10):
        await ask(dispatcher)
    world.answers["b1"] = (0.001, OK)
    for _ in range(100):
        await ask(dispatcher, READY)
    world.answers["b1"] = (0.15, OK)
    for _ in range(20):
        await dispatcher.dispatch(only_b(), INFER, world.now_s + 0.05)
    assert dispatcher.open_breakers() == 0
    assert world.suspects == []


@on_one_loop
async def test_questions_about_a_model_do_not_hide_that_it_fails() -> None:
    world = World({"b1": [RESET, OK, RESET, OK, RESET]})
    dispatcher = world.dispatcher(breaker_failures=3, retry_burst=100, breaker_open_ms=60_000)
    for number in range(3):
        await ask(dispatcher, Call("POST", "/infer", (), b"%d" % number))
        await ask(dispatcher, READY)
    world.sent.clear()
    assert await ask(dispatcher) == "c"
    assert world.hosts == ["c1"]


@pytest.mark.parametrize("failure", [RESET, answer(502), EndpointTimeoutError("late")])
@on_one_loop
async def test_questions_about_a_model_that_fail_do_not_open_its_breaker(failure: Answer) -> None:
    world = World({"b1": failure})
    dispatcher = world.dispatcher(breaker_failures=2, retry_burst=100)
    for _ in range(4):
        await ask(dispatcher, READY)
    world.answers.clear()
    assert await ask(dispatcher) == "b"


@on_one_loop
async def test_where_a_whole_shard_ends_the_one_more_server_is_one_that_lives() -> None:
    world = World({"a1": RESET, "a2": RESET})
    world.unhealthy |= {"a1", "a2"}
    dispatcher = world.dispatcher()
    decision = decide()
    outcome = await dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision))
    assert outcome.shard == "b"
    assert len(world.hosts) == 2, "the request itself was sent to two servers"


class BrokenStream:
    """A streamed answer that fails before its next part."""

    def __init__(self, error: EndpointError) -> None:
        self._error = error

    async def next(self, within_s: float) -> bytes:
        raise self._error

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("error", "is_blamed"),
    [
        (RESET, True),
        (EndpointBusyError("answers hold as many bytes as they may", sent=True), False),
        (EndpointAnswerTooLargeError("the answer is too large"), False),
        (EndpointAnswerError("the stream ended with an error", sent=True), False),
    ],
)
@on_one_loop
async def test_only_a_stream_whose_connection_is_lost_counts_against_its_request(
    error: EndpointError, is_blamed: bool
) -> None:
    world = World({"b1": HttpResponse(200, [], b"", stream=BrokenStream(error))})
    dispatcher = world.dispatcher(quarantine_s=60, breaker_failures=100 if is_blamed else 1)
    decision = only_b()
    for _ in range(2):
        deadline_s = dispatcher.deadline_s(decision)
        outcome = await dispatcher.dispatch(decision, INFER, deadline_s)
        with pytest.raises(BrokenAnswerError):
            await dispatcher.reader(outcome, INFER, deadline_s).next()
        await asyncio.sleep(0.01)
        world.now_s += 2
    assert bool(world.probes) is is_blamed
    if is_blamed:
        with pytest.raises(QuarantinedError):
            await dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision))
    else:
        assert (await dispatcher.dispatch(decision, INFER, dispatcher.deadline_s(decision))).shard == "b"
