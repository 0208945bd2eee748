"""Shadows of a running stack that go through a queue, as on AWS: moto's SQS and S3, and the function `shadow` before a real Triton."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.cli import main

from tests.e2e.test_shadows import CONFIG, MODEL
from tests.support.model_folders import write_model
from tests.support.processes import children_running
from tests.support.stack import RunningStack, eventually, running_stack, started_stack, write_rules

RULES = [
    {"id": "lost", "when": {"country": "NO"}, "serve": "base", "shadow": {"elsewhere": 100}},
    {"id": "rest", "serve": "base", "shadow": {"ahead": 100}},
]
QUEUED = {
    "TIDEGATE_SHADOW_CARRIER": "queue",
    # However busy the machine is, no copy is late, and the queue answers.
    "TIDEGATE_SHADOW_TIMEOUT_MS": "60000",
    "TIDEGATE_SHADOW_SEND_TIMEOUT_MS": "5000",
}


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, notes: Path) -> Iterator[RunningStack]:
    models = tmp_path_factory.mktemp("models")
    for name, added in (("base", 0.0), ("ahead", 0.5), ("elsewhere", 0.0)):
        text = MODEL.replace("ADDED", str(added)).replace("SLEEP_S", "0").replace("NOTES", str(notes / name))
        write_model(models / name, {"config.pbtxt": CONFIG.encode(), "1/model.py": text.encode()})
    rules = write_rules(
        tmp_path_factory.mktemp("rules"),
        {"a": 1, "b": 1},
        {"base": ["a"], "ahead": ["a"], "elsewhere": ["b"]},
        main=json.dumps(RULES),
    )
    log = tmp_path_factory.mktemp("log") / "errors"
    with running_stack(rules, models, log, variables=QUEUED) as running:
        yield running


def ask(stack: RunningStack, values: list[float], **context: str) -> None:
    body = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [len(values)], "data": values}]}
    status, answer = stack.post("/v2/models/main/infer", body, {"Tidegate-Context": json.dumps(context)})
    assert (status, answer["model_name"], answer["outputs"][0]["data"]) == (200, "base", values)


def report(stack: RunningStack) -> dict[str, dict[str, Any]]:
    """What `tidegate shadow report` shows of each pair, by its shadow."""
    result = CliRunner().invoke(main, ["shadow", "report", "--json", "--stack", stack.url], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return {pair["shadow"]: pair for pair in json.loads(result.stdout)["pairs"]}


def settled(stack: RunningStack, shadow: str, sampled: int) -> dict[str, Any]:
    """A pair once the report shows what became of each request."""

    def found() -> dict[str, Any] | None:
        pair = report(stack).get(shadow)
        return pair if pair is not None and pair["sampled"] == sampled and pair["missing"] == 0 else None

    pair = eventually(found)
    assert pair, (report(stack), stack.get("/v1/fleet")["gateway"]["shadows"], stack.errors)
    return dict(pair)


def test_copies_go_through_the_queue_and_the_report_shows_the_pair(stack: RunningStack, notes: Path) -> None:
    for _ in range(20):
        ask(stack, [1.0, 2.0], country="DE")
    # Above what a message takes: by an object.
    ask(stack, [0.5] * 60_000, country="DE")
    pair = settled(stack, "ahead", 21)
    assert (pair["rule"], pair["sent"], pair["compared"], pair["identical"]) == ("rest", 21, 21, 0)
    assert (pair["dropped"], pair["left_out"], pair["shadow_failed"]) == ({}, {}, {})
    assert pair["outputs"]["Y"]["absolute_error"]["p50"] == pytest.approx(0.5, rel=0.05)
    assert [each for each in (notes / "ahead").read_text().split() if each == "shadow"] == ["shadow"] * 21

    def counted() -> bool:
        counts = stack.get("/v1/fleet")["gateway"]["shadows"]
        return (counts["sampled"], counts.get("queued"), counts["dropped"]) == (21, 21, {})

    # The gateway reports once a second.
    assert eventually(counted), stack.get("/v1/fleet")["gateway"]["shadows"]
    assert dead_letters_and_messages(stack) == [0, 0]


def dead_letters_and_messages(stack: RunningStack) -> list[int]:
    control = stack.get("/v1/fleet")["control"]
    sqs = AwsClients(AwsConfig(endpoint_url=control["endpoint_url"], region=control["region"])).client("sqs")
    counts = []
    for name in ("tidegate-shadow-dead", "tidegate-shadow"):
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        counts.append(int(found["ApproximateNumberOfMessages"]))
    return counts


def test_the_process_that_carries_them_out_may_end(stack: RunningStack) -> None:
    """It ends between batches; what comes then waits in the queue for the next one."""
    before = report(stack).get("elsewhere", {"sampled": 0})["sampled"]
    ask(stack, [1.0], country="NO")
    assert settled(stack, "elsewhere", before + 1)["compared"] == before + 1
    (process,) = functions(stack)
    os.kill(process, signal.SIGKILL)
    for _ in range(5):
        ask(stack, [1.0], country="NO")
    pair = settled(stack, "elsewhere", before + 6)
    assert (pair["sent"], pair["compared"], pair["identical"]) == (before + 6, before + 6, before + 6)
    assert functions(stack) != [process]


def functions(stack: RunningStack) -> list[int]:
    """The processes that carry copies out."""
    return children_running("tidegate.bootstrap.shadow_function", stack.process.pid)


def test_a_queue_needs_stores_of_the_stacks_own(tmp_path: Path) -> None:
    rules = write_rules(tmp_path / "rules", {"a": 1}, {"base": ["a"]}, main="base")
    write_model(tmp_path / "models" / "base", {"config.pbtxt": CONFIG.encode(), "1/model.py": MODEL.encode()})
    given = {**QUEUED, "TIDEGATE_BUCKET": "a-bucket", "TIDEGATE_REGISTRY_TABLE": "a-table"}
    with started_stack(rules, tmp_path / "models", tmp_path / "log", variables=given) as stack:
        assert stack.wait_exit() == 1
    assert "TIDEGATE_SHADOW_CARRIER=queue makes a queue in the stack's own AWS in memory" in stack.errors
