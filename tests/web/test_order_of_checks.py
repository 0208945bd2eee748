"""Refusals before a body is read, and the limit on the bytes of bodies that a gateway holds."""

from __future__ import annotations

import contextlib
import gzip
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tidegate.byte_budget import ByteBudget
from tidegate.gateway import Dispatcher
from tidegate.ports import Endpoint
from tidegate.rules import Engine, compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app

from tests.support.stack import write_rules
from tests.web.conftest import FakeTriton, Host, gateway_app, serving

INFER = "/v2/models/echoing/infer"
V1_INFER = "/v1/objectives/echoing/infer"


def announce(host: Host, path: str, headers: dict[str, str], size_bytes: int = 500_000, sent: bytes = b"") -> int:
    """Return the status of a request of which only the headers and `sent` are sent."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {size_bytes}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection(("127.0.0.1", host.port), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + sent)
        return int(connection.recv(64).split()[1])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Baggage": "x" * 9_000}, 431),
        ({"Tidegate-Timeout-Ms": "soon"}, 400),
        ({"Tidegate-Override": "pair_sum"}, 403),
        ({"Tidegate-Override": "pair_sum", "Content-Type": "text/plain", "Baggage": "x" * 9_000}, 403),
    ],
)
@pytest.mark.parametrize("path", [INFER, V1_INFER])
def test_what_the_headers_show_is_refused_before_the_body_comes(
    scripted: Host, fake: FakeTriton, path: str, headers: dict[str, str], status: int
) -> None:
    assert announce(scripted, path, headers) == status
    assert fake.received == []


def test_so_is_a_context_header_that_cannot_be_read(scripted: Host) -> None:
    assert announce(scripted, INFER, {"Tidegate-Context": "{"}) == 400
    assert announce(scripted, V1_INFER, {"Tidegate-Context": "{}"}) == 400


@pytest.mark.parametrize("path", ["/v2/models/nobody/infer", "/v1/objectives/nobody/infer"])
def test_an_unknown_objective_is_refused_before_the_body_comes(scripted: Host, path: str) -> None:
    assert announce(scripted, path, {}) == 404
    assert announce(scripted, path, {}, 10**15) == 404


@pytest.mark.parametrize("path", [INFER, V1_INFER])
def test_a_body_that_says_that_it_is_too_large_is_not_read(scripted: Host, path: str) -> None:
    assert announce(scripted, path, {}, 10**15) == 413
    assert announce(scripted, path, {}, 0, b"") != 413


def test_a_caller_without_a_grant_is_refused_before_the_body_comes(fake: FakeTriton, tmp_path: Path) -> None:
    rules = write_rules(tmp_path, {"main": 1}, {"pair_sum": ["main"]}, echoing="pair_sum", other="pair_sum")
    (rules / "callers.yaml").write_text("callers: {console: {objectives: [other]}}")
    with serving(gateway_app(load_bundle(compile_directory(rules)), {"main": fake.port})) as host:
        for path in (INFER, V1_INFER):
            assert announce(host, path, {"Tidegate-Caller": "console"}) == 403
            assert announce(host, path, {}) == 403


@pytest.fixture
def budget() -> ByteBudget:
    return ByteBudget(300_000)


@pytest.fixture
def bounded(engine: Engine, fake: FakeTriton, budget: ByteBudget) -> Iterator[Host]:
    """A gateway that holds at most 300 000 bytes."""
    directory = MemoryEndpointDirectory({"main": (Endpoint("main", "127.0.0.1", fake.port),)})
    dispatcher = Dispatcher(PooledTransport(), directory)
    app = create_app(engines=MemoryEngineSource(engine), dispatcher=dispatcher, budget=budget)
    with serving(app) as host:
        yield host


@pytest.mark.parametrize("path", [INFER, V1_INFER])
def test_a_body_beyond_the_budget_is_refused_and_may_come_again(bounded: Host, budget: ByteBudget, path: str) -> None:
    reply = bounded.ask("POST", path, b" " * 400_000)
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert b"max_buffered_bytes" in reply.body
    assert budget.used_bytes == 0


def test_a_request_gives_its_bytes_back_however_it_ends(bounded: Host, fake: FakeTriton, budget: ByteBudget) -> None:
    for _ in range(5):
        assert bounded.ask("POST", INFER, b" " * 200_000).status == 200
    fake.script = lambda request: (500, {}, b"{}")
    for path in (INFER, V1_INFER):
        assert bounded.ask("POST", path, b"{" * 200).status >= 400
    with socket.create_connection(("127.0.0.1", bounded.port), timeout=10) as connection:
        connection.sendall(
            f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 250000\r\n\r\n".encode() + b" " * 100_000
        )
    # The request that was cut off holds nothing any more, so there is room for another one.
    fake.script = lambda request: (200, {}, b"{}")
    with contextlib.suppress(ConnectionError):
        assert bounded.ask("POST", INFER, b" " * 290_000).status == 200


def test_what_is_only_announced_keeps_nobody_out(bounded: Host) -> None:
    with contextlib.ExitStack() as open_ones:
        for _ in range(10):
            connection = socket.create_connection(("127.0.0.1", bounded.port), timeout=10)
            open_ones.enter_context(connection)
            connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 299999\r\n\r\n".encode() + b" ")
        assert bounded.ask("POST", INFER, b" " * 100_000).status == 200


MOST_JSON = 20_000


@pytest.fixture
def small(engine: Engine, fake: FakeTriton) -> Iterator[Host]:
    """A gateway with a low limit on JSON."""
    directory = MemoryEndpointDirectory({"main": (Endpoint("main", "127.0.0.1", fake.port),)})
    app = create_app(
        engines=MemoryEngineSource(engine),
        dispatcher=Dispatcher(PooledTransport(), directory),
        max_json_bytes=MOST_JSON,
    )
    with serving(app) as host:
        yield host


def test_json_that_servers_parse_slowly_is_refused_before_it_comes(small: Host, fake: FakeTriton) -> None:
    assert announce(small, INFER, {}, MOST_JSON + 1) == 413
    assert fake.received == []
    tensors = b'{"inputs": []}' + bytes(3 * MOST_JSON)
    answer = small.ask("POST", INFER, tensors, {"Inference-Header-Content-Length": "14"})
    assert answer.status == 200, "tensors in binary are no JSON"
    assert fake.received[-1].body == tensors


@pytest.mark.parametrize("extra", [0, 1])
def test_compressed_json_counts_as_it_inflates(small: Host, fake: FakeTriton, extra: int) -> None:
    body = b'{"inputs": []}'.ljust(MOST_JSON + extra)
    answer = small.ask("POST", INFER, gzip.compress(body), {"Content-Encoding": "gzip"})
    assert answer.status == (413 if extra else 200)
    assert len(fake.received) == 1 - extra


def test_json_in_chunks_counts_as_it_comes(small: Host, fake: FakeTriton) -> None:
    with socket.create_connection(("127.0.0.1", small.port), timeout=10) as connection:
        connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(3):
            connection.sendall(b"2710\r\n" + b" " * 10_000 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(64).split()[1] == b"413"
    assert fake.received == []
