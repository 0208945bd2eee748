"""Limits on connections: sizes, times, memory and count."""

from __future__ import annotations

import gc
import socket
import time

import pytest
from tidegate.listener.connection import Connection
from tidegate.listener.exchange import Exchange
from tidegate.listener.head import HeadReader

from tests.listener.server import Client, Served, chunked, get, post, serving, until
from tests.support.listening import PATIENCE_S

SHORT_S = 0.5


def _head_of(size_bytes: int) -> bytes:
    """Return a request whose head has exactly `size_bytes`."""
    start = get(headers=b"X: ")[:-2]
    return start + b"x" * (size_bytes - len(start) - 4) + b"\r\n\r\n"


@pytest.mark.parametrize("parts", [1, 9], ids=["whole", "in parts"])
@pytest.mark.parametrize(("size_bytes", "status"), [(65_536, 200), (65_537, 431), (400_000, 431)])
def test_size_of_the_head(listener: Served, client: Client, size_bytes: int, status: int, parts: int) -> None:
    request = _head_of(size_bytes)
    step = -(-len(request) // parts)
    client.send(*(request[start : start + step] for start in range(0, min(len(request), 8 * step + 65_600), step)))
    answer = client.read()
    assert answer.status == status, answer
    assert listener.healthy()


def test_an_endless_head(listener: Served, client: Client) -> None:
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 50_000)
    client.send(b"x" * 50_000)
    assert client.read().status == 431
    client.sock.close()
    with listener.connect() as endless:
        endless.send(b"GET /" + b"x" * 50_000)
        assert endless.read().status == 414


@pytest.mark.parametrize(("lines", "status"), [(32, 200), (33, 400), (100_000, 400)])
def test_empty_lines_before_a_request(client: Client, lines: int, status: int) -> None:
    client.send(b"\r\n" * lines + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert client.read().status == status


@pytest.mark.parametrize(("headers", "status"), [(255, 200), (256, 431)])
def test_number_of_headers(client: Client, headers: int, status: int) -> None:
    client.send(get(headers=b"A:\r\n" * headers))
    assert client.read().status == status


@pytest.mark.parametrize(("length", "status"), [(8192, 200), (8193, 414), (60_000, 414)])
def test_length_of_the_target(client: Client, length: int, status: int) -> None:
    client.send(get(b"/" + b"a" * (length - 1)))
    assert client.read().status == status


def test_a_slow_head_is_ended() -> None:
    with serving(head_timeout_s=SHORT_S) as served, served.connect() as client:
        client.send(post(b"good") + b"GET / HTTP/1.1\r\nX-Slow: ")
        assert client.read().body == b"good"
        answer = client.read()
        assert (answer.status, answer.header("connection")) == (408, "close")
        assert f"the head took longer than {SHORT_S} s" in answer.error
        assert client.ended()


def test_a_dripped_head_is_ended() -> None:
    with serving(head_timeout_s=SHORT_S) as served, served.connect() as client:
        dripped = b"GET / HTTP/1.1\r\nX-Slow: " + b"x" * 1000
        with pytest.raises(OSError):  # reset or broken pipe
            for byte in dripped:
                client.send(bytes([byte]))
                time.sleep(0.01)


def test_a_head_has_its_whole_time_however_long_the_connection_was_idle() -> None:
    with serving(idle_timeout_s=0.5, head_timeout_s=20) as served, served.connect() as client:
        client.send(get()[:9])
        time.sleep(1.2)
        client.send(get()[9:])
        assert client.read().status == 200


@pytest.mark.parametrize("request_", [b"", post(b"good")], ids=["never used", "kept"])
def test_an_idle_connection_is_closed(request_: bytes) -> None:
    with serving(idle_timeout_s=SHORT_S) as served, served.connect() as client:
        if request_:
            client.send(request_)
            assert client.read().status == 200
        assert client.ended()


def test_a_request_under_way_is_not_idle() -> None:
    with (
        serving(idle_timeout_s=SHORT_S, head_timeout_s=SHORT_S, body_timeout_s=SHORT_S) as served,
        served.connect() as client,
    ):
        client.send(get(b"/wait"))
        until(lambda: "waiting" in served.app.events)
        time.sleep(3 * SHORT_S)
        served.go_on()
        assert client.read().body == b"waited"


@pytest.mark.parametrize("path", [b"/echo", b"/wait"], ids=["awaited", "not awaited"])
@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_a_body_that_stops_is_ended(framing: bytes, path: bytes) -> None:
    with serving(body_timeout_s=SHORT_S) as served, served.connect() as client:
        client.send(b"POST %b HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n1\r\nx\r\n" % (path, framing))
        answer = client.read()
        assert (answer.status, answer.header("connection")) == (408, "close")
        assert client.ended()
        until(lambda: "disconnect" in served.app.events or "cancelled" in served.app.events)


def test_a_dripped_body_is_ended() -> None:
    with serving(body_timeout_s=SHORT_S, min_bytes_per_s=10_000) as served, served.connect() as client:
        client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n")
        client.sock.setblocking(False)
        end_s = time.monotonic() + 20
        while not served.app.events.count("disconnect"):
            assert time.monotonic() < end_s
            try:
                client.sock.send(b"x")
            except OSError:
                break
            time.sleep(0.01)


def test_a_body_at_the_least_rate_is_read() -> None:
    # Longer than the pauses of a busy machine, and shorter than the body takes.
    with serving(body_timeout_s=2.0, min_bytes_per_s=100) as served, served.connect() as client:
        client.send(post(b"x" * 3000)[:-3000])
        for _ in range(30):
            time.sleep(0.1)
            client.send(b"x" * 100)
        assert client.read().body == b"x" * 3000


def test_a_body_that_the_app_does_not_read_waits_outside() -> None:
    with serving(body_timeout_s=SHORT_S) as served, served.connect() as client:
        body = b"x" * 40_000_000
        client.send(post(body, b"/wait-then-read")[: -len(body)])
        client.sock.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while True:
                sent += client.sock.send(body[sent:])
        assert sent < 20_000_000, "the kernel's buffers and little more"
        time.sleep(3 * SHORT_S)
        client.sock.settimeout(PATIENCE_S)
        served.go_on()
        client.send(body[sent:])
        assert client.read().body == body


def test_a_caller_that_does_not_read_is_disconnected() -> None:
    with serving(write_timeout_s=SHORT_S) as served, served.connect() as client:
        client.send(get(b"/large"))
        until(lambda: "cancelled" in served.app.events)
        assert served.app.events.count("sent") < 20, "the app goes on when the caller does"
        until(lambda: served.listening.listener.connections == 0)


def test_a_caller_that_does_not_read_a_whole_answer_is_disconnected() -> None:
    with serving(write_timeout_s=SHORT_S) as served, served.connect() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(get(b"/whole", b"Connection: close\r\n"))
        until(lambda: "called" in served.app.events)
        until(lambda: served.listening.listener.connections == 0)


def test_a_slow_reader_gets_its_answer() -> None:
    with serving(write_timeout_s=SHORT_S, min_bytes_per_s=1) as served, served.connect() as client:
        client.send(get(b"/whole"))
        received = 0
        while received < 8_000_000:
            time.sleep(0.02)
            received += len(client.sock.recv(200_000))


def test_tiny_chunks_are_bounded_and_small_ones_are_read(client: Client) -> None:
    client.send(chunked(*[b"0123456789"] * 20_000))
    assert len(client.read().body) == 200_000


def test_connections_above_the_limit_get_503() -> None:
    with serving(max_connections=3) as served:
        busy = [served.connect() for _ in range(3)]
        for client in busy:
            client.send(get(b"/wait"))
        until(lambda: served.app.events.count("waiting") == 3)
        for _ in range(5):
            with served.connect() as refused:
                answer = refused.read()
                assert (answer.status, answer.header("retry-after")) == (503, "1")
                assert "too many connections" in answer.error
        served.go_on()
        for client in busy:
            assert client.read().body == b"waited"
            client.sock.close()
        until(lambda: served.listening.listener.connections == 0)
        assert served.healthy()


def test_idle_and_unfinished_connections_make_room() -> None:
    with serving(max_connections=8, idle_timeout_s=60, head_timeout_s=60) as served:
        idle = [served.connect() for _ in range(4)]
        unfinished = [served.connect() for _ in range(4)]
        for client in unfinished:
            client.send(b"GET / HTTP/1.1\r\n")
        until(lambda: served.listening.listener.connections == 8)
        time.sleep(1.2)  # two looks at all connections
        for _ in range(8):
            newer = served.connect()
            newer.send(get(b"/wait"))
            idle.append(newer)
        until(lambda: served.app.events.count("waiting") == 8)
        for client in [*idle, *unfinished]:
            client.sock.close()


def test_connections_leave_nothing_to_the_garbage_collector() -> None:
    with serving() as served:
        gc.collect()
        gc.disable()
        try:
            for request in (
                post(b"abc"),
                chunked(b"abc"),
                get(headers=b"Connection: Upgrade\r\nUpgrade: h2c\r\n"),
                b"bad\r\n\r\n",
            ):
                with served.connect() as client:
                    client.send(request)
                    client.read()
            until(lambda: served.listening.listener.connections == 0)
            until(lambda: not any(isinstance(each, (Connection, HeadReader, Exchange)) for each in gc.get_objects()))
        finally:
            gc.enable()
