"""A publish that is killed at any step leaves one whole revision that is served, and the next publish heals the rest."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.publishing import TIMES, command, events, publish_arguments, published, run, write_ensemble
from tests.support.callers import Callers
from tests.support.effort import is_full
from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules

SHARDS = {"a": 2, "b": 1}
ON = {"versioned": ["b"], "first": ["a"], "third": ["a"]}
ANSWERS = {"first": 1, "third": 3}
BEFORE_THE_FLIP = ("push", "assign", "claim", "try", "load", "validate", "flip")
AFTER_THE_FLIP = ("confirm", "drain", "unload")
ONLY_READ = ("check", "test")
KILLED_AT = BEFORE_THE_FLIP + AFTER_THE_FLIP if is_full() else ("push", "try", "load", "flip", "drain")
"""`tests/control/test_interrupted.py` ends the same work at each call, without processes; here it is one step of each kind:
something is stored, a server was started, models are loaded, the pointer moves, something is taken away."""

DRAINING = {"TIDEGATE_DRAIN_TIMEOUT_S": "30"}
"""For a publish that must come to draining however slow the machine is: whoever confirms for longer has drained already."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_repository(tmp_path_factory.mktemp("models"), "versioned")
    with (folder / "versioned" / "config.pbtxt").open("a") as config:
        config.write("version_policy: { all {} }\n")
    for name, version in ANSWERS.items():
        write_ensemble(folder, name, version)
    return folder


@pytest.fixture(scope="module")
def stack(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    root = tmp_path_factory.mktemp("stack")
    with running_stack(rules_of(root / "rules", "first"), models, root / "errors", variables=TIMES) as running:
        yield running
        assert "Traceback" not in running.errors


def rules_of(folder: Path, main: str) -> Path:
    return write_rules(folder, SHARDS, ON, main=main, other="versioned/1")


@pytest.mark.parametrize("step", KILLED_AT)
def test_a_publish_may_be_killed_at_any_step(stack: RunningStack, models: Path, tmp_path: Path, step: str) -> None:
    before, wanted = stack.version("main"), other(stack)
    with Callers(stack, "main", per_s=20) as callers:
        live = newest(stack)
        assert kill_at(step, publish_arguments(stack, rules_of(tmp_path / wanted, wanted), models)) == step
        # The pointer says which revision is live, and the gateway serves just that, whole. The kill may come a moment late.
        if step in AFTER_THE_FLIP or (step == "flip" and newest(stack) != live):
            assert eventually(lambda: stack.version("main") == ANSWERS[wanted])
        else:
            assert stack.version("main") == before
        # One publish takes up what the killed one left, and has the last word.
        published(stack, rules_of(tmp_path / wanted, wanted), models)
        assert eventually(lambda: stack.version("main") == ANSWERS[wanted])
    assert callers.failures == []
    assert set(callers.answers) == set(ANSWERS.values())
    held = {f"versioned/{ANSWERS[wanted]}", f"{wanted}/1"}
    assert eventually(lambda: stack.models("a") == [held] * 2)


def newest(stack: RunningStack) -> int:
    """The number of the flip that the pointer is at."""
    done = run("history", "--stack", stack.url, "--json")
    assert done.returncode == 0, done.stderr
    return int(json.loads(done.stdout)["history"][0]["flip"])


def other(stack: RunningStack) -> str:
    """The ensemble that is not live."""
    (name,) = [name for name, version in ANSWERS.items() if version != stack.version("main")]
    return name


def test_these_are_all_steps_of_a_publish(stack: RunningStack, models: Path, tmp_path: Path) -> None:
    arguments = publish_arguments(stack, rules_of(tmp_path, other(stack)), models)
    with command(*arguments) as process:
        told = {event["step"] for event in events(process) if event["event"] == "step"}
    assert told == {*ONLY_READ, *BEFORE_THE_FLIP, *AFTER_THE_FLIP}
    assert eventually(lambda: run("reconcile", "--stack", stack.url, "--json").returncode == 0)


def kill_at(step: str, arguments: list[str]) -> str:
    """Kill a publish as it tells that a step begins; the step, or `result` where it ended before."""
    with command(*arguments, **(DRAINING if step == "drain" else {})) as process:
        for event in events(process):
            if event["event"] == "result":
                return "result"
            if event["state"] == "begun" and event["step"] == step:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                return step
    raise AssertionError("it ended without a result")
