"""A caller that disconnects: its request is dropped while it waits for a server."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tidegate.rules import compile_directory, load_bundle

from tests.support.listening import listening
from tests.web.conftest import gateway_app

RULES = "objective: adding\nsummary: Add.\nowner: tests\ntimeout_ms: 600000\nrules: [{id: all, serve: pair_sum}]"


def _request(name: bytes) -> bytes:
    body = b'{"id":"%b","inputs":[]}' % name
    return b"POST /v2/models/adding/infer HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
def test_a_request_that_waits_for_a_server_ends_with_its_caller(tmp_path: Path, reset: bool) -> None:
    (tmp_path / "objectives").mkdir()
    (tmp_path / "fleet.yaml").write_text("shards: {main: {replicas: 1}}\nmodels: {pair_sum: {shards: [main]}}")
    (tmp_path / "objectives" / "adding.yaml").write_text(RULES)
    engine = load_bundle(compile_directory(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as triton:
        triton.settimeout(20)
        limits = {"initial_in_flight": 1, "most_in_flight": 1, "queue_ms": 600_000.0, "silent_ms": 600_000.0}
        app = gateway_app(engine, {"main": triton.getsockname()[1]}, **limits)
        calls: list[str] = []

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            calls.append(scope["path"])
            await app(scope, receive, send)

        with listening(counted) as served, socket.create_connection(("127.0.0.1", served.port), 20) as first:
            first.sendall(_request(b"first"))
            server, _ = triton.accept()
            server.settimeout(20)
            assert b'"first"' in server.recv(65_536)
            with socket.create_connection(("127.0.0.1", served.port)) as second:
                second.sendall(_request(b"second"))
                _until(lambda: len(calls) == 2)
                if reset:
                    second.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            _until(lambda: served.listener.connections == 1)
            with socket.create_connection(("127.0.0.1", served.port)) as third, server:
                third.sendall(_request(b"third"))
                _until(lambda: len(calls) == 3)
                server.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                assert b'"third"' in server.recv(65_536)


def _until(check: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 20
    while not check():
        assert time.monotonic() < end_s
        time.sleep(0.01)
