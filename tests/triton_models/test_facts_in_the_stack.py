"""Histories in a running stack: `tidegate up` fills its table, and what the table says is what callers get."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.facts import seed_facts
from tidegate.aws.provision import provision_facts
from tidegate.aws.fact_files import find_fact_files

from tests.support.stack import RunningStack, eventually, running_stack

from .conftest import ROOT

CACHE_TTL_S = 1
MODELS = (
    "title_ranking_ease", "title_ranking_popularity", "title_history", "title_scorer_ease", "title_scorer_popularity",
    "title_topk",
)  # fmt: skip


@pytest.fixture(scope="module")
def stack(artefacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The project's objective `title_ranking` on its own models, but for histories that are kept for a second."""
    folder = tmp_path_factory.mktemp("stack")
    for model in MODELS:
        shutil.copytree(artefacts / model, folder / "models" / model, ignore=shutil.ignore_patterns("__pycache__"))
    config = folder / "models" / "title_history" / "config.pbtxt"
    text, count = re.subn(
        r'(key: "facts_cache_ttl_s"\s+value: { string_value: )"60"', rf'\1"{CACHE_TTL_S}"', config.read_text()
    )
    assert count == 1
    config.write_text(text)
    (folder / "rules" / "objectives").mkdir(parents=True)
    fleet = {"shards": {"a": {"replicas": 1}}, "models": {model: {"shards": ["a"]} for model in MODELS[:2]}}
    (folder / "rules" / "fleet.yaml").write_text(json.dumps(fleet))
    objective = {
        "objective": "title_ranking",
        "summary": "Rank titles.",
        "owner": "tests",
        "context": {"member_id": {"type": "string", "required": True}},
        "timeout_ms": 20_000,
        "rules": [{"id": "default", "serve": "title_ranking_ease"}],
    }
    (folder / "rules" / "objectives" / "title_ranking.yaml").write_text(json.dumps(objective))
    # Far more than a look-up takes: on a busy machine, an answer without a history would be a wrong one.
    variables = {"TIDEGATE_FACTS_TIMEOUT_MS": "5000"}
    with running_stack(folder / "rules", folder / "models", folder / "log", variables=variables) as running:
        yield running


def ranked(stack: RunningStack, member: str) -> list[int]:
    """The ids of the titles that a member is recommended."""
    body = {"context": {"member_id": member}, "inputs": {"MEMBER_ID": [member]}}
    status, answer = stack.post("/v1/objectives/title_ranking/infer", body)
    assert status == 200, answer
    titles: list[int] = answer["outputs"]["TITLE_IDS"][0]
    return titles


def facts_table(stack: RunningStack) -> tuple[AwsClients, str]:
    control = stack.get("/v1/fleet")["control"]
    clients = AwsClients(AwsConfig(endpoint_url=control["endpoint_url"], region=control["region"], timeout_s=20))
    return clients, control["facts_table"]


def seed(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    return subprocess.run(
        [sys.executable, "-m", "tidegate.cli", "facts", "seed", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
        cwd=ROOT,
    )


def histories(artefacts: Path) -> dict[str, dict[str, list[int]]]:
    """What was seeded, by member."""
    lines = (artefacts / "title_history/facts/member_history.jsonl").read_text("utf-8").splitlines()
    return {row["key"]: row["value"] for row in map(json.loads, lines)}


def test_a_member_is_answered_by_the_history_that_was_seeded(stack: RunningStack, artefacts: Path) -> None:
    assert "facts: 943 of member_history in table tidegate-facts" in stack.errors
    of_nobody = ranked(stack, "nobody")
    for member in ("42", "943"):
        titles = ranked(stack, member)
        assert titles != of_nobody
        assert not set(titles) & set(histories(artefacts)[member]["rated"])


def test_a_row_that_changes_changes_the_answer(stack: RunningStack, artefacts: Path) -> None:
    before = ranked(stack, "1")
    other = histories(artefacts)["2"]
    clients, table = facts_table(stack)
    item = {"pk": {"S": "1"}, "sk": {"S": "member_history"}, "value": {"S": json.dumps(other)}}
    clients.client("dynamodb").put_item(TableName=table, Item=item)
    assert eventually(lambda: ranked(stack, "1") == ranked(stack, "2"))
    assert ranked(stack, "1") != before


def test_facts_of_a_new_member_are_seeded_into_the_running_stack(
    stack: RunningStack, artefacts: Path, tmp_path: Path
) -> None:
    file = tmp_path / "member_history.jsonl"
    file.write_text(json.dumps({"key": "new", "value": histories(artefacts)["3"]}) + "\n")
    done = seed(str(file), "--stack", stack.url)
    assert (done.returncode, done.stdout) == (0, "member_history: 1 facts in table tidegate-facts\n"), done.stderr
    assert ranked(stack, "new") == ranked(stack, "3")
    both = seed(str(file), "--stack", stack.url, "--table", "some-table")
    assert both.returncode == 2
    assert "--stack names the table and where it is" in both.stderr
    nowhere = seed(str(file), "--stack", "http://127.0.0.1:9")
    assert nowhere.returncode == 1
    assert "http://127.0.0.1:9" in nowhere.stderr


@pytest.fixture
def tableless(stack: RunningStack, artefacts: Path) -> Iterator[Callable[[], None]]:
    """Deletes the table; it is there again after the test."""
    clients, table = facts_table(stack)
    yield lambda: clients.client("dynamodb").delete_table(TableName=table)
    asyncio.run(provision_facts(clients, table))
    asyncio.run(seed_facts(clients, table, find_fact_files(artefacts)))
    time.sleep(CACHE_TTL_S)


def test_without_the_table_members_are_answered_by_what_is_known(
    stack: RunningStack, tableless: Callable[[], None]
) -> None:
    of_nobody, known = ranked(stack, "nobody"), ranked(stack, "42")
    tableless()
    # Never read before, and so answered as one without a history; and read before, and so answered by what was read.
    assert ranked(stack, "100") == of_nobody
    until = time.monotonic() + 2 * CACHE_TTL_S
    while time.monotonic() < until:
        assert ranked(stack, "42") == known != of_nobody
