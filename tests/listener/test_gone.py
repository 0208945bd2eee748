"""Callers that disconnect, callers that only stop sending, and a listener that stops."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import time

import pytest

from tests.listener.server import Client, get, post, serving, until


def _reset(client: Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.sock.close()


def _close(client: Client) -> None:
    client.sock.close()


WAYS = pytest.mark.parametrize("leave", [_close, _reset])


@WAYS
def test_an_app_that_awaits_something_else_is_cancelled(leave: object) -> None:
    with serving() as served, served.connect() as client:
        client.send(post(b"abc", b"/wait"))
        until(lambda: "waiting" in served.app.events)
        assert callable(leave)
        leave(client)
        until(lambda: "cancelled" in served.app.events)
        until(lambda: served.listening.listener.connections == 0)


@WAYS
def test_an_app_that_receives_gets_http_disconnect(leave: object) -> None:
    with serving() as served, served.connect() as client:
        client.send(get(b"/watch"))
        until(lambda: "called" in served.app.events)
        assert callable(leave)
        leave(client)
        until(lambda: "http.disconnect" in served.app.events)
        until(lambda: "returned" in served.app.events)


@WAYS
def test_a_body_that_ends_early(leave: object) -> None:
    with serving() as served, served.connect() as client:
        client.send(post(b"abc")[:-1])
        until(lambda: "called" in served.app.events)
        assert callable(leave)
        leave(client)
        until(lambda: "disconnect" in served.app.events)


@WAYS
def test_an_app_that_sends_is_ended(leave: object) -> None:
    with serving() as served, served.connect() as client:
        client.send(get(b"/large"))
        until(lambda: "sent" in served.app.events)
        assert callable(leave)
        leave(client)
        until(lambda: served.listening.listener.connections == 0)
        until(lambda: "cancelled" in served.app.events or "returned" in served.app.events)


def test_whoever_only_stops_sending_gets_its_answer() -> None:
    with serving() as served, served.connect() as client:
        client.send(post(b"abc", b"/wait"))
        until(lambda: "waiting" in served.app.events)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.read().status == 100, "the probe that a caller that is gone would answer with a reset"
        time.sleep(0.5)
        served.go_on()
        assert client.read().body == b"waited"
        assert client.ended()
        assert "cancelled" not in served.app.events


def test_requests_sent_ahead_are_answered_after_the_end() -> None:
    with serving() as served, served.connect() as client:
        client.send(b"GET /wait HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + post(b"one") + post(b"two"))
        client.sock.shutdown(socket.SHUT_WR)
        until(lambda: "waiting" in served.app.events)
        served.go_on()
        assert [client.read().body for _ in range(3)] == [b"waited", b"one", b"two"]
        assert client.ended()


@pytest.mark.parametrize("sent", [b"", b"GET", get()[:-2], b"\r\n"])
def test_an_end_without_a_request(sent: bytes) -> None:
    with serving() as served, served.connect() as client:
        client.send(sent)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.ended()
        until(lambda: served.listening.listener.connections == 0)


def test_a_stop_lets_requests_end() -> None:
    with serving() as served, served.connect() as client, served.connect() as idle, served.connect() as partial:
        idle.send(post(b"abc"))
        assert idle.read().status == 200
        client.send(get(b"/wait"))
        partial.send(post(b"late")[:5])
        until(lambda: "waiting" in served.app.events)
        stopped = served.stop(20)
        assert idle.ended(), "what is idle is closed at once"
        with pytest.raises(ConnectionRefusedError):
            served.connect()
        partial.send(post(b"late")[5:])
        late = partial.read()
        assert (late.body, late.header("connection")) == (b"late", "close")
        assert partial.ended()
        assert not stopped.done()
        served.go_on()
        answer = client.read()
        assert (answer.body, answer.header("connection")) == (b"waited", "close")
        assert client.ended()
        stopped.result(20)


def test_a_stop_ends_what_takes_longer() -> None:
    with contextlib.ExitStack() as stack:
        served = stack.enter_context(serving())
        waiting, midway, partial = (stack.enter_context(served.connect()) for _ in range(3))
        waiting.send(get(b"/wait"))
        midway.send(get(b"/large"))
        partial.send(b"GET")
        until(lambda: "waiting" in served.app.events and "sent" in served.app.events)
        served.stop(0.1).result(20)
        for client in (waiting, partial):
            answer = client.read()
            assert (answer.status, answer.header("retry-after"), answer.header("connection")) == (503, "1", "close")
            assert answer.error.startswith("the gateway is stopping")
        until(lambda: served.app.events.count("cancelled") == 2)
        with contextlib.suppress(ConnectionResetError):
            assert b"\r\n0\r\n\r\n" not in midway.rest()[-10:], "an answer that was cut must not look whole"


def test_nothing_of_a_caller_that_left_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving() as served:
        for _ in range(50):
            with served.connect() as client:
                client.send(post(b"abc", b"/wait"))
        until(lambda: served.app.events.count("cancelled") + served.app.events.count("called") >= 50)
        until(lambda: served.listening.listener.connections == 0)
        assert served.healthy()
    assert "exception" not in caplog.text.lower(), caplog.text
