"""The gateway of `tidegate up` is a process of its own: what happens to it leaves the servers alone, and it is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpc
from tidegate.bootstrap.compiled import find_compiled
from tidegate.bootstrap.gateway_process import beside
from tidegate.cli.stacks import read_fleet
from tidegate.errors import UnavailableError
from tidegate.stack_file import find, folder
from tidegate.triton.repository import MANAGEMENT
from tritonclient.utils import InferenceServerException

from tests.support.callers import Callers
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


def test_the_gateway_runs_the_compiled_copy_of_these_sources_if_there_is_one(stack: RunningStack) -> None:
    copy = find_compiled()
    mapped = (Path("/proc") / str(gateway_of(stack)) / "maps").read_text()
    assert stack.get("/v1/fleet")["gateway"]["compiled"] is (copy is not None)
    assert (str(copy) in mapped) is (copy is not None)


def test_the_gateway_has_the_listeners_limits_and_descriptors_for_its_connections(stack: RunningStack) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{stack.url}/v2", headers={"X": "x" * 70_000}), timeout=20)
    assert refused.value.code == 431
    assert "65536 bytes" in json.loads(refused.value.read())["error"]
    limits = (Path("/proc") / str(gateway_of(stack)) / "limits").read_text()
    soft, hard = re.findall(r"Max open files +(\d+) +(\d+)", limits)[0]
    assert soft == hard


def test_the_gateway_starts_without_what_only_the_control_plane_needs() -> None:
    heavy = ("boto3", "botocore", "pydantic", "numpy", "yaml", "tritonclient")
    script = f"import sys, tidegate.bootstrap.gateway_process; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"


def test_work_beside_the_serving_that_fails_ends_the_process_instead_of_being_missed() -> None:
    async def follow() -> None:
        await asyncio.sleep(0)
        raise OverflowError("infinite")

    async def serve_for_ever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as error:
        asyncio.run(asyncio.wait_for(beside([follow(), serve_for_ever()], serve_for_ever()), 20))
    assert error.group_contains(OverflowError)
    asyncio.run(asyncio.wait_for(beside([serve_for_ever()], asyncio.sleep(0)), 20))


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
        assert time.monotonic() - started < 45
        assert gone(gateway)
        assert stack.leftovers() == []


def test_a_gateway_that_is_replaced_while_no_server_answers_says_so_to_callers(models: Path, tmp_path: Path) -> None:
    rules = write_rules(tmp_path / "rules", {"a": 1}, {"versioned": ["a"]}, own="versioned")
    # Servers that are silent for the whole test, and stay.
    with running_stack(rules, models, tmp_path / "errors", variables={"TIDEGATE_HUNG_AFTER_S": "600"}) as stack:
        (server,) = stack.servers()
        os.kill(server.pid, signal.SIGSTOP)
        try:
            assert eventually(lambda: "answers nothing; it is sent no requests" in stack.errors)
            gateway = gateway_of(stack)
            os.kill(gateway, signal.SIGKILL)
            tensor = {"name": "SLEEP_MS", "shape": [1], "datatype": "INT32", "data": [0]}
            status, _ = stack.post("/v2/models/own/infer", {"inputs": [tensor]})
            assert status == 503
            assert gateway_of(stack) != gateway
        finally:
            os.kill(server.pid, signal.SIGCONT)


def test_requests_under_way_end_before_the_gateway_does(models: Path, tmp_path: Path) -> None:
    rules = write_rules(tmp_path / "rules", {"a": 1}, {"versioned": ["a"]}, own="versioned")
    log = tmp_path / "requests"
    with running_stack(
        rules, models, tmp_path / "errors", "--grpc-port", "0", variables={"TIDEGATE_ACCESS_LOG": str(log)}
    ) as stack:
        answers: list[int] = []
        slow = threading.Thread(target=lambda: answers.append(stack.version("own", sleep_ms=4000)))
        slow.start()
        assert eventually(lambda: in_flight(stack) + len(answers) >= 1, most_s=0.1)
        client = grpc.InferenceServerClient(stack.get("/v1/fleet")["gateway"]["grpc"])
        tensor = grpc.InferInput("SLEEP_MS", [1], "INT32")
        tensor.set_data_from_numpy(np.array([20_000], np.int32))
        client.start_stream(lambda result, error: None)
        client.async_stream_infer("own", [tensor])
        assert eventually(lambda: in_flight(stack) + len(answers) >= 2, most_s=0.1)
        time.sleep(1.5)  # what is left of the first one is shorter than what a gateway waits for
        assert stack.stop() == 0
        slow.join()
        assert answers == [3]
        client.stop_stream(cancel_requests=True)
        outcomes = [json.loads(line)["outcome"] for line in log.read_text().splitlines()]
        assert {"answered", "left"} <= set(outcomes)
        assert "SIGKILL" not in stack.errors


def in_flight(stack: RunningStack) -> int:
    """How many requests are under way at the servers."""
    endpoints = stack.get("/v1/fleet")["gateway"]["endpoints"]
    return sum(place["in_flight"] for each in endpoints for place in each["places"])


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


def test_a_stopped_gateway_is_reported_and_no_server_is_replaced(stack: RunningStack) -> None:
    gateway, servers = gateway_of(stack), {each.pid for each in stack.servers()}
    os.kill(gateway, signal.SIGSTOP)
    try:
        words = f"the gateway (process {gateway}) does not answer: nothing was heard of it for"
        assert eventually(lambda: words in status_problem(stack.url)), status_problem(stack.url)
        time.sleep(5)  # what judged servers by the gateway's loop would have replaced them by now
    finally:
        os.kill(gateway, signal.SIGCONT)
    assert stack.version("own") == 3
    fleet = eventually(lambda: (found := stack.get("/v1/fleet"))["healthy"] and found)
    assert (fleet["gateway"]["pid"], fleet["gateway"]["state"]) == (gateway, "serving")
    assert fleet["since_start"]["restarts"] == []
    assert {each.pid for each in stack.servers()} == servers


def test_a_stopped_control_plane_delays_no_request_and_accuses_nobody_afterwards(stack: RunningStack) -> None:
    gateway, servers = gateway_of(stack), {each.pid for each in stack.servers()}
    fleet = stack.get("/v1/fleet")
    os.kill(stack.process.pid, signal.SIGSTOP)
    try:
        with Callers(stack, "own") as callers:
            time.sleep(6)  # longer than a poll of the rules, and than the gateway may be silent
            held_up = stack.get("/v1/fleet", late=True)
    finally:
        os.kill(stack.process.pid, signal.SIGCONT)
    assert callers.failures == []
    assert set(callers.answers) == {3}
    assert held_up["revision"] == fleet["revision"]
    assert "did not answer within" in held_up["problems"][0]
    after = eventually(lambda: (found := stack.get("/v1/fleet"))["healthy"] and found)
    assert after["gateway"]["pid"] == gateway
    assert after["since_start"]["restarts"] == fleet["since_start"]["restarts"]
    assert {each.pid for each in stack.servers()} == servers


def status_problem(url: str) -> str:
    """What `tidegate status` says of the gateway while the fleet is not well for it."""
    fleet = read_fleet(url)
    return "" if fleet["healthy"] else " ".join(fleet["problems"])


def test_only_its_user_finds_what_opens_the_stack(stack: RunningStack) -> None:
    (file,) = folder().glob(f"up-{stack.url.rpartition(':')[2]}.json")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{stack.url}/v1/fleet", timeout=10)
    assert (refused.value.code, refused.value.headers["www-authenticate"]) == (401, 'Bearer realm="tidegate"')
    known, told = stack.known, json.dumps(stack.get("/v1/fleet")) + stack.errors
    assert known.operator_token not in told
    assert known.management_secret not in told
    environment = (Path("/proc") / str(gateway_of(stack)) / "environ").read_bytes()
    assert known.management_secret.encode() not in environment
    file.chmod(0o640)
    assert find(stack.url) is None, "others may have read it"
    file.chmod(0o600)


def test_a_token_of_the_users_own_is_taken(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = write_rules(tmp_path / "rules", {"a": 1}, {"versioned": ["a"]}, own="versioned")
    token = {"TIDEGATE_OPERATOR_TOKEN": "a-token-of-the-test-0123"}
    secrets = {"TIDEGATE_MANAGEMENT_SECRET": "a-secret-of-the-test", "AWS_SECRET_ACCESS_KEY": "a-key-of-the-test"}
    with running_stack(rules, models, tmp_path / "errors", variables=token | secrets) as stack:
        assert stack.known.operator_token == token["TIDEGATE_OPERATOR_TOKEN"]
        environment = (Path("/proc") / str(gateway_of(stack)) / "environ").read_bytes()
        assert not [name for name in secrets if name.encode() in environment], "it reads what strangers send"
        # As from another machine, or by another user.
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        with pytest.raises(UnavailableError, match="is for operators: set TIDEGATE_OPERATOR_TOKEN"):
            read_fleet(stack.url)
        monkeypatch.setenv("TIDEGATE_OPERATOR_TOKEN", token["TIDEGATE_OPERATOR_TOKEN"])
        assert eventually(lambda: read_fleet(stack.url)["healthy"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/versioned/load"),
        ("POST", "/v2/repository/models/versioned/unload"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/x/register"),
        ("POST", "/v2/cudasharedmemory/unregister"),
        ("POST", "/v2/trace/setting"),
        ("POST", "/v2/logging"),
    ],
)
@pytest.mark.parametrize("secret", ["", "guessed-0123456789"])
def test_who_reaches_a_server_cannot_change_it(stack: RunningStack, method: str, path: str, secret: str) -> None:
    for endpoint in stack.fleet()["a"]:
        headers = {MANAGEMENT: secret} if secret else {}
        data = b"{}" if method == "POST" else None
        request = urllib.request.Request(endpoint["url"] + path, data=data, headers=headers, method=method)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 403
    assert stack.version("own") == 3


def test_who_reaches_a_servers_grpc_port_cannot_change_it(stack: RunningStack) -> None:
    arguments = (Path("/proc") / str(stack.servers()[0].pid) / "cmdline").read_text(errors="replace")
    match = re.search(r"--grpc-port=(\d+)", arguments)
    assert match is not None
    with grpc.InferenceServerClient(f"127.0.0.1:{match[1]}") as client:
        for change in (
            lambda: client.unload_model("versioned"),
            lambda: client.load_model("versioned"),
            lambda: client.get_model_repository_index(),
            lambda: client.get_system_shared_memory_status(),
            lambda: client.update_log_settings({"log_verbose_level": 1}),
        ):
            with pytest.raises(InferenceServerException, match="restricted"):
                change()
    assert stack.version("own") == 3
