"""Requests leave no reference cycles.

A cycle keeps what it refers to, such as a large body, until the collector runs, which is rare in the gateway's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from tidegate.rules import compile_directory, load_bundle

from tests.support.listening import Listening, listening
from tests.web.conftest import FakeTriton, Received, gateway_app

TIMES = 5
PATIENCE_S = 60.0
LARGE = 800_000
OBJECTIVES = {
    "plain": "rules: [{id: all, serve: echo}]",
    "hedged": "rules: [{id: all, serve: echo, hedge_after_ms: 1}]",
    "telling": "responses: stream\nrules: [{id: all, serve: tally}]",
}
TENSOR = {"name": "X", "datatype": "FP32", "shape": [-1]}
METADATA = {"name": "echo", "versions": ["1"], "platform": "ensemble", "inputs": [TENSOR], "outputs": [TENSOR]}
ANSWER = {"model_name": "echo", "outputs": [{**TENSOR, "shape": [1], "data": [1.0]}]}
EVENT = b'data: {"model_name":"tally","X":1}\n\n'
TYPE_JSON = {"Content-Type": "application/json"}


def post(path: str, body: bytes, headers: Mapping[str, str] = TYPE_JSON) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode() + body


def binary(objective: str, size_bytes: int) -> bytes:
    tensor = {**TENSOR, "shape": [size_bytes // 4], "parameters": {"binary_data_size": size_bytes}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return post(
        f"/v2/models/{objective}/infer", head + bytes(size_bytes), {"Inference-Header-Content-Length": str(len(head))}
    )


def script(request: Received) -> tuple[int, Mapping[str, str], bytes]:
    if request.path.endswith("/generate_stream"):
        return 200, {"Content-Type": "text/event-stream"}, EVENT * 3
    if request.method == "GET":
        return 200, TYPE_JSON, json.dumps(METADATA).encode()
    if len(request.body) > LARGE:
        return 200, {}, request.body
    return 200, TYPE_JSON, json.dumps(ANSWER).encode()


REQUESTS = {
    "answered": (200, post("/v2/models/plain/infer", b'{"inputs":[]}')),
    "large": (200, binary("plain", LARGE)),
    "hedged": (200, binary("hedged", 1_000)),
    "hedged large": (200, binary("hedged", LARGE)),
    "generated": (200, post("/v2/models/telling/generate_stream", b'{"X":1}')),
    "v1": (200, post("/v1/objectives/plain/infer", b'{"context":{},"inputs":{"X":[1]}}')),
    "v1 stream": (200, post("/v1/objectives/telling/stream", b'{"context":{},"inputs":{"X":[1]}}')),
    "resolved": (200, post("/v1/objectives/plain/resolve", b'{"context":{}}')),
    "malformed": (400, post("/v2/models/plain/infer", b"{}", {"Tidegate-Context": "{"})),
    "malformed v1": (400, post("/v1/objectives/plain/infer", b"{")),
    "unknown": (404, post("/v2/models/other/infer", b"{}")),
    "unknown v1": (404, post("/v1/objectives/other/infer", b'{"context":{},"inputs":{}}')),
    "unknown path": (404, post("/v3", b"{}")),
    "not HTTP": (505, b"GET / HTTP/9.1\r\n\r\n"),
}


@pytest.fixture
def served(tmp_path: Path, fake: FakeTriton) -> Iterator[Listening]:
    (tmp_path / "objectives").mkdir()
    shards = "shards: {main: {}}\nmodels: {echo: {shards: [main]}, tally: {shards: [main]}}"
    (tmp_path / "fleet.yaml").write_text(shards)
    for name, rules in OBJECTIVES.items():
        text = f"objective: {name}\nsummary: A test.\nowner: tests\ntimeout_ms: 60000\n{rules}\n"
        (tmp_path / "objectives" / f"{name}.yaml").write_text(text)
    fake.script = script
    app = gateway_app(load_bundle(compile_directory(tmp_path)), {"main": fake.port})
    with listening(app) as running:
        yield running


def answer(connection: socket.socket) -> tuple[int, bytes]:
    with connection.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = {}
        while line := file.readline().strip():
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        if b"content-length" in headers:
            return status, file.read(int(headers[b"content-length"]))
        body = b""
        while size := int(file.readline(), 16):
            body += file.read(size)
            file.readline()
        file.readline()
        return status, body


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def until(check: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < end_s
        time.sleep(0.01)


async def _ended() -> None:
    """Wait until no task is left but this one."""
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0.01)


@pytest.fixture(scope="module", autouse=True)
def _collected() -> None:
    """Collect once what earlier tests of a worker left, which may be a lot."""
    gc.collect()


@contextlib.contextmanager
def no_cycles(served: Listening) -> Iterator[None]:
    """Check that what the block does leaves none of the gateway's objects to the collector, which looks at none that is there
    already."""
    gc.disable()
    gc.freeze()
    try:
        yield
        until(lambda: served.listener.connections == 0)
        served.run(_ended())
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = Counter(
            type(each).__qualname__ for each in gc.garbage if str(type(each).__module__).startswith("tidegate")
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not found


@pytest.mark.parametrize("kind", REQUESTS)
def test_an_answered_request(served: Listening, kind: str) -> None:
    status, request = REQUESTS[kind]
    with no_cycles(served):
        for _ in range(TIMES):
            with socket.create_connection(("127.0.0.1", served.port), PATIENCE_S) as connection:
                connection.sendall(request)
                assert answer(connection)[0] == status


@pytest.mark.parametrize("request_bytes", [binary("plain", LARGE), binary("hedged", LARGE)], ids=["plain", "hedged"])
def test_a_request_whose_caller_leaves_while_it_waits(
    served: Listening, fake: FakeTriton, request_bytes: bytes
) -> None:
    left = threading.Event()

    def wait(request: Received) -> tuple[int, Mapping[str, str], bytes]:
        left.wait(PATIENCE_S)
        return script(request)

    fake.script = wait
    with no_cycles(served):
        for count in range(1, TIMES + 1):
            connection = socket.create_connection(("127.0.0.1", served.port), PATIENCE_S)
            connection.sendall(request_bytes)
            until(lambda count=count: len(fake.received) == count)  # type: ignore[misc]  # bound at once
            reset(connection)
            until(lambda: served.listener.connections == 0)
        left.set()


@pytest.mark.parametrize("path", ["/v2/models/telling/generate_stream", "/v1/objectives/telling/stream"])
def test_a_stream_whose_caller_leaves(served: Listening, fake: FakeTriton, path: str) -> None:
    body = b'{"X":1}' if path.startswith("/v2") else b'{"context":{},"inputs":{"X":[1]}}'

    def tell(request: Received) -> tuple[int, Mapping[str, str], bytes]:
        status, headers, content = script(request)
        # More than the sockets hold, so that the stream is under way when its caller leaves.
        return status, headers, content * 500_000 if request.path.endswith("/generate_stream") else content

    fake.script = tell
    with no_cycles(served):
        for _ in range(TIMES):
            connection = socket.create_connection(("127.0.0.1", served.port), PATIENCE_S)
            connection.sendall(post(path, body))
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            reset(connection)
            until(lambda: served.listener.connections == 0)


def test_a_request_whose_server_ends(served: Listening, fake: FakeTriton) -> None:
    def end(request: Received) -> tuple[int, Mapping[str, str], bytes]:
        if request.method == "POST":
            raise ConnectionAbortedError
        return script(request)

    fake.script = end
    with no_cycles(served):
        for _ in range(TIMES):
            with socket.create_connection(("127.0.0.1", served.port), PATIENCE_S) as connection:
                connection.sendall(binary("plain", LARGE))
                assert answer(connection)[0] in (502, 503)
