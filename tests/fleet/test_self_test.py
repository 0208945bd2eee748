"""A server is tested by real inferences: it fails where no live model answers on it, and not by one broken model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from tidegate.control.plans import Plan
from tidegate.errors import EndpointTimeoutError, StoreError
from tidegate.fleet.self_test import MOST_MODELS, ROUND_S, SelfTest
from tidegate.ports import Endpoint, GoldenOutcome, GoldenResult, ModelLoad, SelfTestState, Suspect, SuspectKind
from tidegate.rules import Target
from tidegate.testing import MemoryGoldenRequests

from tests.support import virtual_time

SERVER = Endpoint("a", "10.0.0.1", 8000)
ENSEMBLE = ModelLoad("ensemble", (1, 3), steps=("step",))
STEP = ModelLoad("step", (1,))
OTHER = ModelLoad("other", (2,))


def verdicts_of(golden: MemoryGoldenRequests, *rounds: Plan | StoreError) -> list[bool]:
    """Whether the server had passed after each round, what was live in it being given."""
    read = iter(rounds)

    async def live() -> Plan:
        found = next(read)
        if isinstance(found, StoreError):
            raise found
        return found

    async def run() -> list[bool]:
        test = SelfTest(live, golden, lambda: SERVER, lambda _: None, 30)
        assert not test.passed, "nothing was asked yet"
        verdicts = []
        for _ in rounds:
            await test.round(SERVER)
            verdicts.append(test.passed)
        return verdicts

    return asyncio.run(run())


def test_a_server_that_answers_one_model_has_passed() -> None:
    golden = MemoryGoldenRequests(wrong={"ensemble": "status 500"})
    assert verdicts_of(golden, (STEP, ENSEMBLE, OTHER)) == [True]
    assert [name for _, name in golden.asked] == ["ensemble/3", "other/2"], "what others call is asked last"


def test_a_server_that_answers_none_is_not_ready_from_the_start_and_after_two_rounds() -> None:
    broken = MemoryGoldenRequests(wrong={"step": "x", "ensemble": "x", "other": "x"})
    assert verdicts_of(broken, (STEP, ENSEMBLE), (STEP, ENSEMBLE)) == [False, False]

    class Breaking(MemoryGoldenRequests):
        async def ask(self, endpoint: Endpoint, target: Target) -> GoldenResult:
            if len(self.asked) >= 1:
                self.asked.append((endpoint, target.name))
                raise EndpointTimeoutError("no answer")
            return await super().ask(endpoint, target)

    assert verdicts_of(Breaking(), *[(OTHER,)] * 4) == [True, True, False, False]


def test_a_server_recovers() -> None:
    golden = MemoryGoldenRequests(wrong={"other": "status 500"})

    class Recovering(MemoryGoldenRequests):
        async def ask(self, endpoint: Endpoint, target: Target) -> GoldenResult:
            self.asked.append((endpoint, target.name))
            if len(self.asked) < 3:
                return GoldenResult(GoldenOutcome.WRONG, SelfTestState.FAILED, "status 500")
            return GoldenResult(GoldenOutcome.PROVED, SelfTestState.PASSED)

    assert verdicts_of(golden, (OTHER,)) == [False]
    assert verdicts_of(Recovering(), *[(OTHER,)] * 3) == [False, False, True]


@pytest.mark.parametrize("rounds", [[()], [StoreError("down")]], ids=["nothing is live", "the store is down"])
def test_a_server_is_not_blamed_for_what_is_not_its_own(rounds: Sequence[Plan | StoreError]) -> None:
    assert verdicts_of(MemoryGoldenRequests(), *rounds) == [True]


@pytest.mark.parametrize("last", [(), StoreError("down")], ids=["nothing is live", "the store is down"])
def test_a_server_that_failed_stays_failed_while_nothing_can_be_asked(last: Plan | StoreError) -> None:
    broken = MemoryGoldenRequests(wrong={"other": "status 500"})
    assert verdicts_of(broken, (OTHER,), (OTHER,), (OTHER,), last) == [False] * 4


def test_a_store_that_hides_the_golden_requests_says_nothing_about_the_server() -> None:
    class Unreadable(MemoryGoldenRequests):
        down = True

        async def ask(self, endpoint: Endpoint, target: Target) -> GoldenResult:
            if self.down:
                raise StoreError("the store is down")
            return await super().ask(endpoint, target)

    assert verdicts_of(Unreadable(), *[(OTHER,)] * 3) == [True] * 3


def test_a_server_that_could_not_be_tested_fails_in_its_first_round_without_an_answer() -> None:
    broken = MemoryGoldenRequests(wrong={"other": "status 500"})
    assert verdicts_of(broken, StoreError("down"), (OTHER,)) == [True, False]


def test_a_made_up_request_shows_by_its_answer_whether_the_server_computes() -> None:
    unproved = {"other": "it has no golden request"}
    assert verdicts_of(MemoryGoldenRequests(unproved=unproved), (OTHER,)) == [True]
    silent = MemoryGoldenRequests(unproved=unproved, self_test={"other": SelfTestState.FAILED})
    assert verdicts_of(silent, (OTHER,)) == [False], "a GPU off the bus answers no made-up request either"


def test_a_model_that_nothing_can_be_asked_hides_no_other() -> None:
    mute = tuple(ModelLoad(f"m{number}", (1,)) for number in range(2 * MOST_MODELS))
    unproved = {load.model: "its responses are decoupled" for load in mute}
    shown = dict.fromkeys(unproved, SelfTestState.UNTESTED)
    sound = MemoryGoldenRequests(unproved=unproved, self_test=shown)
    assert verdicts_of(sound, (*mute, OTHER)) == [True]
    assert sound.asked[-1][1] == "other/2"
    broken = MemoryGoldenRequests(wrong={"other": "status 500"}, unproved=unproved, self_test=shown)
    assert verdicts_of(broken, (*mute, OTHER)) == [False]
    assert verdicts_of(MemoryGoldenRequests(unproved=unproved, self_test=shown), mute) == [True]


def test_a_round_asks_few_models() -> None:
    plan = tuple(ModelLoad(f"m{number}", (1,)) for number in range(50))
    golden = MemoryGoldenRequests(wrong={load.model: "status 500" for load in plan})
    assert verdicts_of(golden, plan) == [False]
    assert len(golden.asked) == MOST_MODELS


def test_every_model_is_asked_first_in_its_turn_and_those_that_do_not_answer_are_reported() -> None:
    asked: list[str] = []
    reported: list[Suspect] = []

    class Failing(MemoryGoldenRequests):
        async def ask(self, endpoint: Endpoint, target: Target) -> GoldenResult:
            if target.name == "ensemble/1":
                return GoldenResult(GoldenOutcome.WRONG, SelfTestState.FAILED, "status 500", ended="step_0_0")
            return await super().ask(endpoint, target)

    async def run() -> None:
        async def live() -> Plan:
            return (STEP, ENSEMBLE, OTHER)

        golden = Failing(hanging={"other"})
        test = SelfTest(live, golden, lambda: SERVER, reported.append, 30)
        for _ in range(3):
            before = len(golden.asked)
            await test.round(SERVER)
            asked.append(golden.asked[before][1])
            assert test.passed

    asyncio.run(run())
    assert asked == ["ensemble/3", "other/2", "ensemble/3"], "the third round began with ensemble/1"
    assert reported == [
        Suspect(SERVER, "other", SuspectKind.HUNG),
        Suspect(SERVER, "ensemble", SuspectKind.DEAD_STUB),
        Suspect(SERVER, "ensemble", SuspectKind.DEAD_STUB),
    ]


@pytest.mark.parametrize("asked", ["stateful", "calling"])
def test_a_stateful_model_that_does_not_answer_shows_nothing(asked: str) -> None:
    # It may have as many sequences as it can, and to reload it would end them.
    stateful = ModelLoad("stateful", (1,), config='{"sequence_batching": {"oldest": {}}}')
    plan = (stateful, ModelLoad("calling", (1,), steps=("stateful",))) if asked == "calling" else (stateful,)
    reported: list[Suspect] = []

    async def run() -> None:
        async def live() -> Plan:
            return plan

        test = SelfTest(
            live, MemoryGoldenRequests(hanging={"stateful", "calling"}), lambda: SERVER, reported.append, 30
        )
        for _ in range(3):
            await test.round(SERVER)
            assert test.passed

    asyncio.run(run())
    assert reported == []


def test_many_models_are_asked_more_often() -> None:
    async def first_turns(count: int, for_s: float) -> int:
        plan = tuple(ModelLoad(f"m{number}", (1,)) for number in range(count))

        async def live() -> Plan:
            return plan

        golden = MemoryGoldenRequests()
        task = asyncio.create_task(SelfTest(live, golden, lambda: SERVER, lambda _: None, 30).run(5.0))
        await asyncio.sleep(for_s)
        task.cancel()
        await asyncio.wait([task])
        return len({name for _, name in golden.asked})

    assert virtual_time.run(first_turns(3, 14.0)) == 3
    assert virtual_time.run(first_turns(100, ROUND_S)) == 100
    assert virtual_time.run(first_turns(1000, 1.1)) == 5


def test_a_server_that_ends_meanwhile_is_not_judged(caplog: pytest.LogCaptureFixture) -> None:
    async def live() -> Plan:
        return (OTHER,)

    async def work() -> None:
        golden = MemoryGoldenRequests(wrong={"other": "status 404"})
        serving: list[Endpoint | None] = [SERVER]
        test = SelfTest(live, golden, lambda: serving[0], lambda _: None, 30)
        serving[0] = None
        await test.round(SERVER)
        assert test.state is SelfTestState.UNTESTED

    asyncio.run(work())
    assert caplog.text == ""
