"""Requests with large JSON are parsed in other processes, within limits, with the same answers as small ones."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tidegate.bootstrap.workers import Workers
from tidegate.gateway import Dispatcher
from tidegate.ports import Endpoint
from tidegate.rules import Engine
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app
from tidegate.web.heavy import HEAVY_BYTES, InlineOffload

from tests.support.listening import listening
from tests.support.stack import eventually
from tests.web.conftest import FakeTriton, Host

V1_INFER = "/v1/objectives/echoing/infer"
INFER = "/v2/models/echoing/infer"
MOST_VALUES = 100_000
MOST_BYTES = 2_000_000


class Noted:
    """Notes which work it passes on."""

    def __init__(self, offload: Any) -> None:
        self.works: list[str] = []
        self._offload = offload

    async def run(self, work: str, *parts: bytes | memoryview) -> bytes:
        self.works.append(work)
        answer: bytes = await self._offload.run(work, *parts)
        return answer


def app_for(engine: Engine, port: int, offload: Any) -> Any:
    directory = MemoryEndpointDirectory({"main": (Endpoint("main", "127.0.0.1", port),)})
    return create_app(
        engines=MemoryEngineSource(engine),
        dispatcher=Dispatcher(PooledTransport(), directory),
        max_v1_body_bytes=MOST_BYTES,
        max_v1_values=MOST_VALUES,
        offload=offload,
    )


@pytest.fixture(scope="module")
def noted() -> Noted:
    return Noted(Workers(2))


@pytest.fixture(scope="module")
def working(engine: Engine, triton: Host, noted: Noted) -> Iterator[Host]:
    """A gateway with workers, in front of the real Triton."""
    with listening(app_for(engine, triton.port, noted)) as served:
        yield Host(served.port)
        served.run(noted._offload.aclose())


@pytest.fixture(scope="module")
def inline(engine: Engine, triton: Host) -> Iterator[Host]:
    """A gateway without workers, as in a function."""
    with listening(app_for(engine, triton.port, InlineOffload())) as served:
        yield Host(served.port)


def rows(count: int, **context: Any) -> dict[str, Any]:
    return {"context": context, "inputs": {"X": [[number * 0.5 for number in range(count)]]}}


def test_large_json_of_v1_is_read_and_written_by_workers(working: Host, inline: Host, noted: Noted) -> None:
    request = rows(50_000, is_kids=True)
    assert len(json.dumps(request)) > HEAVY_BYTES
    noted.works.clear()
    reply = working.ask("POST", V1_INFER, request)
    assert (reply.status, reply.headers["tidegate-rule"]) == (200, "kids")
    assert reply.json["outputs"]["Y"] == request["inputs"]["X"]
    assert reply.json["outputs"] == inline.ask("POST", V1_INFER, request).json["outputs"]
    assert noted.works == ["read", "encode", "decode"]


def test_small_json_is_read_where_it_arrives(working: Host, noted: Noted) -> None:
    noted.works.clear()
    assert working.ask("POST", V1_INFER, rows(10)).status == 200
    assert working.ask("POST", INFER, {"inputs": []}).status == 400
    assert noted.works == []


LONG = "x" * HEAVY_BYTES
WRONG: list[bytes] = [
    b'{"inputs": {"X": [1, "%b"]}}' % LONG.encode(),
    b'{"inputs": {"Z": ["%b"]}}' % LONG.encode(),
    b'{"inputs": ["%b"]}' % LONG.encode(),
    b'{"more": ["%b"]}' % LONG.encode(),
    b'{"context": {"level": "secret-7"}, "inputs": {"X": "%b"}}' % LONG.encode(),
    b'{"inputs": {"X": "%b", "X": 1}}' % LONG.encode(),
    b'["%b"]' % LONG.encode(),
    b'{"%b' % LONG.encode(),
    b'{"inputs": {"X": [[%b' % (b"1," * HEAVY_BYTES),
    b"[" * HEAVY_BYTES * 2,
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_what_is_wrong_with_a_large_request_is_said_alike(working: Host, inline: Host, number: int) -> None:
    through, direct = working.ask("POST", V1_INFER, WRONG[number]), inline.ask("POST", V1_INFER, WRONG[number])
    assert (through.status, through.problem) == (direct.status, direct.problem)
    assert through.status == 400
    assert "secret" not in through.body.decode()


@pytest.mark.parametrize("path", [V1_INFER, "/v1/objectives/echoing/resolve"])
def test_a_body_of_v1_has_a_limit_of_its_own(working: Host, path: str) -> None:
    reply = working.ask("POST", path, b" " * (MOST_BYTES + 1))
    assert (reply.status, reply.problem["setting"]) == (413, "max_v1_body_bytes")
    assert str(MOST_BYTES) in reply.problem["detail"]


def test_so_have_the_values_of_its_inputs(working: Host, inline: Host) -> None:
    document = {"inputs": {"X": [[1] * (MOST_VALUES + 1)]}}
    for host in (working, inline):
        reply = host.ask("POST", V1_INFER, json.dumps(document, separators=(",", ":")))
        assert (reply.status, reply.problem["setting"]) == (413, "max_v1_values")


@pytest.mark.parametrize("coding", ["", "gzip"])
def test_large_json_of_v2_is_looked_at_by_workers(working: Host, noted: Noted, coding: str) -> None:
    data = [[0.5] * 40_000]
    document = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 40_000], "data": data}]}
    kids = {**document, "parameters": {"is_kids": True, "sleep_s": "0"}}
    headers = {"Content-Encoding": "gzip"} if coding else {}
    for request, rule in ((document, "default"), (kids, "kids")):
        noted.works.clear()
        body = json.dumps(request).encode()
        reply = working.ask("POST", INFER, gzip.compress(body) if coding else body, headers)
        assert (reply.status, reply.headers["tidegate-rule"], noted.works) == (200, rule, ["examine"])
    deep = json.dumps(kids).encode()[:-1] + b',"x":' + b"[" * 300_000
    assert working.ask("POST", INFER, gzip.compress(deep) if coding else deep, headers).status == 400


def workers(parent: int | None = None) -> list[int]:
    """The processes that a process, by default this one, started to work for it."""
    found = []
    for task in Path(f"/proc/{parent or 'self'}/task").iterdir():
        # Threads and processes may end meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for pid in (task / "children").read_text().split():
                if b"tidegate.bootstrap.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(int(pid))
    return found


def test_an_idle_worker_that_ends_costs_no_request(working: Host) -> None:
    request = rows(50_000)
    assert working.ask("POST", V1_INFER, request).status == 200
    for pid in workers():
        os.kill(pid, signal.SIGKILL)
        assert eventually(lambda pid=pid: has_ended(pid))
    assert [working.ask("POST", V1_INFER, request).status for _ in range(3)] == [200, 200, 200]


_GATEWAY = """
import asyncio, contextlib, sys
from tidegate.bootstrap.workers import Workers
from tidegate.errors import OverloadedError

async def main():
    workers = Workers(1)
    await workers.run("read", b'["context"]', b"{}")
    print("working", flush=True)
    sys.stdin.readline()
    with contextlib.suppress(OverloadedError):
        await workers.run("value-of-a-request")
    print("failed", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_worker_ends_with_a_gateway_that_is_killed_whatever_it_does() -> None:
    gateway = subprocess.Popen([sys.executable, "-c", _GATEWAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == b"working\n"
        (worker,) = workers(gateway.pid)
        # The worker is busy and reads nothing, and so does not notice that its socket is closed.
        os.kill(worker, signal.SIGSTOP)
        gateway.kill()
        try:
            assert eventually(lambda: has_ended(worker))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
    finally:
        gateway.kill()
        gateway.communicate()


def test_a_worker_imports_nothing_of_the_folder_that_it_is_started_in_and_tells_no_values(tmp_path: Path) -> None:
    (tmp_path / "struct.py").write_text("raise SystemExit('the wrong module')")
    gateway = subprocess.Popen(
        [sys.executable, "-P", "-c", _GATEWAY],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    assert gateway.stdout is not None
    lines = [gateway.stdout.readline() for _ in range(2)]
    gateway.kill()
    _, errors = gateway.communicate()
    assert lines == [b"working\n", b"failed\n"], errors
    assert b"a worker failed: KeyError" in errors
    assert b"value-of-a-request" not in errors


def test_workers_know_no_secret_of_the_gateway(working: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    for pid in workers():
        os.kill(pid, signal.SIGKILL)
    monkeypatch.setenv("TIDEGATE_OPERATOR_TOKEN", "a-token-that-is-secret")
    assert [working.ask("POST", V1_INFER, rows(50_000)).status for _ in range(4)][-1] == 200
    found = workers()
    assert found
    assert not any(b"TIDEGATE_OPERATOR_TOKEN" in Path(f"/proc/{pid}/environ").read_bytes() for pid in found)


def test_they_end_with_the_gateway(engine: Engine, fake: FakeTriton) -> None:
    before = set(workers())
    own = Workers(1)
    fake.script = lambda request: (200, {}, b'{"versions":["1"],"inputs":[],"outputs":[]}')
    with listening(app_for(engine, fake.port, own)) as served:
        assert Host(served.port).ask("POST", V1_INFER, b'{"context":{"x":"%b"}}' % LONG.encode()).status in (200, 502)
        assert set(workers()) > before
        served.run(own.aclose())
    assert set(workers()) <= before
