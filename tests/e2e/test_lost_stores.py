"""A running stack whose pointer is deleted, whose claims are damaged, whose bucket is emptied, and whose S3 hangs and dies,
under requests that never stop: none fails, status says what is wrong, and what is to be done mends it."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tidegate.aws.clients import AwsClients, AwsConfig

from tests.e2e.publishing import TIMES, published, run
from tests.support.callers import Callers
from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules

ON = {"versioned": ["a"]}
SHARDS = {"a": 2}
OFTEN = {"TIDEGATE_RECONCILE_INTERVAL_S": "1"}
LOOKS_S = 3.0
"""Longer than the stack lets pass between two reconciles."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("models"), "versioned")


@pytest.fixture(scope="module")
def stack(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    root = tmp_path_factory.mktemp("stack")
    rules = write_rules(root / "rules", SHARDS, ON, main="versioned/1")
    with running_stack(rules, models, root / "errors", variables=TIMES | OFTEN) as running:
        yield running
        assert "Traceback" not in running.errors


@pytest.fixture
def callers(stack: RunningStack) -> Iterator[Callers]:
    with Callers(stack, "main") as running:
        yield running
    assert running.failures == []
    assert set(running.answers) == {1}


class Bucket:
    """The bucket of a stack, for what nobody should do to it."""

    def __init__(self, stack: RunningStack) -> None:
        control = stack.get("/v1/fleet")["control"]
        self.name = control["bucket"]
        self.s3: Any = AwsClients(AwsConfig(endpoint_url=control["endpoint_url"], region="us-east-1")).client("s3")

    def empty(self) -> None:
        for found in self.s3.list_objects_v2(Bucket=self.name).get("Contents", ()):
            self.s3.delete_object(Bucket=self.name, Key=found["Key"])


def held(stack: RunningStack) -> list[set[str]]:
    return stack.models("a")


def is_well(stack: RunningStack) -> bool:
    return bool(stack.get("/v1/fleet")["healthy"])


def problems(stack: RunningStack) -> str:
    return " ".join(stack.get("/v1/fleet")["problems"])


def test_a_pointer_that_is_deleted_takes_nothing_down_and_is_recovered(stack: RunningStack, callers: Callers) -> None:
    assert eventually(lambda: is_well(stack))
    before, live = held(stack), stack.get("/v1/fleet")["revision"]
    bucket = Bucket(stack)
    bucket.s3.delete_object(Bucket=bucket.name, Key="live/pointer.json")
    bucket.s3.put_object(Bucket=bucket.name, Key="claims/damaged.json", Body=b"{")
    reconciled = run("reconcile", "--stack", stack.url)
    assert reconciled.returncode == 1
    assert "tidegate recover" in reconciled.stdout
    time.sleep(LOOKS_S)
    # A server that is too busy to answer for its health is left out for a moment.
    assert eventually(lambda: held(stack) == before)
    assert not is_well(stack)
    told = ("tidegate recover", "claims/damaged.json is damaged")
    assert eventually(lambda: all(each in problems(stack) for each in told)), problems(stack)
    recovered = run("recover", "--stack", stack.url, "--yes", "--json")
    assert recovered.returncode == 0, recovered.stdout + recovered.stderr
    assert json.loads(recovered.stdout)["status"] == "recovered"
    bucket.s3.delete_object(Bucket=bucket.name, Key="claims/damaged.json")
    assert eventually(lambda: is_well(stack)), problems(stack)
    assert stack.get("/v1/fleet")["revision"] == live


def test_an_emptied_bucket_takes_nothing_down(
    stack: RunningStack, callers: Callers, models: Path, tmp_path: Path
) -> None:
    assert eventually(lambda: is_well(stack))
    before = held(stack)
    Bucket(stack).empty()
    time.sleep(LOOKS_S)
    assert eventually(lambda: held(stack) == before)
    assert not is_well(stack)
    rules = write_rules(tmp_path / "rules", SHARDS, ON, main="versioned/1")
    arguments = ["publish", "--rules", str(rules), "--models", str(models), "--stack", stack.url]
    refused = run(*arguments)
    assert refused.returncode == 1
    assert "--start-over" in refused.stderr + refused.stdout
    done = run(*arguments, "--start-over")
    assert done.returncode == 0, done.stdout + done.stderr
    assert eventually(lambda: is_well(stack)), problems(stack)


def test_a_local_s3_that_hangs_or_dies_takes_nothing_down_and_is_filled_again(
    stack: RunningStack, callers: Callers, models: Path, tmp_path: Path
) -> None:
    assert eventually(lambda: is_well(stack))
    live = stack.get("/v1/fleet")["revision"]
    time.sleep(2)
    pid = local_aws(stack)
    os.kill(pid, signal.SIGSTOP)

    def seen() -> dict[str, Any]:
        fleet: dict[str, Any] = stack.get("/v1/fleet", late=True)  # which would end here if it waited for the store
        return fleet

    # A store that is late once in a while is not a problem.
    assert eventually(lambda: not seen()["healthy"])
    assert seen()["as_of"]
    assert eventually(lambda: "\ntidegate_healthy 0\n" in metrics(stack)), "an alert of it needs the scrape"
    os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: is_well(stack)), problems(stack)
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: local_aws(stack) not in (0, pid))
    assert eventually(lambda: is_well(stack) and len(held(stack)) == SHARDS["a"]), problems(stack)
    assert stack.get("/v1/fleet")["revision"] == live
    assert "runs again" in stack.errors
    assert published(stack, write_rules(tmp_path / "rules", SHARDS, ON, main="versioned/1"), models)["ok"]


def metrics(stack: RunningStack) -> str:
    request = urllib.request.Request(
        stack.url + "/metrics", headers={"Authorization": f"Bearer {stack.known.operator_token}"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return str(response.read().decode())


def local_aws(stack: RunningStack) -> int:
    """The process of the stack's local AWS; 0 where there is none."""
    for path in Path("/proc").iterdir():
        try:
            is_aws = path.name.isdecimal() and "tidegate.aws.local_server" in (path / "cmdline").read_text(
                errors="replace"
            )
            if is_aws and int((path / "stat").read_text().rpartition(")")[2].split()[1]) == stack.process.pid:
                return int(path.name)
        except (OSError, IndexError):
            continue
    return 0
