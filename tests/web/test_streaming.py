"""Large bodies of binary tensors are streamed to the model, and never held whole."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from tidegate.byte_budget import ByteBudget
from tidegate.gateway import DispatchConfig, Dispatcher
from tidegate.ports import Endpoint
from tidegate.rules import Engine
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import bodies, create_app

from tests.support.parts import need
from tests.web.conftest import FakeTriton, Host, serving

INFER = "/v2/models/echoing/infer"
STREAM_ABOVE = 100_000
BUDGET = 400_000
LARGE = 4_000_000


def app_for(engine: Engine, port: int, budget: ByteBudget | None = None, max_in_flight: int = 64) -> object:
    directory = MemoryEndpointDirectory({"main": (Endpoint("main", "127.0.0.1", port),)})
    return create_app(
        engines=MemoryEngineSource(engine),
        dispatcher=Dispatcher(PooledTransport(), directory, DispatchConfig(most_in_flight=max_in_flight)),
        stream_above_bytes=STREAM_ABOVE,
        budget=budget or ByteBudget(BUDGET),
    )


@pytest.fixture
def streaming(engine: Engine, fake: FakeTriton) -> Iterator[Host]:
    """A gateway that may hold a tenth of a large body."""
    with serving(app_for(engine, fake.port)) as host:
        yield host


def binary(size_bytes: int, **top: object) -> tuple[bytes, dict[str, str]]:
    described = {
        "name": "X",
        "datatype": "UINT8",
        "shape": [1, size_bytes],
        "parameters": {"binary_data_size": size_bytes},
    }
    head = json.dumps({"inputs": [described], **top}).encode()
    return head + os.urandom(size_bytes), {"Inference-Header-Content-Length": str(len(head))}


@pytest.mark.parametrize("context", [{"Tidegate-Context": '{"is_kids": true}'}, {}])
def test_a_large_body_goes_through_untouched(streaming: Host, fake: FakeTriton, context: dict[str, str]) -> None:
    top = {} if context else {"parameters": {"is_kids": True}}
    body, length = binary(LARGE, **top)
    for _ in range(3):
        reply = streaming.ask("POST", INFER, body, {**context, **length})
        assert (reply.status, reply.headers["tidegate-rule"]) == (200, "kids")
    assert [request.body == body for request in fake.received] == [True] * 3
    assert fake.received[0].header("content-length") == str(len(body))


@pytest.mark.parametrize("size_bytes", [STREAM_ABOVE - 500, STREAM_ABOVE, STREAM_ABOVE + 1, STREAM_ABOVE * 2])
def test_a_body_around_the_limit_is_whole(streaming: Host, fake: FakeTriton, size_bytes: int) -> None:
    body, length = binary(size_bytes)
    assert streaming.ask("POST", INFER, body, length).status == 200
    assert fake.received[0].body == body


def test_what_is_all_json_is_held_within_the_budget(streaming: Host, fake: FakeTriton) -> None:
    text = b'{"inputs": [], "x": "%b"}' % (b"x" * LARGE)
    reply = streaming.ask("POST", INFER, text)
    assert (reply.status, fake.received) == (503, [])


def test_what_would_end_a_server_is_seen_in_the_start(streaming: Host, fake: FakeTriton) -> None:
    body, length = binary(LARGE)
    text = body.replace(b"[1, 4000000]", b"[1, 9999999]", 1)
    reply = streaming.ask("POST", INFER, text, length)
    assert (reply.status, "shape" in reply.error, fake.received) == (400, True, [])


def test_it_is_sent_once(streaming: Host, fake: FakeTriton) -> None:
    fake.script = lambda request: (503, {}, b"")
    body, length = binary(LARGE)
    assert streaming.ask("POST", INFER, body, length).status == 503
    assert len(fake.received) == 1


@pytest.mark.parametrize("announced", [-STREAM_ABOVE, 0, STREAM_ABOVE])
def test_an_events_body_counts_and_not_the_length_that_it_announces(
    engine: Engine, fake: FakeTriton, announced: int
) -> None:
    """Otherwise the surplus would become the server's next request, on a path that is not for callers."""
    need("mangum")
    from mangum import Mangum
    from tidegate.aws.http_event import HttpEvent

    text, headers = binary(2 * STREAM_ABOVE)
    body = text + b"POST /v2/repository/models/m/unload HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    event = {
        "version": "2.0",
        "rawPath": INFER,
        "headers": {**headers, "content-length": str(len(text) + announced)},
        "requestContext": {"http": {"method": "POST", "path": INFER}},
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }
    function = Mangum(app_for(engine, fake.port), lifespan="off", custom_handlers=[HttpEvent])
    with asyncio.Runner() as loop:
        asyncio.set_event_loop(loop.get_loop())
        answer = function(event, None)  # type: ignore[arg-type]  # an event and a context of Lambda
    asyncio.set_event_loop(None)
    assert answer["statusCode"] == 200
    assert [(request.path, request.body) for request in fake.received] == [("/v2/models/echo/infer", body)]


@pytest.fixture
def upstream() -> Iterator[tuple[int, queue.Queue[int]]]:
    """A server that counts the bytes of its one request until the connection closes, and does not answer."""
    listener = socket.create_server(("127.0.0.1", 0))
    counted: queue.Queue[int] = queue.Queue()

    def serve() -> None:
        connection, _ = listener.accept()
        total = 0
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            while chunk := connection.recv(65536):
                total += len(chunk)
        counted.put(total)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], counted
    listener.close()


def test_a_caller_that_leaves_ends_the_exchange_with_the_model(
    engine: Engine, upstream: tuple[int, queue.Queue[int]]
) -> None:
    port, counted = upstream
    budget = ByteBudget(BUDGET)
    body, length = binary(LARGE)
    with serving(app_for(engine, port, budget)) as host:
        head = "".join(f"{name}: {value}\r\n" for name, value in {**length, "Content-Length": str(len(body))}.items())
        with socket.create_connection(("127.0.0.1", host.port), timeout=20) as connection:
            connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + body[: LARGE // 2])
        assert counted.get(timeout=20) < len(body)
    assert budget.used_bytes == 0


def test_a_slow_callers_body_is_held_instead(engine: Engine, fake: FakeTriton) -> None:
    body, length = binary(STREAM_ABOVE * 2)
    with serving(app_for(engine, fake.port)) as host:
        head = "".join(f"{name}: {value}\r\n" for name, value in {**length, "Content-Length": str(len(body))}.items())
        with socket.create_connection(("127.0.0.1", host.port), timeout=20) as connection:
            connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + body[:20])
            threading.Event().wait(2.6)
            connection.sendall(body[20 : STREAM_ABOVE + 50])
            threading.Event().wait(0.3)
            assert fake.received == []
            connection.sendall(body[STREAM_ABOVE + 50 :])
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
    assert fake.received[0].body == body


def test_callers_that_leave_take_up_no_room_at_the_model(engine: Engine, fake: FakeTriton) -> None:
    body, length = binary(LARGE)
    # Enough for the start of every body: those that wait for room are held until their turn.
    budget = ByteBudget(10 * LARGE)
    with serving(app_for(engine, fake.port, budget, max_in_flight=2)) as host:
        head = "".join(f"{name}: {value}\r\n" for name, value in {**length, "Content-Length": str(len(body))}.items())
        for _ in range(6):
            with socket.create_connection(("127.0.0.1", host.port), timeout=20) as connection:
                connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{head}\r\n".encode() + body[: LARGE // 2])
        assert host.ask("POST", INFER, body, length).status == 200
    assert budget.used_bytes == 0


@pytest.mark.patches
def test_a_server_that_reads_slowly_is_not_taken_for_a_slow_caller(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "_SOON_S", 0.2)
    body, length = binary(16_000_000)

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            time.sleep(0.6)
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(65536)
            left = len(body) - len(received.partition(b"\r\n\r\n")[2])
            while left:
                left -= len(connection.recv(1 << 20))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        with serving(app_for(engine, listener.getsockname()[1])) as host:
            reply = host.ask("POST", INFER, body, {**length, "Tidegate-Context": '{"is_kids": true}'})
        assert reply.status == 200
        thread.join(20)


def test_a_large_answer_is_passed_on_as_it_arrives(engine: Engine) -> None:
    """The second half of the answer comes only after the caller has read the first."""
    half, read_half = b"x" * STREAM_ABOVE, threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65_536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * len(half)) + half)
                if read_half.wait(20):
                    peer.sendall(half)

        threading.Thread(target=answer, daemon=True).start()
        with serving(app_for(engine, server.getsockname()[1])) as host:
            connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=20)
            connection.request("POST", INFER, b"{}")
            response = connection.getresponse()
            assert response.read(len(half)) == half
            read_half.set()
            assert response.read() == half
            connection.close()


def test_a_large_answer_that_breaks_off_is_shorter_than_announced(engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65_536)
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + b"x" * STREAM_ABOVE)

        threading.Thread(target=answer, daemon=True).start()
        with serving(app_for(engine, server.getsockname()[1])) as host, pytest.raises(http.client.IncompleteRead):
            host.ask("POST", INFER, b"{}")
