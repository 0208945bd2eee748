"""What does not hold up the next rules or the other processes: clusters that never become active, and half a report; and what does."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from tidegate.bootstrap.resolver_places import Places
from tidegate.bootstrap.resolvers import Resolvers
from tidegate.bootstrap.saved_bundle import NAME
from tidegate.envoy.config import CLUSTERS
from tidegate.rules.bundle import revision_of
from tidegate.settings import Settings
from tidegate.tasks import cancel

from tests.support.processes import children_running, reserve_port
from tests.support.running_command import command
from tests.support.stack import eventually

from .conftest import FLEET, RANKING, Store, ask, context, write_directory

RESOLVER = "tidegate.bootstrap.resolver_process"


def _program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_rules_whose_clusters_never_become_active_do_not_hold_up_the_next(store: Store, tmp_path: Path) -> None:
    rules = write_directory(tmp_path / "rules", ranking=RANKING)
    store.publish(rules)
    # It never says that any is active.
    program = _program(tmp_path / "envoy", "exec sleep 600")
    state = tmp_path / "state"

    def clusters() -> set[str]:
        found = json.loads((state / CLUSTERS).read_text()) if (state / CLUSTERS).exists() else {"resources": []}
        return {each["name"] for each in found["resources"]}

    arguments = ["--port", str(reserve_port()), "--state", str(state), "--workers", "1", "--envoy", str(program)]
    with command(tmp_path / "log", "envoy", "run", *arguments, variables=store.variables()) as running:
        assert eventually(lambda: "alpha+beta" in clusters()), running.errors
        for fleet, name in (("[beta, alpha]", "beta+alpha"), ("[alpha]", "alpha")):
            (rules / "fleet.yaml").write_text(FLEET.replace("[alpha, beta]", fleet))
            store.publish(rules)
            assert eventually(lambda name=name: name in clusters()), running.errors
        # Those of the rules that are served are still there.
        assert "alpha+beta" in clusters()
        assert "beta+alpha" not in clusters()


def test_clusters_stay_until_no_resolver_decides_by_them(store: Store, tmp_path: Path) -> None:
    rules = write_directory(tmp_path / "rules", ranking=RANKING)
    state = tmp_path / "state"

    def publish(shards: str) -> str:
        (rules / "fleet.yaml").write_text(FLEET.replace("[alpha, beta]", shards))
        return store.publish(rules)

    def clusters() -> set[str]:
        return {each["name"] for each in json.loads((state / CLUSTERS).read_text())["resources"]}

    publish("[alpha, beta]")
    arguments = ["--port", str(reserve_port()), "--state", str(state), "--workers", "2"]
    with command(tmp_path / "log", "envoy", "run", *arguments, variables=store.variables()) as running:
        running.wait_ready()
        stopped, _ = children_running(RESOLVER, running.process.pid)
        os.kill(stopped, signal.SIGSTOP)
        second = publish("[beta, alpha]")
        assert eventually(lambda: revision_of((state / NAME).read_bytes()) == second), running.errors
        third = publish("[alpha]")
        assert eventually(lambda: f"serving revision {third[:12]}" in running.errors)
        # Time to take over the third, which the stopped one must prevent.
        time.sleep(1)
        assert "alpha+beta" in clusters()
        os.kill(stopped, signal.SIGCONT)
        assert eventually(lambda: "alpha+beta" not in clusters()), running.errors
        assert {"beta+alpha", "alpha"} <= clusters()


def test_what_only_a_gateway_does_is_logged_once(store: Store, tmp_path: Path) -> None:
    rules = write_directory(tmp_path / "rules", ranking=RANKING + "limits: {concurrency: 2}\n")
    store.publish(rules)
    arguments = ["--port", str(reserve_port()), "--state", str(tmp_path / "state"), "--workers", "1"]
    with command(tmp_path / "log", "envoy", "run", *arguments, variables=store.variables()) as running:
        running.wait_ready()
        objective = rules / "objectives" / "ranking.yaml"
        objective.write_text(objective.read_text().replace("serve: first/1", "serve: second/1"))
        second = store.publish(rules)
        assert eventually(lambda: revision_of((tmp_path / "state" / NAME).read_bytes()) == second), running.errors
    assert running.errors.count("has limits.concurrency, which only a gateway carries out") == 1


def test_what_it_prints_is_its_address(store: Store, tmp_path: Path) -> None:
    store.publish(write_directory(tmp_path / "rules", ranking=RANKING))
    port = reserve_port()
    arguments = ["--host", "::1", "--port", str(port), "--state", str(tmp_path / "state"), "--workers", "1"]
    with command(tmp_path / "log", "envoy", "run", *arguments, variables=store.variables()) as running:
        (address,) = running.wait_ready()
        assert address == f"http://[::1]:{port}"
        with urllib.request.urlopen(f"{address}/v2/health/ready", timeout=60) as answer:
            assert answer.status == 200
        assert running.stop() == 0


def test_its_standard_output_is_no_log(store: Store, tmp_path: Path) -> None:
    arguments = ["--port", str(reserve_port()), "--state", str(tmp_path / "state"), "--workers", "1"]
    variables = store.variables() | {"TIDEGATE_ACCESS_LOG": "stdout"}
    with command(tmp_path / "log", "envoy", "run", *arguments, variables=variables) as running:
        assert running.process.wait(60) == 1
        assert "TIDEGATE_ACCESS_LOG must be a path or off" in running.errors


def test_it_is_ready_once_there_are_rules(store: Store, tmp_path: Path) -> None:
    port = reserve_port()
    arguments = ["--port", str(port), "--state", str(tmp_path / "state"), "--workers", "1"]
    with command(tmp_path / "log", "envoy", "run", *arguments, variables=store.variables()) as running:
        assert eventually(lambda: "nothing was ever published, there is nothing to serve yet" in running.errors)
        assert select.select([running.process.stdout], [], [], 3)[0] == []
        store.publish(write_directory(tmp_path / "rules", ranking=RANKING))
        running.wait_ready()
        # No server is registered, and the rules are served.
        assert ask(port, "/v2/models/ranking/infer", context()).json["error"].startswith("attribute 'member_id'")
    with command(tmp_path / "log", "envoy", "run", *arguments, variables=store.variables()) as running:
        running.wait_ready()
        assert "nothing was ever published" not in running.errors


def test_a_folder_that_cannot_be_prepared_is_named(store: Store, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "rds").write_text("")
    arguments = ["--port", str(reserve_port()), "--state", str(state)]
    with command(tmp_path / "log", "envoy", "run", *arguments, variables=store.variables()) as running:
        assert running.process.wait(60) == 1
        assert running.errors.splitlines() == [f"error: {state / 'rds'} cannot be created: File exists"]


@pytest.mark.parametrize("text", ["exit 0", "echo no such library >&2; exit 3"])
def test_a_program_that_never_serves_ends_the_command(store: Store, tmp_path: Path, text: str) -> None:
    program = _program(tmp_path / "envoy", text)
    arguments = ["--port", str(reserve_port()), "--state", str(tmp_path / "state"), "--envoy", str(program)]
    with command(tmp_path / "log", "envoy", "run", *arguments, variables=store.variables()) as running:
        assert running.process.wait(60) == 1
        code = text.rpartition(" ")[2]
        assert (
            f"error: {program} ended with {code} before it was ready: see what it printed, if it is Envoy"
            in running.errors
        )
        assert children_running(RESOLVER, running.process.pid) == []


@pytest.mark.parametrize("report", ['{"revision": "a", "la', '{"revision": \\n'])
def test_half_a_report_is_the_end_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: str) -> None:
    monkeypatch.setattr(sys, "executable", str(_program(tmp_path / "python", f"printf '{report}'")))

    async def restarts() -> int:
        resolvers = Resolvers(Settings.from_environment({}), tmp_path, Places(), 1)
        running = asyncio.create_task(resolvers.run())
        async with asyncio.timeout(60):
            while resolvers.restarts < 2 and not running.done():
                await resolvers.changed()
        ended = running.done() and running.exception()
        await cancel(running)
        assert not ended
        return resolvers.restarts

    assert asyncio.run(restarts()) >= 2
