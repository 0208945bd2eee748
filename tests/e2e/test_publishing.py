"""The control plane end to end: the real command, on a running stack with real servers and stores."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.layout import bundle_key
from tidegate.aws.objects import Objects
from tidegate.ports import LiveEntry

from tests.e2e.publishing import TIMES, command, events, publish_arguments, published, run, write_ensemble
from tests.support.callers import Callers
from tests.support.model_folders import write_model
from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules

SHARDS = {"a": 2, "b": 1}
ON = {"versioned": ["b"], "first": ["a"], "second": ["a"], "third": ["a"], "slow": ["a"]}
NOT_PATIENT = {"TIDEGATE_STORE_TIMEOUT_S": "2"}
"""A store that hangs is soon found out."""

HELD = """import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        folder = Path(FOLDER)
        if not (folder / "tried").exists():
            (folder / "tried").touch()
            return
        while not (folder / "go_on").exists():
            time.sleep(0.05)

    def execute(self, requests):
        version = np.array([4], dtype=np.int32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("VERSION", version)]) for _ in requests]
"""
"""A model that loads on the scratch server, and on others only once a file is there."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_repository(tmp_path_factory.mktemp("models"), "versioned")
    with (folder / "versioned" / "config.pbtxt").open("a") as config:
        config.write("version_policy: { all {} }\n")
    write_ensemble(folder, "first", 1)
    write_ensemble(folder, "third", 3)
    return folder


@pytest.fixture(scope="module")
def stack(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    rules = write_rules(tmp_path_factory.mktemp("rules"), SHARDS, ON, main="first", other="versioned/1")
    log = tmp_path_factory.mktemp("log") / "errors"
    with running_stack(rules, models, log, variables=TIMES | NOT_PATIENT) as running:
        yield running
        assert "Traceback" not in running.errors


def rules_of(folder: Path, main: str) -> Path:
    return write_rules(folder, SHARDS, ON, main=main, other="versioned/1")


def test_a_new_variant_serves_within_seconds_of_one_command_and_no_caller_notices(
    stack: RunningStack, models: Path, tmp_path: Path
) -> None:
    with Callers(stack, "main") as callers, Callers(stack, "other", per_s=10) as others:
        assert eventually(lambda: len(callers.answers) > 10)
        began = time.monotonic()
        write_ensemble(models, "second", 2)
        result = published(stack, rules_of(tmp_path, "second"), models)
        assert result["activated"]["loaded"].keys() >= {"second"}
        assert eventually(lambda: 2 in callers.first)
        before = len(callers.answers)
        assert eventually(lambda: len(callers.answers) > before + 10)
    print(f"a new variant served {callers.first[2] - began:.1f} s after its folder was written")
    assert callers.failures == others.failures == []
    assert callers.answers[-1] == 2
    assert set(others.answers) == {1}


def test_a_server_that_is_killed_during_a_load_fails_the_publish_and_nothing_else(
    stack: RunningStack, models: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("held")
    config = (models / "versioned" / "config.pbtxt").read_bytes().replace(b"versioned", b"slow")
    held = HELD.replace("FOLDER", repr(str(folder)))
    write_model(models / "slow", {"config.pbtxt": config, "1/model.py": held.encode()})
    published(stack, rules_of(tmp_path, "third"), models)
    assert eventually(lambda: stack.version("main") == 3)
    with (
        Callers(stack, "main", per_s=20) as callers,
        command(*publish_arguments(stack, rules_of(tmp_path, "slow"), models)) as process,
    ):
        url = ""
        for event in events(process):
            if (
                event["event"] == "step"
                and event["step"] == "load"
                and event.get("text", "").startswith("loading slow")
            ):
                url = event["text"].partition(" on ")[2].split(" ")[0]
                (pid,) = [each["pid"] for each in stack.fleet()["a"] if each["url"] == url]
                os.kill(pid, signal.SIGKILL)
                (folder / "go_on").touch()
            last = event
        assert url, last
        assert process.wait() == 1
        assert last["ok"] is False
        assert last["step"] == "load"
        assert url in last["error"]
        assert "slow" in last["error"]
        assert "publish again" in last["error"]
        assert stack.version("main") == 3
        assert eventually(lambda: len(stack.models("a")) == 2 and all("third/1" in held for held in stack.models("a")))
        published(stack, rules_of(tmp_path, "slow"), models)
        assert eventually(lambda: stack.version("main") == 4)
    assert callers.failures == []


def test_a_store_that_hangs_is_told_and_changes_nothing_for_callers(
    stack: RunningStack, models: Path, tmp_path: Path
) -> None:
    before = stack.version("main")
    (aws,) = children(stack, "tidegate.aws.local_server")
    named = stores(stack)
    with Callers(stack, "main", per_s=20) as callers:
        os.kill(aws, signal.SIGSTOP)
        try:
            failed = run(*publish_arguments(stack, rules_of(tmp_path, "first"), models)[:-2], *named, **NOT_PATIENT)
            fleet = eventually(lambda: in_state(stack, "failing"))
            assert stack.version("main") == before
        finally:
            os.kill(aws, signal.SIGCONT)
        assert fleet["source"]["age_s"] > 1
        assert fleet["source"]["failures"] > 0
        assert failed.returncode == 1, failed.stdout + failed.stderr
        assert "Traceback" not in failed.stderr
        assert "did not answer" in failed.stderr
        assert eventually(lambda: stack.get("/v1/fleet")["source"]["state"] == "current")
        published(stack, rules_of(tmp_path, "first"), models)
        assert eventually(lambda: stack.version("main") == 1)
    assert callers.failures == []


def in_state(stack: RunningStack, state: str) -> Any:
    """The fleet, where the gateway's source is in a state."""
    fleet = stack.get("/v1/fleet", late=True)
    return fleet if fleet["source"]["state"] == state else None


def test_a_damaged_bundle_is_not_served_and_the_next_publish_mends_it(
    stack: RunningStack, models: Path, tmp_path: Path
) -> None:
    third = published(stack, rules_of(tmp_path, "third"), models)
    damaged = f"{third['revision']}.{third['resolution']}"
    served = published(stack, rules_of(tmp_path, "first"), models)["revision"]
    assert eventually(lambda: stack.get("/v1/fleet")["revision"] == served)
    bundles = Bundles(stack)
    with Callers(stack, "main", per_s=20) as callers:
        # As where somebody wrote to the bucket between a flip and the gateway's next look.
        bundles.damage(damaged)
        bundles.flip(damaged)
        fleet = eventually(lambda: in_state(stack, "damaged"))
        assert fleet["revision"] == served
        assert damaged[:12] in fleet["source"]["last_error"]
        told = run("status", "--json", *stores(stack))
        assert told.returncode == 1
        assert any(damaged[:12] in problem for problem in json.loads(told.stdout)["problems"])
        time.sleep(3)  # the local stack reconciles meanwhile
        assert stack.version("main") == 1
        assert published(stack, rules_of(tmp_path, "third"), models)["resolution"] == third["resolution"]
        assert eventually(lambda: stack.version("main") == 3)
        assert eventually(lambda: in_state(stack, "current"))
    assert callers.failures == []


class Bundles:
    """The bundle store of a stack, for what nobody should do to it."""

    def __init__(self, stack: RunningStack) -> None:
        control = stack.get("/v1/fleet")["control"]
        config = AwsConfig(endpoint_url=control["endpoint_url"], region=control["region"])
        self._objects = Objects(AwsClients(config), control["bucket"])

    def damage(self, revision: str) -> None:
        assert asyncio.run(self._objects.put(bundle_key(revision), b"damaged"))

    def flip(self, revision: str) -> None:
        async def work() -> None:
            store = S3BundleStore(self._objects)
            pointer = await store.pointer()
            assert pointer is not None
            await store.flip(LiveEntry(revision, pointer.live.sequence + 1, "somebody", time.time()), pointer)

        asyncio.run(work())


def stores(stack: RunningStack) -> list[str]:
    """The options that name a stack's stores."""
    control = stack.get("/v1/fleet")["control"]
    options = ("endpoint-url", "bucket", "registry-table", "region")
    return [text for each in options for text in (f"--{each}", control[each.replace("-", "_")])]


def children(stack: RunningStack, module: str) -> list[int]:
    """The processes of a stack that run a module."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                status, line = (path / "stat").read_text(), (path / "cmdline").read_text(errors="replace")
            except OSError:
                continue
            if int(status.rpartition(")")[2].split()[1]) == stack.process.pid and module in line:
                found.append(int(path.name))
    return found
