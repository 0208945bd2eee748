"""Envoy decides in its own process: which requests it asks no resolver about, and which it does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.core import Sample
from prometheus_client.parser import text_string_to_metric_families
from tidegate.bootstrap.in_process_place import REPORTS
from tidegate.bootstrap.resolver_process import METRICS
from tidegate.envoy.config import ADMIN, BOOTSTRAP
from tidegate.metrics.exposition import Format

from tests.support.processes import children_running, listener_pid
from tests.support.running_command import Command, envoy_beside
from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules

from .conftest import Reply, ask, context

MODULE = "tidegate.bootstrap.resolver_process"
INFER = "/v2/models/versions/infer"
TENSOR = {"name": "SLEEP_MS", "shape": [1], "datatype": "INT32", "data": [0]}
BODY = json.dumps({"inputs": [TENSOR]}).encode()
RULES = '[{id: north, when: {country: "NO"}, serve: versioned/2, fallback: [versioned/3]}, {id: default, serve: versioned/1}]'
CALLERS = "callers: {web: {objectives: '*'}, slow: {objectives: '*', rate_per_s: 0.01}}\n"
SECRET = "a-token-of-operators-that-envoy-does-not-get"
STOPPED_S = 10.0
WEB, SLOW = {"Tidegate-Caller": "web"}, {"Tidegate-Caller": "slow"}


@dataclass(frozen=True, slots=True)
class Plane:
    """A stack with Envoy beside it."""

    stack: RunningStack
    command: Command
    port: int
    folder: Path
    rules: Path

    def infer(self, headers: Mapping[str, str], path: str = INFER) -> Reply:
        return ask(self.port, path, headers, body=BODY)

    def asked(self) -> int:
        """How many requests Envoy has asked a resolver about."""
        stats = ask(self.folder / ADMIN, "/stats?format=json&filter=ext_authz.resolver", method="GET").json["stats"]
        found = {each["name"].rpartition(".")[2]: each.get("value", 0) for each in stats if "name" in each}
        return sum(found.get(name, 0) for name in ("ok", "denied", "error"))

    def decides(self, headers: Mapping[str, str] = WEB, count: int = 1) -> Reply | None:
        """Ask some times; the last answer, if Envoy decided all. On a busy machine it may have looked at the rules too long ago."""
        before = self.asked()
        found = [self.infer(headers) for _ in range(count)]
        assert {each.status for each in found} == {200}, found
        return found[-1] if self.asked() == before else None


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    folder = tmp_path_factory.mktemp("in_process")
    models = make_repository(folder / "models", "versioned")
    rules = write_rules(folder / "rules", {"alpha": 1}, {"versioned": ["alpha"]}, versions=RULES)
    (rules / "callers.yaml").write_text(CALLERS)
    with (
        running_stack(rules, models, folder / "up.log", "--follow", "unchecked") as stack,
        envoy_beside(stack.url, folder / "envoy", {"TIDEGATE_OPERATOR_TOKEN": SECRET}) as (running, port),
    ):
        assert "note:" not in running.errors
        plane = Plane(stack, running, port, folder / "envoy", rules)
        assert eventually(plane.decides)
        yield plane


def version(reply: Reply) -> int:
    assert reply.status == 200, reply
    return int(reply.json["outputs"][0]["data"][0])


def test_a_request_that_may_pass_asks_no_resolver(plane: Plane) -> None:
    for country, expected, host in (("NO", 2, "models.test:8088"), ("SE", 1, "[::1]:80"), ("SE", 1, "a-b_c.test")):
        headers = WEB | context(country=country) | {"Host": host}
        found = eventually(lambda headers=headers: plane.decides(headers))
        assert version(found) == expected
        assert found.headers["tidegate-model-version"] == str(expected)
        assert found.headers["tidegate-rule"] == ("north" if country == "NO" else "default")


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({}, INFER, 403),
        (WEB | context(country=1), INFER, 400),
        (WEB, "/v2/models/version%73/infer", 404),
        (WEB, "/v2/models/nothing/infer", 404),
        (WEB, "/v2/models/versions/load", 404),
        (WEB | {f"X-{number}": "x" for number in range(300)}, INFER, 431),
        (WEB, f"{INFER}?{9000 * 'a'}", 414),
        (WEB | {"Expect": "something"}, INFER, 417),
        *((WEB | {"Host": host}, INFER, 400) for host in ("u@h", "h:x", "[x", "[::1]x", "h:1:2")),
    ],
)
def test_a_resolver_refuses_what_may_not_pass(plane: Plane, headers: Mapping[str, str], path: str, status: int) -> None:
    before = plane.asked()
    assert plane.infer(headers, path).status == status
    assert plane.asked() == before + 1


def test_a_limit_is_counted_by_resolvers(plane: Plane) -> None:
    before = plane.asked()
    found = [plane.infer(SLOW) for _ in range(6)]
    # Each of two has a share, and lets one pass.
    assert sorted(each.status for each in found) == [200, 200, 429, 429, 429, 429]
    assert plane.asked() == before + 6


def test_without_resolvers_requests_are_decided_by_all_rules(plane: Plane) -> None:
    pid = plane.command.process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        for each in children_running(MODULE, pid):
            os.kill(each, signal.SIGKILL)
        found = eventually(lambda: (reply := plane.infer(WEB | context(country="NO"))).status == 200 and reply)
        assert version(found) == 2
        assert plane.infer(SLOW).status == 503
    finally:
        os.kill(pid, signal.SIGCONT)
    assert eventually(lambda: plane.infer(SLOW).status == 429)


def test_an_envoy_that_is_started_again_decides_too(plane: Plane) -> None:
    before = listener_pid(plane.port)
    os.kill(before, signal.SIGKILL)

    assert eventually(lambda: _answers(plane) and listener_pid(plane.port) != before)
    assert eventually(plane.decides)


def test_an_envoy_that_cannot_say_what_it_decides_by_asks_resolvers_until_it_can(plane: Plane) -> None:
    before, place = listener_pid(plane.port), plane.folder / REPORTS
    place.rename(place.with_name("away"))
    os.kill(before, signal.SIGKILL)
    try:
        assert eventually(lambda: _answers(plane) and listener_pid(plane.port) != before)
        asked = plane.asked()
        assert version(plane.infer(WEB | context(country="NO"))) == 2
        assert plane.asked() == asked + 1
    finally:
        place.with_name("away").rename(place)
    assert eventually(plane.decides)


def _answers(plane: Plane) -> bool:
    try:
        return plane.infer(WEB).status == 200
    except OSError:
        return False


def test_an_envoy_that_was_stopped_decides_by_the_live_rules(plane: Plane) -> None:
    pid = listener_pid(plane.port)
    os.kill(pid, signal.SIGSTOP)
    try:
        write_rules(plane.rules, {"alpha": 1}, {"versioned": ["alpha"]}, versions="versioned/3")
        time.sleep(STOPPED_S)
    finally:
        os.kill(pid, signal.SIGCONT)

    assert eventually(plane.decides)
    assert version(plane.infer(WEB)) == 3


def test_what_envoy_decides_is_in_the_metrics(plane: Plane) -> None:
    def samples() -> list[Sample]:
        text = (plane.folder / METRICS[Format.TEXT]).read_text()
        return [each for family in text_string_to_metric_families(text) for each in family.samples]

    def counted() -> float:
        wanted = "/authorize/v2/models/{objective}/infer", "200"
        return sum(
            each.value
            for each in samples()
            if each.name == "http_server_request_duration_seconds_count"
            and (each.labels["http_route"], each.labels["http_response_status_code"]) == wanted
        )

    assert eventually(lambda: {"envoy", "resolver-0"} <= {each.labels.get("process") for each in samples()})
    before = counted()
    assert eventually(lambda: plane.decides(count=5))
    assert eventually(lambda: counted() >= before + 5)


def test_what_decides_in_envoy_gets_no_secret(plane: Plane) -> None:
    written = (plane.folder / BOOTSTRAP).read_text()
    assert "TIDEGATE_OPERATOR_TOKEN" in written, "with its settings"
    assert SECRET not in written
    assert SECRET.encode() not in Path(f"/proc/{listener_pid(plane.port)}/environ").read_bytes()


def test_a_check_of_the_configuration_starts_no_python(plane: Plane) -> None:
    envoy = Path(sys.executable).with_name("envoy")
    checked = subprocess.run(
        [envoy, "--mode", "validate", "-c", plane.folder / BOOTSTRAP, "--log-level", "error"],
        capture_output=True,
        check=True,
    )
    assert b"Python" not in checked.stderr


@pytest.mark.parametrize(
    ("version_line", "variables", "note"),
    [
        ("envoy  version: 0a/1.41.2/Clean/RELEASE/BoringSSL", {}, "1.41 of Envoy, and the filter is for 1.40"),
        ("envoy", {}, "another version of Envoy"),
        (None, {"TIDEGATE_TRACING": "otlp"}, "spans are recorded by resolvers alone"),
    ],
)
def test_where_envoy_cannot_decide_a_note_says_so_and_resolvers_do(
    plane: Plane, tmp_path: Path, version_line: str | None, variables: dict[str, str], note: str
) -> None:
    envoy = Path(sys.executable).with_name("envoy")
    if version_line is not None:
        program = tmp_path / "envoy"
        program.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{version_line}" && exit\nexec {envoy} "$@"\n')
        program.chmod(0o755)
        envoy = program
    state = tmp_path / "state"
    beside = envoy_beside(plane.stack.url, state, variables, workers=1, options=["--envoy", str(envoy)])
    with beside as (running, port):
        other = Plane(plane.stack, running, port, state, plane.rules)
        assert version(other.infer(WEB)) in (1, 3)
        assert other.asked() == 1
        assert note in running.errors


@pytest.mark.parametrize("end", ["exit 1", "kill -SEGV $$"])
def test_where_envoy_refuses_the_filter_it_runs_without(plane: Plane, tmp_path: Path, end: str) -> None:
    envoy, program = Path(sys.executable).with_name("envoy"), tmp_path / "envoy"
    program.write_text(
        f'#!/bin/sh\nif [ "$1" = -c ] && grep -q dynamic_modules "$2"; then {end}; fi\nexec {envoy} "$@"\n'
    )
    program.chmod(0o755)
    state = tmp_path / "state"
    beside = envoy_beside(plane.stack.url, state, workers=1, options=["--envoy", str(program)])
    with beside as (running, port):
        other = Plane(plane.stack, running, port, state, plane.rules)
        assert version(other.infer(WEB)) in (1, 3)
        assert other.asked() == 1
        assert "it asks resolvers about every request now" in running.errors
