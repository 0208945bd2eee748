"""Dispatch: which places are tried, in which order, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.errors import (
    DeadlineError,
    EndpointBusyError,
    EndpointRefusedError,
    EndpointResetError,
    EndpointTimeoutError,
    UnavailableError,
)
from tidegate.gateway import Call, Dispatcher
from tidegate.gateway.bindings import Sequence
from tidegate.ports import Done, Endpoint, HttpRequest, HttpResponse
from tidegate.rules.decision import Target
from tidegate.testing import MemoryEndpointDirectory

from tests.gateway.world import B1, BACKUP, INFER, MAIN, OK, Answer, World, answer, decide, only_b, run


def test_the_outcome_says_who_answered() -> None:
    world = World()
    outcome = run(world.dispatcher(), decide(BACKUP))
    assert outcome.response is OK
    assert (outcome.target, outcome.shard, outcome.fallback, outcome.failures) == (MAIN, "a", False, ())
    assert world.sent[0][1] == "/v2/models/ranker/versions/3/infer"


@pytest.mark.parametrize(
    "failure",
    [
        EndpointRefusedError("refused"),
        EndpointBusyError("no room"),
        answer(503, "Exceeds maximum queue size"),
        answer(503),
        answer(504),
        answer(404, "Request for unknown model: 'ranker' is not found"),
        answer(404, "Request for unknown model: 'ranker' version 3 is not found"),
        answer(404, "Request for unknown model: 'ranker' has no available versions"),
        answer(503, "Request for unknown model: 'ranker' version 3 is not at ready state"),
        answer(400, "Request for unknown model: 'ranker' version 3 is not at ready state"),
        answer(400, "[request id: 1] Request for unknown model: 'ranker' has no available versions"),
        answer(400, "in ensemble 'ranker', Request for unknown model: 'step' version 1 is not at ready state"),
        answer(400, "in ensemble 'ranker', in ensemble 'inner', Request for unknown model: 'step' is not found"),
        EndpointTimeoutError("late"),
    ],
)
def test_the_next_candidate_is_tried(failure: Answer) -> None:
    world = World({"a1": failure, "a2": failure, "b1": failure})
    outcome = run(world.dispatcher(), decide(BACKUP))
    assert sorted(world.hosts[:2]) == ["a1", "a2"]
    assert world.hosts[2:] == ["b1", "c1"]
    assert outcome.fallback
    assert (outcome.target, outcome.shard, len(outcome.failures)) == (BACKUP, "c", 3)
    assert world.sent[-1][1] == "/v2/models/popular/infer"
    assert all(text.startswith("ranker@champion on ") for text in outcome.failures)


@pytest.mark.parametrize(
    "own",
    [
        answer(400, "[request id: <id_unknown>] unexpected shape for input 'X' for model 'ranker'"),
        answer(400, "I was told: Request for unknown model: 'ranker' is not found"),
        answer(400, "in ensemble 'ranker', the index is not at ready state"),
        answer(404, "Request for unknown model: 'another' is not found"),
        answer(400, "in ensemble 'another', Request for unknown model: 'ranker' is not found"),
        answer(400),
        answer(404, "no such member"),
        answer(409),
        answer(429, "slow down"),
        answer(501),
        HttpResponse(400, [], b"Request for unknown model \xff\xfe"),
        HttpResponse(400, [], b'["Request for unknown model"]'),
    ],
)
def test_a_models_own_answer_is_the_callers(own: HttpResponse) -> None:
    world = World({"a1": own, "a2": own})
    assert run(world.dispatcher(), decide(BACKUP)).response is own
    assert len(world.sent) == 1


FAILED = answer(500, "in ensemble 'ranker', Failed to process the request(s)")
QUOTES = answer(500, "Request for unknown model: 'ranker' is not found")


@pytest.mark.parametrize("failed", [FAILED, QUOTES])
def test_a_model_that_fails_is_followed_by_the_fallback_and_by_no_server_of_its_own(failed: HttpResponse) -> None:
    world = World({"a1": failed, "a2": failed, "b1": failed})
    outcome = run(world.dispatcher(), decide(BACKUP))
    assert (outcome.target, outcome.response, len(outcome.failures)) == (BACKUP, OK, 1)
    assert len(world.sent) == 2


def test_where_every_model_fails_the_callers_answer_is_that_of_the_target() -> None:
    world = World({"a1": FAILED, "a2": FAILED, "c1": answer(500, "no such title")})
    outcome = run(world.dispatcher(), decide(BACKUP))
    assert (outcome.target, outcome.response) == (MAIN, FAILED)
    assert len(world.sent) == 2


@pytest.mark.parametrize("fallbacks", [(), (Target("ranker/3", "ranker", 3, ("c",)),)])
def test_a_model_that_fails_is_not_asked_again_under_another_name(fallbacks: tuple[Target, ...]) -> None:
    world = World(dict.fromkeys(("a1", "a2", "b1", "c1"), FAILED))
    assert run(world.dispatcher(), decide(*fallbacks)).response is FAILED
    assert len(world.sent) == 1


@pytest.mark.parametrize("call", [Call("GET", "/config"), Call("POST", "/infer", sequence=Sequence("s", starts=True))])
def test_a_read_and_a_sequence_get_the_targets_own_failure(call: Call) -> None:
    world = World({"a1": FAILED, "a2": FAILED})
    assert run(world.dispatcher(), decide(BACKUP), call).response is FAILED
    assert len(world.sent) == 1


def test_a_model_whose_process_ends_is_followed_by_the_fallback_first() -> None:
    ended = answer(500, "Stub process 'ranker_0_0' is not healthy.")
    world = World(dict.fromkeys(("a1", "a2", "b1"), ended))
    outcome = run(world.dispatcher(), decide(BACKUP))
    assert (outcome.target, len(world.sent)) == (BACKUP, 2)


def test_an_unknown_version_that_the_caller_named_stays_unknown() -> None:
    unknown = answer(404, "Request for unknown model: 'ranker' version 9 is not found")
    world = World({"a1": unknown, "a2": unknown})
    assert run(world.dispatcher(), decide(BACKUP), Call("GET", "", version=9, final=True)).response is unknown
    assert world.sent[0][1] == "/v2/models/ranker/versions/9"


@pytest.mark.parametrize(
    ("rule_ms", "caller_ms", "function_ms", "expected_ms"),
    [
        (None, None, None, 700),
        (80, None, None, 80),
        (80, 30, None, 30),
        (80, 300, None, 80),
        (80, 60, 20, 20),
        (None, 900, 800, 700),
    ],
)
def test_one_deadline_the_smallest_of_all(
    rule_ms: int | None, caller_ms: float | None, function_ms: float | None, expected_ms: float
) -> None:
    dispatcher = World().dispatcher(default_timeout_ms=700)
    deadline_s = dispatcher.deadline_s(decide(timeout_ms=rule_ms), caller_ms, function_ms)
    assert (deadline_s - 1000.0) * 1000 == pytest.approx(expected_ms)


def test_an_attempt_leaves_time_for_the_candidates_after_it() -> None:
    world = World({"a1": (1.0, OK), "a2": (1.0, OK), "b1": (0.005, OK)})
    assert run(world.dispatcher(), decide(timeout_ms=80)).shard == "b"
    assert world.limits_ms == [40, 20, 20]
    assert world.now_s <= 1000.080 + 1e-9


def test_the_only_candidate_gets_all_the_time() -> None:
    world = World({"c1": (0.079, OK)})
    assert run(world.dispatcher(), decide(target=BACKUP, timeout_ms=80)).response is OK
    assert world.limits_ms == [80]


def test_when_time_is_up_the_error_says_so_and_what_was_tried() -> None:
    world = World({"a1": (9, OK), "a2": (9, OK), "b1": (9, OK)})
    with pytest.raises(DeadlineError) as caught:
        run(world.dispatcher(), decide(timeout_ms=80))
    assert [text.split(":")[0] for text in caught.value.attempts] == ["ranker@champion on a"] * 2 + [
        "ranker@champion on b"
    ]
    assert world.now_s == pytest.approx(1000.080)


def test_a_deadline_that_has_passed_sends_nothing() -> None:
    world = World()
    dispatcher = world.dispatcher()
    with pytest.raises(DeadlineError):
        asyncio.run(dispatcher.dispatch(decide(), INFER, world.now_s))
    assert world.sent == []


def test_with_no_answer_at_all_the_error_lists_the_attempts() -> None:
    refused = EndpointRefusedError("connection failed: Connection refused")
    world = World({"a1": refused, "a2": refused, "b1": EndpointResetError("reset")})
    with pytest.raises(UnavailableError) as caught:
        run(world.dispatcher(), decide())
    assert len(caught.value.attempts) == 3
    assert caught.value.attempts[2] == "ranker@champion on b: reset"
    assert not any("a1" in text or "8000" in text for text in caught.value.attempts)


def test_a_model_that_no_server_has_is_unavailable_not_unknown() -> None:
    unknown = answer(404, "Request for unknown model: 'ranker' is not found")
    with pytest.raises(UnavailableError):
        run(World({"a1": unknown, "a2": unknown, "b1": unknown}).dispatcher(), decide())


def test_the_last_unavailable_answer_in_the_protocols_form_is_passed_on() -> None:
    full = answer(503, "Exceeds maximum queue size")
    world = World({"a1": answer(504), "a2": answer(504), "b1": full, "c1": EndpointRefusedError("refused")})
    assert run(world.dispatcher(), decide(BACKUP)).response is full
    html = HttpResponse(503, [], b"<html>no targets</html>")
    with pytest.raises(UnavailableError):
        run(World({"c1": html}).dispatcher(), decide(target=BACKUP))


def test_without_endpoints_the_error_names_the_shards() -> None:
    world = World(directory=MemoryEndpointDirectory())
    with pytest.raises(UnavailableError, match="a, b, c"):
        run(world.dispatcher(), decide(BACKUP))


def test_the_least_busy_endpoint_first_and_chance_between_equals() -> None:
    world = World()
    dispatcher = world.dispatcher()
    for _ in range(100):
        run(dispatcher, decide())
    assert 30 <= world.hosts.count("a1") <= 70

    gate = asyncio.Event()
    sent: list[str] = []

    class Held:
        async def send(
            self, endpoint: Endpoint, request: HttpRequest, timeout_s: float, done: Done | None = None
        ) -> HttpResponse:
            sent.append(endpoint.host)
            if len(sent) == 1:
                await gate.wait()
            assert done is not None
            done(0.01)
            return OK

        def hang_up(self, endpoint: Endpoint) -> None:
            raise AssertionError(endpoint)

    async def main() -> None:
        busy = Dispatcher(Held(), world.directory, clock=lambda: 0.0)
        first = asyncio.create_task(busy.dispatch(decide(), INFER, 1.0))
        await asyncio.sleep(0)
        for _ in range(4):
            await busy.dispatch(decide(), INFER, 1.0)
        gate.set()
        await first

    asyncio.run(main())
    assert sent[0] not in sent[1:]


def test_retries_after_time_outs_are_rationed_and_others_are_not() -> None:
    world = World({"b1": EndpointTimeoutError("late")})
    dispatcher = world.dispatcher(breaker_failures=10_000, retry_ratio=0.2, retry_floor_per_s=0.0, retry_burst=5.0)
    failed = 0
    for _ in range(100):
        try:
            run(dispatcher, only_b(timeout_ms=50))
        except DeadlineError:
            failed += 1
    retried = world.hosts.count("c1")
    assert retried + failed == 100
    assert 20 <= retried <= 26

    world = World({"b1": answer(503)})
    dispatcher = world.dispatcher(breaker_failures=10_000, retry_ratio=0.0, retry_floor_per_s=0.0, retry_burst=1.0)
    for _ in range(100):
        assert run(dispatcher, only_b()).shard == "c"


def test_where_nothing_can_be_tried_again_a_time_out_takes_no_retry_from_others() -> None:
    world = World({"c1": EndpointTimeoutError("late"), "b1": EndpointTimeoutError("late")})
    dispatcher = world.dispatcher(breaker_failures=10_000, retry_ratio=0.0, retry_floor_per_s=0.0, retry_burst=1.0)
    for _ in range(10):
        with pytest.raises(DeadlineError):
            run(dispatcher, decide(target=BACKUP, timeout_ms=50))
    world.answers.pop("c1")
    assert run(dispatcher, only_b(timeout_ms=50)).fallback


def test_without_a_retry_in_the_budget_an_attempt_gets_all_the_time() -> None:
    world = World({"b1": (0.045, OK)})
    dispatcher = world.dispatcher(retry_ratio=0.0, retry_floor_per_s=0.0, retry_burst=1.0)
    assert run(dispatcher, only_b(timeout_ms=50)).shard == "c"
    assert run(dispatcher, only_b(timeout_ms=50)).shard == "b"
    assert world.limits_ms == [25, 25, 50]


def test_the_retry_budgets_floor_accrues_with_time() -> None:
    world = World({"b1": EndpointTimeoutError("late")})
    dispatcher = world.dispatcher(breaker_failures=10_000, retry_ratio=0.0, retry_floor_per_s=1.0, retry_burst=1.0)
    assert run(dispatcher, only_b(timeout_ms=50)).fallback
    with pytest.raises(DeadlineError):
        run(dispatcher, only_b(timeout_ms=50))
    world.now_s += 1.0
    assert run(dispatcher, only_b(timeout_ms=50)).fallback


@given(st.integers(1, 6), st.text(min_size=1, max_size=20))
def test_a_sequence_stays_on_its_endpoint(count: int, sequence: str) -> None:
    endpoints = tuple(Endpoint("a", f"a{number}", 8000) for number in range(count))
    world = World(directory=MemoryEndpointDirectory({"a": endpoints, "b": (B1,)}))
    for _ in range(3):
        run(world.dispatcher(), decide(BACKUP), Call("POST", "/infer", sequence=Sequence(sequence, starts=True)))
    (home,) = set(world.hosts)
    remaining = tuple(endpoint for endpoint in endpoints if endpoint.host != "a0")
    if home != "a0":
        world.directory.shards["a"] = remaining
        run(world.dispatcher(), decide(), Call("POST", "/infer", sequence=Sequence(sequence, starts=True)))
        assert set(world.hosts) == {home}


@pytest.mark.parametrize("failure", [EndpointResetError("reset"), EndpointTimeoutError("late"), answer(503)])
def test_a_sequence_is_never_sent_twice(failure: Answer) -> None:
    world = World({"a1": failure, "a2": failure})
    with pytest.raises((UnavailableError, DeadlineError)):
        run(
            world.dispatcher(),
            decide(BACKUP, timeout_ms=80),
            Call("POST", "/infer", sequence=Sequence("s", starts=True)),
        )
    assert len(world.sent) == 1
    assert world.limits_ms == [80]


@given(
    st.lists(st.sampled_from(["ok", "refused", "reset", "late", "503", "400", "unknown"]), min_size=4, max_size=4),
    st.integers(10, 200),
)
def test_no_candidate_twice_never_past_the_deadline_and_the_first_answer_wins(
    kinds: list[str], timeout_ms: int
) -> None:
    make: dict[str, Callable[[], Answer]] = {
        "ok": lambda: OK,
        "refused": lambda: EndpointRefusedError("no"),
        "reset": lambda: EndpointResetError("no"),
        "late": lambda: EndpointTimeoutError("no"),
        "503": lambda: answer(503),
        "400": lambda: answer(400, "own"),
        "unknown": lambda: answer(404, "Request for unknown model: 'ranker' is not found"),
    }
    world = World({host: make[kind]() for host, kind in zip(["a1", "a2", "b1", "c1"], kinds, strict=True)})
    try:
        outcome = run(world.dispatcher(), decide(BACKUP, timeout_ms=timeout_ms))
    except (UnavailableError, DeadlineError):
        pass
    else:
        assert outcome.attempt.endpoint.host == world.hosts[-1]
    assert len(set(world.hosts)) == len(world.hosts)
    assert sum(kind == "reset" for kind in kinds[: len(world.hosts)]) <= 2
    assert world.now_s <= 1000.0 + timeout_ms / 1000 + 1e-6
    answers = [host for host, kind in zip(["a1", "a2", "b1", "c1"], kinds, strict=True) if kind in ("ok", "400")]
    assert not set(world.hosts[:-1]) & set(answers)
