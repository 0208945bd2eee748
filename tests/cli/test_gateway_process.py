"""The gateway of `tidegate up` is a process of its own: what happens to it leaves the servers alone, and it is replaced."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("models"), "versioned")


@pytest.fixture(scope="module")
def stack(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    rules = write_rules(tmp_path_factory.mktemp("rules"), {"a": 2}, {"versioned": ["a"]}, own="versioned")
    with running_stack(rules, models, tmp_path_factory.mktemp("log") / "errors") as running:
        yield running


def gateway_of(stack: RunningStack) -> int:
    pid: int = stack.get("/v1/fleet")["gateway"]["pid"]
    return pid


def gone(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_the_gateway_is_another_process_than_the_control_plane(stack: RunningStack) -> None:
    gateway = gateway_of(stack)
    assert gateway != stack.process.pid
    assert os.getsid(gateway) == gateway, "Ctrl-C in a terminal is the parent's"
    arguments = (Path("/proc") / str(gateway) / "cmdline").read_bytes()
    assert b"gateway_process" in arguments


def test_the_gateway_starts_without_what_only_the_control_plane_needs() -> None:
    heavy = ("boto3", "botocore", "pydantic", "numpy", "yaml", "tritonclient")
    script = f"import sys, tidegate.bootstrap.gateway_process; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_gateway_that_is_killed_is_replaced_and_the_servers_stay(stack: RunningStack) -> None:
    before, servers = gateway_of(stack), {each.pid for each in stack.servers()}
    os.kill(before, signal.SIGKILL)
    # Who connects meanwhile waits for the next gateway.
    assert stack.version("own") == 3
    fleet = stack.get("/v1/fleet")
    assert fleet["gateway"]["pid"] != before
    assert fleet["since_start"]["gateway_restarts"]["count"] == 1
    assert any("the gateway was replaced once" in each for each in fleet["degraded"])
    assert {each.pid for each in stack.servers()} == servers
    assert fleet["since_start"]["restarts"] == []
    assert "the gateway's process was ended by SIGKILL; starting another" in stack.errors


def test_a_stopped_gateway_does_not_hold_up_the_end_of_the_stack(models: Path, tmp_path: Path) -> None:
    rules = write_rules(tmp_path / "rules", {"a": 1}, {"versioned": ["a"]}, own="versioned")
    with running_stack(rules, models, tmp_path / "errors") as stack:
        gateway = gateway_of(stack)
        os.kill(gateway, signal.SIGSTOP)
        started = time.monotonic()
        assert stack.stop() == 0
        assert time.monotonic() - started < 10
        assert gone(gateway)
        assert stack.leftovers() == []


def test_requests_under_way_end_before_the_gateway_does(models: Path, tmp_path: Path) -> None:
    rules = write_rules(tmp_path / "rules", {"a": 1}, {"versioned": ["a"]}, own="versioned")
    with running_stack(rules, models, tmp_path / "errors") as stack:
        answers: list[int] = []
        slow = threading.Thread(target=lambda: answers.append(stack.version("own", sleep_ms=1500)))
        slow.start()
        time.sleep(0.5)  # it is under way by now
        assert stack.stop() == 0
        slow.join()
        assert answers == [3]


@pytest.mark.parametrize("is_stopped", [False, True])
def test_the_gateway_ends_with_a_control_plane_that_is_killed(models: Path, tmp_path: Path, is_stopped: bool) -> None:
    rules = write_rules(tmp_path / "rules", {"a": 1}, {"versioned": ["a"]}, own="versioned")
    with running_stack(rules, models, tmp_path / "errors") as stack:
        gateway = gateway_of(stack)
        if is_stopped:
            os.kill(gateway, signal.SIGSTOP)
        try:
            stack.stop(signal.SIGKILL)
            assert eventually(lambda: gone(gateway))
            assert eventually(lambda: not stack.leftovers()), stack.leftovers()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(gateway, signal.SIGCONT)
