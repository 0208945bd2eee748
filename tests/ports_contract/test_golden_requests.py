"""`GoldenRequests`: what the answers of a server prove of a target, in memory and with the requests that were pushed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import pytest
from tidegate.errors import EndpointError, EndpointTimeoutError
from tidegate.ports import Endpoint, GoldenOutcome, GoldenRequests, GoldenResult, SelfTestState
from tidegate.rules import Target
from tidegate.testing import MemoryGoldenRequests

from tests.models.asked import ANSWER, PLAIN, SAMPLE, Server, golden_requests

ENDPOINT = Endpoint("a", "127.0.0.1", 1)
TARGET = Target("asked", "asked", 1, ("a",))


class Case(StrEnum):
    """What a model does with its golden request; `UNTESTED`: it has none."""

    RIGHT = "right"
    WRONG = "wrong"
    UNTESTED = "untested"
    HANGING = "hanging"
    FATAL = "fatal"


def in_memory(case: Case, _: Path) -> GoldenRequests:
    golden = MemoryGoldenRequests()
    match case:
        case Case.WRONG:
            golden.wrong["asked"] = "a value is NaN"
        case Case.UNTESTED:
            golden.unproved["asked"] = "it has no golden request"
        case Case.HANGING:
            golden.hanging.add("asked")
        case Case.FATAL:
            golden.fatal.add("asked")
        case Case.RIGHT:
            pass
    return golden


def pushed(case: Case, folder: Path) -> GoldenRequests:
    answer = ANSWER if case is not Case.WRONG else {"outputs": [{**ANSWER["outputs"][0], "data": [float("nan"), 1.0]}]}
    server = Server(PLAIN, 200, None if case is Case.HANGING else answer)
    server.ends = case is Case.FATAL
    return asyncio.run(golden_requests(folder, server, None if case is Case.UNTESTED else SAMPLE))


Make = Callable[[Case, Path], GoldenRequests]


@pytest.fixture(params=[in_memory, pushed])
def make(request: pytest.FixtureRequest) -> Make:
    found: Make = request.param
    return found


def ask(golden: GoldenRequests) -> GoldenResult:
    return asyncio.run(golden.ask(ENDPOINT, TARGET))


@pytest.mark.parametrize(
    ("case", "outcome", "self_test"),
    [
        (Case.RIGHT, GoldenOutcome.PROVED, SelfTestState.PASSED),
        (Case.WRONG, GoldenOutcome.WRONG, SelfTestState.FAILED),
        (Case.UNTESTED, GoldenOutcome.UNPROVED, SelfTestState.PASSED),
    ],
)
def test_an_answer_proves_its_target_or_says_why_not(
    make: Make, case: Case, outcome: GoldenOutcome, self_test: SelfTestState, tmp_path: Path
) -> None:
    result = ask(make(case, tmp_path))
    assert (result.outcome, result.self_test, result.ended) == (outcome, self_test, None)
    assert bool(result.reason) == (case is not Case.RIGHT)


@pytest.mark.parametrize(("case", "error"), [(Case.HANGING, EndpointTimeoutError), (Case.FATAL, EndpointError)])
def test_a_server_that_gives_no_answer_is_an_error(
    make: Make, case: Case, error: type[EndpointError], tmp_path: Path
) -> None:
    with pytest.raises(error) as raised:
        ask(make(case, tmp_path))
    assert isinstance(raised.value, EndpointTimeoutError) == (case is Case.HANGING)
