"""`tidegate up` follows its rules: what a save must pass, what pauses it, and `tidegate follow`, under requests."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tidegate.cli.serve import checked_rules
from tidegate.control.following import FollowMode

from tests.support import commands
from tests.support.callers import Callers
from tests.support.stack import (
    RunningStack,
    eventually,
    make_repository,
    running_stack,
    started_stack,
    write_rules,
)

PLACEMENT = {"versioned": ["a"]}
TIMES = {"TIDEGATE_DRAIN_TIMEOUT_S": "1", "TIDEGATE_POLL_INTERVAL_S": "0.2"}
"""Each request takes milliseconds: nothing has to wait for them longer."""

UNREACHABLE = "[{id: all, serve: versioned/1}, {id: never, when: {country: US}, serve: versioned/2}]"
HOLE = "[{id: us, when: {country: US}, serve: versioned/1}]"
CASE = """\
objective: picked
cases:
  - {name: a wrong case, context: {}, expect: {rule: another}}
"""


def tidegate(stack: RunningStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return commands.tidegate(*arguments, "--stack", stack.url)


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rules(tmp_path_factory.mktemp("rules"), {"a": 1}, PLACEMENT, picked="versioned/1")


@pytest.fixture(scope="module")
def stack(rules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    folder = tmp_path_factory.mktemp("stack")
    models = make_repository(folder / "models", "versioned")
    with running_stack(rules, models, folder / "errors", variables=TIMES) as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """Callers of every test that has a stack get answers."""
    if "stack" not in request.fixturenames:
        yield
        return
    with Callers(request.getfixturevalue("stack"), "picked", per_s=20, sleep_ms=1) as callers:
        yield
    assert callers.answers
    assert callers.failures == []


def write(rules: Path, **objectives: str) -> None:
    write_rules(rules, {"a": 1}, PLACEMENT, **objectives)


def followed(stack: RunningStack) -> dict[str, Any]:
    found: dict[str, Any] = stack.get("/v1/fleet")["follow"]
    return found


@pytest.mark.parametrize(
    ("objective", "case", "finding"),
    [
        (UNREACHABLE, "", "no request can reach this rule"),
        (HOLE, "", "no rule serves the context"),
        ("versioned/2", CASE, "a wrong case"),
    ],
    ids=["unreachable", "hole", "case"],
)
def test_a_save_that_a_publish_would_refuse_does_not_go_live(
    stack: RunningStack, rules: Path, objective: str, case: str, finding: str
) -> None:
    cases = rules / "cases" / "picked.yaml"
    if case:
        cases.parent.mkdir(exist_ok=True)
        cases.write_text(case)
    live, said = stack.get("/v1/fleet")["revision"], stack.errors
    write(rules, picked=objective)
    rejected = eventually(lambda: stack.get("/v1/fleet")["rules"]["last_rejected"])
    assert any(finding in line for line in rejected["findings"]), rejected
    assert stack.errors[len(said) :].count(finding) == 1, "a finding is reported once"
    assert stack.get("/v1/fleet")["revision"] == live
    cases.unlink(missing_ok=True)
    write(rules, picked="versioned/1")
    assert eventually(lambda: stack.get("/v1/fleet")["rules"]["last_rejected"] is None)


def test_a_rollback_pauses_following_until_it_is_resumed(stack: RunningStack, rules: Path) -> None:
    write(rules, picked="versioned/2")
    assert eventually(lambda: stack.version("picked") == 2)
    assert followed(stack)["state"] == "following"
    done = tidegate(stack, "rollback", "--by", "ben", "--why", "wrong prices")
    assert done.returncode == 0, done.stderr
    assert "no longer followed: correct it, then `tidegate follow resume`" in done.stdout
    write(rules, picked="versioned/3")
    assert eventually(lambda: followed(stack)["unpublished_at"])
    told = followed(stack)
    assert (told["state"], told["paused"]["by"], told["paused"]["action"]) == ("paused", "ben", "rollback")
    assert "following is paused since" in stack.errors
    table = " ".join(tidegate(stack, "status").stdout.split())
    assert "because ben made revision" in table
    assert "tidegate follow resume" in table
    seen = tidegate(stack, "follow", "status", "--json")
    found = json.loads(seen.stdout)
    assert (seen.returncode, found["state"], found["is_live"]) == (1, "paused", False)
    assert any("versioned/3" in change["text"] for change in found["changes"])
    assert stack.version("picked") == 1
    done = tidegate(stack, "follow", "resume")
    assert done.returncode == 0, done.stderr
    assert eventually(lambda: stack.version("picked") == 3)
    assert eventually(lambda: followed(stack)["state"] == "following")
    write(rules, picked="versioned/1")
    assert eventually(lambda: stack.version("picked") == 1)


def test_the_status_of_a_directory_that_is_marked_bad_says_how_to_go_on(stack: RunningStack, rules: Path) -> None:
    write(rules, picked="versioned/3")
    assert eventually(lambda: stack.version("picked") == 3)
    assert tidegate(stack, "rollback", "--why", "wrong prices").returncode == 0
    said = tidegate(stack, "follow", "status").stdout
    assert "marked bad" in said
    assert "wrong prices" in said
    assert "--even-if-bad" in said
    assert json.loads(tidegate(stack, "follow", "status", "--json").stdout)["bad"]["why"] == "wrong prices"
    write(rules, picked="versioned/1")
    assert json.loads(tidegate(stack, "follow", "status", "--json").stdout)["bad"] is None
    assert tidegate(stack, "follow", "resume").returncode == 0


def test_it_is_paused_and_resumed_by_hand_and_refused_directories_stay_out(stack: RunningStack, rules: Path) -> None:
    done = tidegate(stack, "follow", "pause", "--why", "a demo", "--json")
    assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "paused")
    live = stack.get("/v1/fleet")["revision"]
    write(rules, picked=UNREACHABLE)
    assert eventually(lambda: followed(stack)["unpublished_at"])
    refused = tidegate(stack, "follow", "resume")
    assert refused.returncode == 1
    assert "no request can reach this rule" in refused.stderr
    assert (stack.get("/v1/fleet")["revision"], followed(stack)["state"]) == (live, "paused")
    write(rules, picked="versioned/1")
    assert tidegate(stack, "follow", "resume").returncode == 0
    assert eventually(lambda: followed(stack)["state"] == "following")
    assert tidegate(stack, "follow", "pause").returncode == 0
    assert eventually(lambda: followed(stack)["state"] == "paused")
    assert followed(stack)["unpublished_at"] is None, "what an earlier pause held back is published"


def test_a_start_on_rules_that_a_save_must_not_bring_is_refused(tmp_path: Path) -> None:
    models = make_repository(tmp_path / "models", "versioned")
    rules = write_rules(tmp_path / "rules", {"a": 1}, PLACEMENT, picked=UNREACHABLE)
    with started_stack(rules, models, tmp_path / "errors") as stack:
        assert stack.wait_exit() == 1
        assert "no request can reach this rule" in stack.errors
        assert "--follow unchecked" in stack.errors
        assert stack.servers() == []
    assert asyncio.run(checked_rules(rules, FollowMode.UNCHECKED)).bundle
