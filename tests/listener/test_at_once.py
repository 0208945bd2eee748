"""Answers that the listener gets without the app, since nothing has to be waited for."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.listener.server import Client, Served, chunked, get, post, serving


@dataclass(frozen=True)
class Whole:
    """An answer."""

    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ((b"x-at", b"once"),)
    status: int = 200


def at_once(scope: Any) -> Whole | None:
    """Answer by path; the app answers every other."""
    match scope["path"]:
        case "/now":
            return Whole(scope["query_string"])
        case "/now-closing":
            return Whole(b"bye", ((b"connection", b"close"),))
        case "/now-nothing":
            return Whole(b"", status=204)
        case "/now-failing":
            raise ValueError("the member 4711 has no history")
        case "/now-split":
            return Whole(b"", ((b"x-city", b"a\r\nset-cookie: b"),))
        case "/now-too-short":
            return Whole(b"abc", ((b"content-length", b"30"),))
    return None


@pytest.fixture(scope="module")
def listener() -> Iterator[Served]:
    with serving(at_once) as served:
        yield served


def test_answers_keep_the_connection_and_the_app_is_not_called(listener: Served, client: Client) -> None:
    for number in (b"1", b"2"):
        client.send(get(b"/now?" + number))
        answer = client.read()
        assert (answer.status, answer.body, answer.header("x-at")) == (200, number, "once")
        assert answer.header("date")
        assert answer.header("connection") is None
    client.send(post(b"", b"/now?3"))
    assert client.read().body == b"3"
    assert listener.app.events == []


def test_pipelined_requests_are_answered_in_order_with_those_of_the_app(client: Client) -> None:
    client.send(get(b"/now?1") + post(b"two") + get(b"/now?3") + get(b"/now?4") + post(b"five"))
    assert [client.read().body for _ in range(5)] == [b"1", b"two", b"3", b"4", b"five"]


def test_requests_sent_ahead_are_answered_after_the_end() -> None:
    with serving(at_once) as served, served.connect() as client:
        client.send(post(b"", b"/wait"))
        client.send(get(b"/now?1") + get(b"/now?2") + post(b"three") + get(b"/now?4"))
        client.sock.shutdown(socket.SHUT_WR)
        assert client.read().status == 100, "the probe of a caller that has ended its side"
        served.go_on()
        answers = [client.read() for _ in range(5)]
        assert [answer.status for answer in answers] == [200] * 5
        assert [answers[number].body for number in (0, 3, 4)] == [b"waited", b"three", b"4"]
        assert client.ended()


@pytest.mark.parametrize("request_", [post(b"abc", b"/now"), chunked(b"abc", path=b"/now")], ids=["length", "chunks"])
def test_a_request_with_a_body_is_for_the_app(listener: Served, client: Client, request_: bytes) -> None:
    client.send(request_)
    assert client.read().body == b"abc"
    assert listener.app.events[0] == "called"


def test_head_gets_the_length_and_no_body(client: Client) -> None:
    client.send(b"HEAD /now?abc HTTP/1.1\r\nHost: a\r\n\r\n" + get(b"/now?after"))
    assert client.read(head_only=True).header("content-length") == "3"
    assert client.read().body == b"after"


def test_an_answer_without_a_body_has_no_length(client: Client) -> None:
    client.send(get(b"/now-nothing") + get(b"/now?after"))
    answer = client.read()
    assert (answer.status, answer.header("content-length")) == (204, None)
    assert client.read().body == b"after"


def test_the_connection_closes_if_the_answer_or_the_caller_says_so(listener: Served) -> None:
    for request_ in (
        get(b"/now-closing"),
        get(b"/now", b"Connection: close\r\n"),
        b"GET /now HTTP/1.0\r\nHost: a\r\n\r\n",
    ):
        with listener.connect() as client:
            client.send(request_ + get(b"/now?dropped"))
            answer = client.read()
            assert (answer.status, answer.header("connection")) == (200, "close")
            assert client.ended()


@pytest.mark.parametrize("path", [b"/now-failing", b"/now-split", b"/now-too-short"])
def test_an_error_becomes_a_500_and_its_text_is_in_neither_answer_nor_log(
    listener: Served, client: Client, path: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    client.send(get(path))
    answer = client.read()
    assert (answer.status, answer.error) == (500, "internal error")
    assert client.ended()
    assert "4711" not in caplog.text
    assert listener.healthy()


def test_a_listener_that_stops_answers_what_has_come() -> None:
    with serving(at_once) as served, served.connect() as client:
        client.send(get(b"/now?1"))
        assert client.read().body == b"1"
        client.send(post(b"", b"/wait"))
        stopped = served.stop(5)
        served.go_on()
        assert client.read().body == b"waited"
        assert client.ended()
        stopped.result(10)
