"""Envoy under constant load: no request fails while rules, servers, resolvers and the store change."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tidegate.envoy.config import ADMIN

from tests.support.running_command import Command, envoy_beside, resolvers_of
from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules

from .conftest import ask, context

INFER = "/v2/models/versions/infer"
TENSOR = {"name": "SLEEP_MS", "shape": [1], "datatype": "INT32", "data": [0]}
BODY = json.dumps({"inputs": [TENSOR]}).encode()
CALLERS = 3
UNLOADED_SOON = {"TIDEGATE_KEEP_REVISIONS": "0", "TIDEGATE_DRAIN_TIMEOUT_S": "2"}
"""What a revision does not need is unloaded at once: a request that comes too late would fail."""

PLACES = {"versioned": ["alpha"], "echo_parameters": ["alpha"]}


@dataclass(slots=True)
class Load:
    """Callers that ask again and again, each on a connection that it keeps."""

    port: int
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    seen: set[tuple[str | None, str | None]] = field(default_factory=set)
    """The model's version and the shard of the answers."""

    _stopping: threading.Event = field(default_factory=threading.Event)

    def run(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        while not self._stopping.is_set():
            try:
                connection.request("POST", INFER, BODY, context(member_id=str(number)))
                answer = connection.getresponse()
                body = answer.read()
            except OSError as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            if answer.status != 200:
                self.failures.append(f"{answer.status} {body!r} {dict(answer.getheaders())}")
            self.answered += 1
            self.seen.add((answer.getheader("tidegate-model-version"), answer.getheader("tidegate-shard")))
            self._stopping.wait(0.005)

    def more(self, count: int = 30) -> None:
        """Wait for further answers."""
        wanted = self.answered + count
        assert eventually(lambda: self.answered >= wanted, most_s=0.1)

    def stop(self) -> None:
        self._stopping.set()


def admin_figures(state: Path) -> list[str]:
    """What Envoy counted of the resolvers and of what failed: why a request has failed."""
    lines = ask(state / ADMIN, "/stats?usedonly", method="GET").body.decode().splitlines()
    return [line for line in lines if line.startswith(("cluster.resolver.", "http.tidegate.ext_authz"))]


@contextmanager
def loaded(port: int, state: Path) -> Iterator[Load]:
    """Ask for as long as a block lasts; at its end, no request has failed."""
    load = Load(port)
    threads = [threading.Thread(target=load.run, args=(number,), daemon=True) for number in range(CALLERS)]
    for each in threads:
        each.start()
    try:
        load.more()
        yield load
    finally:
        load.stop()
        for each in threads:
            each.join(150)
    if load.failures:
        pytest.fail("\n".join([*load.failures, *admin_figures(state)]))


@dataclass(frozen=True, slots=True)
class Plane:
    stack: RunningStack
    command: Command
    port: int
    rules: Path
    state: Path

    def serve(self, target: str, shards: dict[str, int], placement: dict[str, list[str]], fallback: str = "") -> None:
        """Publish other rules, and wait until Envoy serves them."""
        before = self.revision()
        extra = f", fallback: [{fallback}]" if fallback else ""
        write_rules(self.rules, shards, placement, versions=f"[{{id: default, serve: {target}{extra}}}]")
        assert eventually(lambda: self.revision() not in (None, before)), self.command.errors

    def revision(self) -> str | None:
        return ask(self.port, INFER, body=BODY).headers.get("tidegate-revision")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("load")
    models = make_repository(folder / "models", "versioned", "echo_parameters")
    rules = write_rules(folder / "rules", {"alpha": 1}, PLACES, versions="[{id: default, serve: versioned/1}]")
    with (
        running_stack(rules, models, folder / "up.log", "--follow", "unchecked", variables=UNLOADED_SOON) as stack,
        envoy_beside(stack.url, folder / "envoy", workers=2) as (running, port),
    ):
        yield Plane(stack, running, port, rules, folder / "envoy")


def test_rules_change_again_and_again(plane: Plane) -> None:
    with loaded(plane.port, plane.state) as load:
        for target, fallback in (
            ("versioned/2", ""),
            ("versioned/1", "versioned/3"),
            ("versioned/3", ""),
            ("versioned/1", ""),
        ):
            plane.serve(target, {"alpha": 1}, PLACES, fallback)
            load.more()
    assert {version for version, _ in load.seen} == {"1", "2", "3"}


def test_a_shard_is_added_and_removed(plane: Plane) -> None:
    with loaded(plane.port, plane.state) as load:
        plane.serve("versioned/1", {"alpha": 1, "beta": 1}, {**PLACES, "versioned": ["beta"]})
        assert eventually(lambda: ("1", "beta") in load.seen)
        load.more()
        plane.serve("versioned/2", {"alpha": 1}, PLACES)
        load.more()
        assert eventually(lambda: "beta" not in plane.stack.fleet())
        load.more()
    assert {shard for _, shard in load.seen} == {"alpha", "beta"}


def test_a_resolver_of_several_is_killed(plane: Plane, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with (
        envoy_beside(plane.stack.url, state, workers=2, options=["--no-in-process"]) as (_, port),
        loaded(port, state) as load,
    ):
        # A process listens once it has rules.
        before = eventually(lambda: len(found := resolvers_of(state)) == 2 and found)
        os.kill(before[0], signal.SIGKILL)
        assert eventually(lambda: len({*resolvers_of(state)} - {before[0]}) == 2)
        load.more()
