"""The line that each request leaves in the log."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from tidegate.bootstrap.log_file import MOST_BYTES, LogFile
from tidegate.errors import SettingsError
from tidegate.gateway import Dispatcher
from tidegate.ports import Endpoint
from tidegate.rules import compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app
from tidegate.web.access_log import AccessLog
from tidegate.web.milliseconds import add_ms

from tests.support import virtual_time
from tests.support.processes import refusing_port
from tests.support.stack import eventually, write_rules
from tests.web.conftest import FakeTriton, Host, Received

INFER, V1 = "/v2/models/echoing/infer", "/v1/objectives/echoing/infer"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLERS = "callers: {shop: {objectives: '*', marks: [replay]}, slow: {objectives: '*', rate_per_s: 0.01, burst: 1}}"


class Logged:
    """A gateway whose lines are kept."""

    def __init__(self, host: Host, lines: list[dict[str, Any]]) -> None:
        self.host = host
        self._lines = lines

    def line(self, path: str = INFER, body: Any = b"{}", method: str = "POST", **headers: str) -> dict[str, Any]:
        """Return the line of one request."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Tidegate-Caller": "shop", "Content-Type": "application/json", **named}
        self._lines.clear()
        self.host.ask(method, path, body, sent)
        assert eventually(lambda: len(self._lines) == 1, timeout_s=10)
        line: dict[str, Any] = json.loads(json.dumps(self._lines[0], allow_nan=False))
        return line

    def lines(self) -> list[dict[str, Any]]:
        return self._lines


@pytest.fixture
def logged(scripted_server: tuple[Any, Host], fake: FakeTriton, tmp_path: Path) -> Logged:
    return logging_gateway(scripted_server, fake, tmp_path, 100.0)


def logging_gateway(server: tuple[Any, Host], fake: FakeTriton, folder: Path, percent: float) -> Logged:
    slot, host = server
    rules = write_rules(folder, {"main": 1, "gone": 1}, {"pair_sum": ["main"], "away": ["gone"]}, echoing=RULES)
    objective = rules / "objectives" / "echoing.yaml"
    objective.write_text(objective.read_text().replace("{type: string}}", "{type: string}, member_id: {type: string}}"))
    with objective.open("a") as file:
        file.write("loggable: [country]\n")
    (rules / "callers.yaml").write_text(CALLERS)
    lines: list[dict[str, Any]] = []
    endpoints = {
        "main": (Endpoint("main", "127.0.0.1", fake.port),),
        "gone": (Endpoint("gone", "127.0.0.1", refusing_port()),),
    }
    slot.app = create_app(
        engines=MemoryEngineSource(load_bundle(compile_directory(rules))),
        dispatcher=Dispatcher(PooledTransport(), MemoryEndpointDirectory(endpoints)),
        log=AccessLog(lambda line: lines.append(json.loads(line)), percent),
    )
    return Logged(host, lines)


RULES = """[
  {id: back, when: {country: SE}, serve: away, fallback: [pair_sum]},
  {id: lost, when: {country: NO}, serve: away},
  {id: split, serve: pair_sum/1}]"""


def test_a_line_has_the_decision_the_origin_and_the_times(logged: Logged) -> None:
    line = logged.line(
        Tidegate_Context='{"country": "DK", "member_id": "secret"}',
        Traceparent=f"00-{TRACE}-00f067aa0ba902b7-01",
        X_Request_Id="r-7",
        Tidegate_Traffic="replay",
    )
    times = {name: line.pop(name) for name in ("took_ms", "decide_ms", "dispatch_ms", "triton_ms")}
    assert times["took_ms"] >= times["dispatch_ms"] >= times["triton_ms"] > 0
    assert line.pop("time").endswith("Z")
    assert len(line.pop("revision")) == 64
    assert line == {
        "objective": "echoing", "rule": "split", "reason": "serve", "model": "pair_sum", "version": 1, "shard": "main",
        "outcome": "answered", "status": 200, "attempts": 1, "caller": "shop", "traffic": "replay", "trace_id": TRACE,
        "request_id": "r-7", "context": {"country": "DK"},
    }  # fmt: skip


def test_times_are_numbers_of_milliseconds_with_three_decimals() -> None:
    parts: list[bytes] = []
    for took_ms in (0.0, 0.0004, 0.0005, 1.0, 9.9996, 999.9995, 12_345.678):
        parts.append(b" ")
        add_ms(parts, took_ms)
    assert b"".join(parts).split() == [
        b"0.000", b"0.000", b"0.001", b"1.000", b"10.000", b"1000.000", b"12345.678",
    ]  # fmt: skip


def test_every_end_of_a_request_has_its_outcome(logged: Logged, fake: FakeTriton) -> None:
    def outcome(path: str = INFER, body: Any = b"{}", method: str = "POST", **headers: str) -> tuple[Any, ...]:
        line = logged.line(path, body, method, **headers)
        return line["outcome"], line["status"], line.get("error"), line.get("attempts"), line.get("model")

    sweden, norway = '{"country": "SE"}', '{"country": "NO"}'
    assert outcome(Tidegate_Context=sweden) == ("fallback", 200, None, 2, "pair_sum")
    assert logged.line(Tidegate_Context=sweden)["reason"] == "fallback", "as in the header"
    assert outcome(Tidegate_Context=norway)[:3] == ("failed", 503, "UnavailableError")
    assert outcome("/v2/models/echoing", method="GET", Tidegate_Context=norway)[:3] == (
        "failed",
        503,
        "UnavailableError",
    )
    assert outcome("/v2/models/echoing", method="GET", Tidegate_Caller="nobody")[:3] == ("refused", 403, "RefusedError")
    assert outcome(Tidegate_Context='{"country": 7}')[:3] == ("refused", 400, "ContextError")
    assert outcome(Tidegate_Caller="nobody")[:3] == ("refused", 403, "RefusedError")
    assert outcome(V1, b"{")[:3] == ("refused", 400, "RefusedError")
    assert outcome(V1.replace("infer", "resolve"))[:2] == ("decided", 200)
    assert outcome(Tidegate_Caller="slow")[:2] == ("answered", 200)
    assert outcome(Tidegate_Caller="slow")[:3] == ("refused", 429, "LimitedError")
    fake.script = lambda _: (400, {}, b'{"error": "no"}')
    assert outcome()[:2] == ("answered", 400)


def test_a_caller_that_leaves_is_logged(logged: Logged, fake: FakeTriton) -> None:
    def slow(_: Received) -> tuple[int, dict[str, str], bytes]:
        eventually(lambda: logged.lines(), timeout_s=10)
        return 200, {}, b"{}"

    fake.script = slow
    logged.lines().clear()
    with socket.create_connection(("127.0.0.1", logged.host.port), timeout=10) as connection:
        connection.sendall(
            f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTidegate-Caller: shop\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        )
        assert eventually(lambda: fake.received, timeout_s=10)
    assert eventually(lambda: logged.lines(), timeout_s=10)
    (line,) = logged.lines()
    assert (line["outcome"], "status" in line) == ("left", False)


@pytest.mark.parametrize("path", [INFER, V1])
def test_a_caller_that_leaves_within_its_body_is_logged(logged: Logged, path: str) -> None:
    logged.lines().clear()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTidegate-Caller: shop\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", logged.host.port), timeout=10) as connection:
        connection.sendall(f"{head}Content-Length: 20\r\n\r\n{{".encode())
    assert eventually(lambda: logged.lines(), timeout_s=10)
    (line,) = logged.lines()
    assert (line["outcome"], "status" in line) == ("left", False)


def test_a_value_that_is_not_loggable_is_in_no_line(logged: Logged) -> None:
    for body in (b"{}", b'{"parameters": {"member_id": "canary"}}', b'{"parameters": {"member_id": "canary"'):
        for context in ('{"member_id": "canary"}', '{"country": {"canary": 1}}', "canary", None):
            headers = {} if context is None else {"Tidegate_Context": context}
            assert "canary" not in json.dumps(logged.line(body=body, **headers))


def test_nothing_that_a_caller_sends_begins_a_new_line(logged: Logged, tmp_path: Path) -> None:
    target = tmp_path / "log"
    evil = 'x\\u000a{\\"outcome\\": \\"answered\\"}\\u2028\\u0000'
    line = logged.line(Tidegate_Context=f'{{"country": "{evil}"}}', X_Request_Id='a"}\t{"b', Traceparent="00-x")
    assert "\n" in line["context"]["country"]
    assert "trace_id" not in line

    async def main() -> None:
        log = LogFile(str(target))
        log.write(json.dumps(line).encode())
        log.close()

    virtual_time.run(main())
    (written,) = target.read_bytes().splitlines()
    assert json.loads(written) == line
    assert written.isascii()


def test_requests_without_an_objective_leave_no_line(logged: Logged) -> None:
    logged.lines().clear()
    for path in ("/v2/health/ready", "/v2", "/openapi.json", "/nothing"):
        logged.host.get(path)
    assert logged.lines() == []


def test_sampling_keeps_what_failed(scripted_server: tuple[Any, Host], fake: FakeTriton, tmp_path: Path) -> None:
    logged = logging_gateway(scripted_server, fake, tmp_path, 0.0)
    for _ in range(3):
        logged.host.ask("POST", INFER, b"{}", {"Tidegate-Caller": "shop"})
    assert logged.line(Tidegate_Context='{"country": "NO"}')["outcome"] == "failed"


def test_a_pipe_that_nobody_reads_blocks_nothing_and_what_is_dropped_is_counted(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)

    async def main() -> int:
        log = LogFile(str(pipe))
        sent = 0
        while log.waiting_bytes < MOST_BYTES:
            log.write(json.dumps({"n": sent, "filler": "x" * 1000}).encode())
            sent += 1
        for _ in range(5):
            log.write(b'{"n":"dropped"}')
        os.set_blocking(reader, True)
        log.flush()
        received = b""
        while received.count(b"\n") < sent:
            received += os.read(reader, 1 << 20)
        assert b"dropped" not in received
        while log.waiting_bytes:
            pass
        log.write(b'{"n":"after"}')
        log.close()
        rest = os.read(reader, 1 << 20).splitlines()
        assert [json.loads(line) for line in rest] == [{"dropped": 5}, {"n": "after"}]
        return sent

    assert virtual_time.run(main()) > 1000
    os.close(reader)


def test_a_file_that_cannot_be_opened_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="TIDEGATE_ACCESS_LOG"):
        LogFile(str(tmp_path / "no" / "log"))
