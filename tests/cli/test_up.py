"""`tidegate up` and `tidegate status` as a user meets them, on the real Triton."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.callers import Callers
from tests.support.commands import tidegate
from tests.support.findings import without_columns
from tests.support.stack import (
    RunningStack,
    eventually,
    make_repository,
    ready,
    running_stack,
    started_stack,
    write_rules,
)

PAIR = {
    "inputs": [
        {"name": name, "shape": [1, 16], "datatype": "INT32", "data": list(range(16))} for name in ("INPUT0", "INPUT1")
    ]
}
LOAD_TIMEOUT = ("--load-timeout-s", "20")
"""Short, for the models that hang; long enough for the others on a busy machine."""


UNLOADED_SOON = {"TIDEGATE_KEEP_REVISIONS": "0", "TIDEGATE_DRAIN_TIMEOUT_S": "2"}
"""No revision is kept for a rollback, so that what no rule reaches is seen to go."""

TRIED = "publish: try done"
UNDER_WAY_MS = 15_000
"""A request that takes longer than it takes to make a model live once it was tried, and less than a server that seems to hang is
given."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = ("simple", "simple_string", "simple_pipeline", "versioned", "versioned_pipeline", "refused", "hangs")
    return make_repository(tmp_path_factory.mktemp("models"), *names)


def objectives(target: Path, **serves: str) -> Path:
    """Two shards: `a` with two replicas, `b` with one."""
    placement = {
        "simple": ["a"],
        "simple_pipeline": ["b"],
        "versioned": ["a", "b"],
        "versioned_pipeline": ["b"],
        "refused": ["a"],
        "hangs": ["a"],
    }
    return write_rules(target, {"a": 2, "b": 1}, placement, **serves)


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return objectives(
        tmp_path_factory.mktemp("rules"), addition="simple", pipeline="simple_pipeline", picked="versioned/2"
    )


@pytest.fixture(scope="module")
def stack(rules: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """One stack for the tests that leave it as they found it."""
    with running_stack(rules, models, tmp_path_factory.mktemp("log") / "errors") as running:
        yield running


def test_it_says_ready_in_one_line_and_serves_every_objective(stack: RunningStack) -> None:
    status, answer = stack.post("/v2/models/addition/infer", PAIR)
    assert status == 200
    assert {output["name"]: output["data"] for output in answer["outputs"]} == {
        "OUTPUT0": [2 * number for number in range(16)],
        "OUTPUT1": [0] * 16,
    }
    status, answer = stack.post("/v2/models/pipeline/infer", PAIR)
    assert (status, answer["outputs"][0]["data"]) == (200, [2 * number for number in range(16)])
    assert stack.version("picked") == 2


def test_each_shard_holds_what_its_targets_need_and_nothing_else(stack: RunningStack) -> None:
    # A server that is too busy to answer for its health is left out for a moment.
    assert eventually(lambda: stack.models("a") == [{"simple/1", "versioned/2"}] * 2)
    assert eventually(lambda: stack.models("b") == [{"simple/1", "simple_pipeline/1", "versioned/2"}])


def test_the_fleet_shows_how_the_gateway_sees_its_endpoints(stack: RunningStack) -> None:
    assert stack.post("/v2/models/pipeline/infer", PAIR)[0] == 200
    servers = {endpoint["url"] for endpoint in (*stack.fleet()["a"], *stack.fleet()["b"])}

    def looked_at() -> list[dict[str, Any]]:
        """The endpoints once their queues are known, from the second look on, and a second after the request's answer."""
        found: list[dict[str, Any]] = stack.get("/v1/fleet")["gateway"]["endpoints"]
        answered = any(
            (place["usual_ms"] or 0) > 0 and not place["in_flight"] for each in found for place in each["places"]
        )
        return found if answered and all(each["queue"] is not None for each in found) else []

    seen = eventually(looked_at)
    assert seen
    assert {each["url"] for each in seen} <= servers
    (place,) = [place for each in seen for place in each["places"] if place["model"] == "simple_pipeline"]
    assert place["usual_ms"] > 0
    assert (place["in_flight"], place["is_open"], place["ejected_until"]) == (0, False, None)
    assert all(0.0 <= each["queue"] < 1.0 for each in seen), "a request or less waits"


PASSING = ("seen_at", "silent_s", "lag_ms", "queue", "share", "usual_ms", "limit")


def lasting(value: Any) -> Any:
    """JSON values without what says when something was heard of last, and how it was then."""
    if isinstance(value, dict):
        return {key: lasting(each) for key, each in value.items() if key not in PASSING}
    return [lasting(each) for each in value] if isinstance(value, list) else value


def test_status_shows_the_fleet_as_a_table_and_as_json(stack: RunningStack) -> None:
    fleet = json.loads(tidegate("status", "--url", stack.url, "--json").stdout)
    assert fleet.pop("format_version") == 1
    told = stack.get("/v1/fleet")
    passing = {"source": None, "gateways": None, "as_of": None}
    assert lasting(fleet | passing) == lasting(told | passing)
    assert fleet["source"]["state"] == told["source"]["state"] == "current"
    assert fleet["objectives"] == 3
    assert fleet["rules"] == {"last_rejected": None}
    table = tidegate("status", "--url", stack.url + "/").stdout
    for endpoint in stack.fleet()["a"]:
        assert endpoint["url"] in table
        assert str(endpoint["pid"]) in table
    assert "simple_pipeline" in table


def test_a_server_that_is_killed_comes_back_with_its_models(stack: RunningStack) -> None:
    victim = stack.fleet()["a"][0]["pid"]
    server = next(each for each in stack.servers() if each.pid == victim)
    with Callers(stack, "picked", sleep_ms=5) as callers:
        os.kill(victim, signal.SIGKILL)
        assert eventually(
            lambda: (
                victim not in {endpoint["pid"] for endpoint in stack.fleet()["a"]}
                and stack.models("a") == [{"simple/1", "versioned/2"}] * 2
            )
        )
    assert callers.answers
    assert callers.failures == []
    assert eventually(lambda: not server.leftovers()), server.leftovers()
    fleet = eventually(lambda: (found := stack.get("/v1/fleet"))["healthy"] and found)
    (restarted,) = fleet["since_start"]["restarts"]
    assert (restarted["shard"], restarted["count"]) == ("a", 1)
    assert {endpoint["state"] for endpoint in stack.fleet()["a"]} == {"ready"}
    assert "restart 1 here" in stack.errors
    shown = " ".join(tidegate("status", "--url", stack.url).stdout.split())
    assert "healthy, but was degraded lately" in shown
    assert "degraded: a server of shard a was replaced once" in shown


def test_the_start_shows_what_it_does_and_ends_with_a_request_that_is_answered(stack: RunningStack) -> None:
    assert re.search(r"starting a stack of \S+rules\S* and ", stack.errors.splitlines()[0])
    assert len(re.findall("shard a: starting a Triton server", stack.errors)) >= 2
    assert re.search(r"loading \S+ on http://127\.0\.0\.1:\d+ of shard 'b' \(1 of \d\)", stack.errors)
    assert eventually(lambda: "Changes of " in stack.errors)
    pasted = next(line for line in stack.errors.splitlines() if line.startswith("  curl "))
    done = subprocess.run(["bash", "-c", f"{pasted} --fail"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert f"tidegate status --stack {stack.url}" in stack.errors
    assert stack.output == f"ready {stack.url}\n"


def test_two_stacks_run_side_by_side_and_an_interrupt_leaves_nothing(
    stack: RunningStack, models: Path, tmp_path: Path
) -> None:
    rules = write_rules(tmp_path / "rules", {"a": 1}, {"versioned": ["a"]}, own="versioned")
    with running_stack(rules, models, tmp_path / "errors") as second:
        assert second.version("own") == 3
        assert stack.version("picked") == 2
        assert second.stop(signal.SIGINT) == 0
        assert "WARNING" not in second.errors.partition("stopping")[2], second.errors
        assert second.leftovers() == []
        assert second.output.count("\n") == 1
    assert stack.version("picked") == 2


def test_a_server_that_is_wedged_does_not_hold_up_the_end(models: Path, tmp_path: Path) -> None:
    rules = write_rules(tmp_path / "rules", {"a": 2, "b": 1}, {"versioned": ["a", "b"]}, own="versioned")
    with running_stack(rules, models, tmp_path / "errors") as stack:
        assert stack.version("own") == 3
        os.killpg(stack.fleet()["a"][0]["pid"], signal.SIGSTOP)
        waiting = [threading.Thread(target=_ignore_failure, args=(stack,)) for _ in range(4)]
        for thread in waiting:
            thread.start()
        time.sleep(0.3)  # some of them wait for the wedged server by now
        assert stack.stop(signal.SIGTERM) == 0
        assert stack.leftovers() == []
        for thread in waiting:
            thread.join()


def _ignore_failure(stack: RunningStack) -> None:
    with contextlib.suppress(AssertionError, OSError, ValueError, http.client.HTTPException):
        stack.version("own")


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_start_is_interrupted_once_however_often_an_impatient_user_signals(
    models: Path, tmp_path: Path, number: int, exit_code: int
) -> None:
    rules = write_rules(tmp_path / "rules", {"a": 1}, {"hangs": ["a"]}, own="hangs")
    with started_stack(rules, models, tmp_path / "errors") as stack:
        assert eventually(lambda: re.search(r"loading hangs/\S+ on ", stack.errors)), stack.errors
        stack.process.send_signal(number)
        # Two signals that wait for a busy process come in the order of their numbers.
        assert eventually(lambda: " stopping\n" in stack.errors), stack.errors
        assert stack.stop(signal.SIGINT) == exit_code
        assert ("error: interrupted before the stack was ready" in stack.errors) is (exit_code == 130)
        assert stack.leftovers() == []
        assert stack.output == ""


def test_a_model_that_hangs_ends_the_start_with_an_error_that_names_it(models: Path, tmp_path: Path) -> None:
    rules = write_rules(tmp_path / "rules", {"a": 1}, {"hangs": ["a"], "simple": ["a"]}, own="hangs", other="simple")
    with started_stack(rules, models, tmp_path / "errors", *LOAD_TIMEOUT) as stack:
        eventually(stack.servers)
        assert stack.wait_exit() == 1
        error = stack.errors.partition("error:")[2]
        assert re.search(r"model 'hangs' on \S+ of shard 'a': did not finish loading within 20 s", error)
        assert "'simple'" not in error
        assert "Traceback" not in stack.errors
        assert stack.leftovers() == []


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("absent", "target 'absent' needs model 'absent', but"),
        ("refused", "the artefact is damaged on purpose"),
    ],
)
def test_a_model_that_cannot_be_served_is_named_at_once(models: Path, tmp_path: Path, model: str, message: str) -> None:
    rules = write_rules(tmp_path / "rules", {"a": 1}, {model: ["a"]}, own=model)
    with started_stack(rules, models, tmp_path / "errors") as stack:
        assert stack.wait_exit() == 1
        assert message in stack.errors
        assert "Traceback" not in stack.errors
        assert stack.output == ""


def test_models_with_errors_end_the_start_before_any_server(tmp_path: Path) -> None:
    """Triton itself would answer "failed to poll from model repository", half a minute later."""
    broken = ("no_model_py", "no_class", "simple_pipeline")
    models = make_repository(tmp_path / "models", "simple", *broken)
    with (models / "simple_pipeline/config.pbtxt").open("a") as config:
        config.write("instance_group [ { kind: KIND_CPU count: 2 } ]\n")
    line = len((models / "simple_pipeline/config.pbtxt").read_text().splitlines())
    rules = write_rules(
        tmp_path / "rules", {"a": 1}, {name: ["a"] for name in broken}, **{name: name for name in broken}
    )
    with started_stack(rules, models, tmp_path / "errors") as stack:
        assert stack.wait_exit() == 1
        for message in (
            "no_model_py/1: error[artefact-missing]: model.py is missing",
            "no_class/1/model.py:1: error[python-class]: there is no class TritonPythonModel",
            f"simple_pipeline/config.pbtxt:{line}: error[ensemble-forbidden]: ",
        ):
            assert message in stack.errors
        assert "Traceback" not in stack.errors
        assert stack.servers() == []
        assert stack.output == ""


@pytest.mark.parametrize("option", ["--port", "--grpc-port"])
def test_a_port_that_is_taken_is_named(models: Path, rules: Path, tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = str(taken.getsockname()[1])
        with started_stack(rules, models, tmp_path / "errors", option, port) as stack:
            assert stack.wait_exit() == 1
            assert f"port {port} of 127.0.0.1 cannot be used" in stack.errors
            assert f"{option} 0 takes a free one" in stack.errors


def test_rules_that_do_not_compile_end_the_start_with_their_findings(models: Path, tmp_path: Path) -> None:
    rules = write_rules(tmp_path / "rules", {"a": 1}, {"simple": ["a"]}, own="simpel")
    with started_stack(rules, models, tmp_path / "errors") as stack:
        assert stack.wait_exit() == 1
        assert "objectives/own.yaml:6: rule 'default'" in without_columns(stack.errors)
        assert "Traceback" not in stack.errors


def test_wrong_usage_exits_with_2_and_a_failure_with_1() -> None:
    assert tidegate("up", "--rules", "nowhere", "--models", "nowhere").returncode == 2
    assert tidegate("status", "--url", "file:///etc/hostname").returncode == 2
    unreachable = tidegate("status", "--url", "http://127.0.0.1:9")
    assert (unreachable.returncode, unreachable.stdout) == (1, "")
    assert "http://127.0.0.1:9" in unreachable.stderr
    assert tidegate("--version").stdout.startswith("tidegate, version ")
    assert "status" in tidegate("--help").stdout


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return objectives(tmp_path_factory.mktemp("edited"), picked="versioned/2")


@pytest.fixture(scope="module")
def running(edited: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    log = tmp_path_factory.mktemp("log") / "errors"
    with running_stack(edited, models, log, *LOAD_TIMEOUT, variables=UNLOADED_SOON) as running:
        yield running


@pytest.fixture
def fresh(running: RunningStack, edited: Path) -> RunningStack:
    """A stack whose rules may be edited; they begin as `versioned/2` on both shards."""
    objectives(edited, picked="versioned/2")

    def settled() -> bool:
        fleet = running.get("/v1/fleet")
        held = [ready(fleet, shard) for shard in ("a", "b")]
        return held == [[{"versioned/2"}] * 2, [{"versioned/2"}]] and fleet["rules"]["last_rejected"] is None

    assert eventually(settled), running.errors
    return running


def test_a_new_version_goes_live_without_a_failed_request(fresh: RunningStack, edited: Path) -> None:
    with Callers(fresh, "picked", sleep_ms=5) as callers:
        for version in (1, 3, 2):
            objectives(edited, picked=f"versioned/{version}")
            assert eventually(lambda v=version: callers.answers[-1:] == [v])
        assert eventually(lambda: fresh.models("a") == [{"versioned/2"}] * 2)
    assert callers.failures == []
    assert set(callers.answers) == {1, 2, 3}


def test_pinned_and_open_versions_are_served_together(fresh: RunningStack, edited: Path) -> None:
    objectives(edited, picked="[{id: us, when: {country: US}, serve: versioned/1}, {id: rest, serve: versioned}]")
    assert eventually(lambda: fresh.version("picked") == 3)
    assert fresh.version("picked", country="US") == 1
    assert eventually(lambda: fresh.models("a") == [{"versioned/1", "versioned/3"}] * 2)


def test_an_ensembles_pinned_step_is_loaded_with_it(fresh: RunningStack, edited: Path) -> None:
    objectives(
        edited, picked="[{id: us, when: {country: US}, serve: versioned_pipeline}, {id: rest, serve: versioned}]"
    )
    assert eventually(lambda: fresh.version("picked", country="US") == 2 and fresh.version("picked") == 3)
    assert eventually(lambda: fresh.models("b") == [{"versioned_pipeline/1", "versioned/2", "versioned/3"}])


def test_a_request_under_way_keeps_its_model(fresh: RunningStack, edited: Path) -> None:
    answers: list[int] = []
    caller = threading.Thread(target=lambda: answers.append(fresh.version("picked", sleep_ms=UNDER_WAY_MS)))
    tried, live = fresh.errors.count(TRIED), fresh.get("/v1/fleet")["revision"]
    objectives(edited, picked="versioned/3")
    assert eventually(lambda: fresh.errors.count(TRIED) > tried, most_s=0.05)
    caller.start()
    # Not by asking the model: where one server alone takes requests, that would wait for the one under way.
    assert eventually(lambda: fresh.get("/v1/fleet")["revision"] != live, UNDER_WAY_MS / 1000 - 0.5)
    assert not answers
    assert eventually(lambda: fresh.version("picked") == 3)
    caller.join()
    assert answers == [2]
    assert eventually(lambda: fresh.models("a") == [{"versioned/3"}] * 2)


def test_rules_that_do_not_compile_are_reported_and_change_nothing(fresh: RunningStack, edited: Path) -> None:
    live = fresh.get("/v1/fleet")["revision"]
    objectives(edited, picked="versionde/9")
    rejected = eventually(lambda: fresh.get("/v1/fleet")["rules"]["last_rejected"])
    assert any("objectives/picked.yaml:6: rule 'default'" in without_columns(line) for line in rejected["findings"])
    assert "objectives/picked.yaml:6: rule 'default'" in without_columns(fresh.errors)
    assert fresh.get("/v1/fleet")["revision"] == live
    assert fresh.version("picked") == 2
    assert any("rules refused" in line for line in tidegate("status", "--url", fresh.url).stdout.splitlines())


def test_a_rule_may_come_before_its_model(fresh: RunningStack, edited: Path, models: Path) -> None:
    placement = {"versioned": ["a", "b"], "late": ["a"]}
    write_rules(edited, {"a": 2, "b": 1}, placement, picked="versioned/2", addition="late")
    rejected = eventually(lambda: fresh.get("/v1/fleet")["rules"]["last_rejected"])
    assert any("'late'" in line for line in rejected["findings"]), rejected
    config = (models / "simple" / "config.pbtxt").read_text().replace('"simple"', '"late"')
    try:
        shutil.copytree(models / "simple", models / "late")
        (models / "late" / "config.pbtxt").write_text(config)
        assert eventually(lambda: fresh.get("/v1/fleet")["rules"]["last_rejected"] is None)
        # The fleet is known to have moved on a moment before the gateway has.
        assert eventually(lambda: fresh.post("/v2/models/addition/infer", PAIR)[0] == 200)
    finally:
        (edited / "objectives" / "addition.yaml").unlink()
        shutil.rmtree(models / "late", ignore_errors=True)


@pytest.mark.parametrize(
    ("model", "reason"), [("refused", "damaged on purpose"), ("hangs", "did not finish loading within 20 s")]
)
def test_a_model_that_does_not_load_changes_nothing(fresh: RunningStack, edited: Path, model: str, reason: str) -> None:
    live = fresh.get("/v1/fleet")["revision"]
    with Callers(fresh, "picked", sleep_ms=5) as callers:
        objectives(edited, picked=f"[{{id: us, when: {{country: US}}, serve: {model}}}, {{id: r, serve: versioned/1}}]")
        rejected = eventually(lambda: fresh.get("/v1/fleet")["rules"]["last_rejected"])
        assert any(reason in line for line in rejected["findings"]), rejected
        assert eventually(lambda: fresh.models("a") == [{"versioned/2"}] * 2)
        assert eventually(lambda: len(fresh.servers()) == 3)
    assert callers.failures == []
    assert set(callers.answers) == {2}
    assert fresh.get("/v1/fleet")["revision"] == live


def test_shards_and_replicas_come_and_go(fresh: RunningStack, edited: Path) -> None:
    with Callers(fresh, "picked", sleep_ms=5) as callers:
        write_rules(edited, {"b": 2, "c": 1}, {"versioned": ["c", "b"]}, picked="versioned/2")
        assert eventually(lambda: set(fresh.fleet()) == {"b", "c"})
        assert eventually(lambda: fresh.models("c") == [{"versioned/2"}])
        assert eventually(lambda: fresh.models("b") == [{"versioned/2"}] * 2)
        assert eventually(lambda: len(fresh.servers()) == 3)
    assert callers.failures == []
    assert eventually(lambda: fresh.models("c") == [{"versioned/2"}])
