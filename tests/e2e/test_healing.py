"""What goes wrong in a running stack without anything ending is found out and healed, and no caller of anything else notices."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.support.callers import Callers
from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules

VARIABLES = {"TIDEGATE_HUNG_AFTER_S": "6"}
SILENT = "answers nothing; it is sent no requests meanwhile"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    root = tmp_path_factory.mktemp("stack")
    models = make_repository(root / "models", "versioned")
    rules = write_rules(root / "rules", {"a": 2, "b": 1}, {"versioned": ["a"]}, main="versioned/3")
    with running_stack(rules, models, root / "errors", variables=VARIABLES) as running:
        yield running
        assert "Traceback" not in running.errors


def ready(stack: RunningStack, shard: str = "a") -> set[int]:
    """The servers of a shard that are ready, by process id."""
    return {each["pid"] for each in stack.fleet()[shard] if each["state"] == "ready"}


def said(stack: RunningStack, words: str) -> int:
    return stack.errors.count(words)


def test_a_stopped_server_that_goes_on_in_time_comes_back_by_itself(stack: RunningStack) -> None:
    before = ready(stack)
    victim = min(before)
    with Callers(stack, "main", per_s=10) as callers:
        assert eventually(lambda: len(callers.answers) > 5)
        os.killpg(victim, signal.SIGSTOP)
        try:
            assert eventually(lambda: said(stack, SILENT) == 1)
        finally:
            os.killpg(victim, signal.SIGCONT)
        assert eventually(lambda: said(stack, "answers again") == 1)
        assert eventually(lambda: ready(stack) == before)
    assert callers.failures == []
    assert stack.get("/v1/fleet")["since_start"]["restarts"] == []


def test_a_stopped_server_is_replaced_and_nobody_fails_meanwhile(stack: RunningStack) -> None:
    before = ready(stack)
    victim = min(before)
    server = next(each for each in stack.servers() if each.pid == victim)
    with Callers(stack, "main", per_s=10) as callers:
        assert eventually(lambda: len(callers.answers) > 5)
        os.killpg(victim, signal.SIGSTOP)
        assert eventually(lambda: len(now := ready(stack)) == 2 and victim not in now)
    assert callers.failures == []
    assert eventually(lambda: not server.leftovers()), server.leftovers()
    (restarts,) = stack.get("/v1/fleet")["since_start"]["restarts"]
    assert (restarts["shard"], restarts["count"]) == ("a", 1)
    assert restarts["reason"].startswith("answered nothing for ")
    assert stack.models("a") == [{"versioned/3"}] * 2
