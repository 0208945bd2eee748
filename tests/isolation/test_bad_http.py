"""Malformed or ambiguous HTTP/1.1 is refused, and does not affect other callers' requests."""

from __future__ import annotations

import threading

import pytest

from tests.isolation.conftest import Bystander
from tests.isolation.place import Place, infer, tensors
from tests.support.wire import Wire, ask, ask_all, message

HOST = b"Host: gateway\r\n"
CALLER = b"Tidegate-Caller: attacker\r\n"
GOOD = infer("quiet")
LIVE = b"GET /v2/health/live HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /v2/models/quiet/infer HTTP/1.1\r\n" + HOST + CALLER

REFUSED: dict[str, bytes] = {
    "no Host": b"GET /v2/health/live HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /v2/health/live HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "HTTP/0.9": b"GET /v2/health/live\r\n\r\n",
    "HTTP/2.0": b"GET /v2/health/live HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/1.9": b"GET /v2/health/live HTTP/1.9\r\n" + HOST + b"\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TE gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE chunked, gzip": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "TE xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a list of lengths": POST + b"Content-Length: 2, 2\r\n\r\n{}",
    "a negative length": POST + b"Content-Length: -2\r\n\r\n{}",
    "a signed length": POST + b"Content-Length: +2\r\n\r\n{}",
    "a length and chunks": POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"GET /v2 HTTP/1.1\r\n" + HOST + b"X-A: 1\r\n 2\r\n\r\n",
    "a blank before a colon": b"GET /v2 HTTP/1.1\r\n" + HOST + b"X-A : 1\r\n\r\n",
    "a bare LF": b"GET /v2 HTTP/1.1\nHost: gateway\n\n",
    "a bare CR": b"GET /v2 HTTP/1.1\r\n" + HOST + b"X-A: a\rb\r\n\r\n",
    "NUL in a header": b"GET /v2 HTTP/1.1\r\n" + HOST + b"X-A: a\0b\r\n\r\n",
    "a chunk's size in words": POST + b"Transfer-Encoding: chunked\r\n\r\nten\r\n0123456789\r\n0\r\n\r\n",
    "a chunk longer than its size": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n01\r\n0\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(512),
    "blanks in the path": b"GET /v2/health/live /v2 HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_two_readers_could_read_in_two_ways_is_refused(place: Place, name: str) -> None:
    with Wire(place.port, 10) as wire:
        reply = wire.send(REFUSED[name] + LIVE).reply()
        assert reply is None or reply.status in (400, 405, 414, 431, 501, 505), reply
        assert wire.closed(), "the connection goes on after a request that cannot be read"


@pytest.mark.parametrize("headers", [
    (("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAAQAAP__")),
    (("Connection", "Upgrade"), ("Upgrade", "websocket")),
    (("Upgrade", "h2c"),),
])  # fmt: skip
def test_an_upgrade_is_ignored_and_the_body_is_the_requests(place: Place, headers: tuple[tuple[str, str], ...]) -> None:
    smuggled = tensors([0.5], id=LIVE.decode())
    first, second = ask_all(place.port, infer("quiet", smuggled, "attacker", *headers) + LIVE, 2)
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == (200, 200)
    assert first.json()["model_name"] == "quiet"
    assert second.json() == {"live": True}


def test_a_bad_request_behind_a_good_one_does_not_cost_it_its_answer(place: Place) -> None:
    first, second = ask_all(place.port, infer("slow") + b"GET / HTTP/7\r\n\r\n", 2)
    assert first is not None
    assert first.status == 200
    assert second is None or second.status in (400, 505)


def test_a_refused_expectation_ends_the_connection_or_leaves_the_next_request_whole(place: Place) -> None:
    head = message("POST", "/v2/models/quiet/infer", (("Tidegate-Caller", "attacker"), ("Expect", "100-continue")))
    head = head.replace(b"Content-Length: 0", b"Content-Length: 100000000")
    with Wire(place.port) as wire:
        reply = wire.send(head).reply()
        assert reply is not None
        assert reply.status == 413
        assert reply.headers.get("connection") == "close"
        assert wire.closed()


@pytest.mark.parametrize("path", ["/v2%2fhealth%2flive", "/v2/health%2Flive", "/v2/../v2/health/live", "//v2/health/live",
                                  "/v2/health;x/live", "/v2/health/live/", "/v2/%68ealth/live"])  # fmt: skip
def test_a_path_has_one_spelling(place: Place, path: str) -> None:
    assert place.ask(message("GET", path, [("Tidegate-Caller", "attacker")])).status == 404


BODIES: dict[str, bytes] = {
    "a lone surrogate as a sequence": b'{"inputs": [], "parameters": {"sequence_id": "\\ud800"}}',
    "a lone surrogate as context": b'{"inputs": [], "parameters": {"country": "\\ud800"}}',
    "a rule's parameter": tensors([0.5], parameters={"Tidegate-Param-top_k": 99}),
    "a rule's parameter in other case": tensors([0.5], parameters={"tIDEGATE-param-TOP_K": 99}),
    "a rule's parameter, escaped": tensors([0.5], parameters={"X": 1}).replace(
        b'"X": 1', b'"\\u0054idegate-Param-x": 1'
    ),
    "a reserved parameter": tensors([0.5], parameters={"tidegate": 1}),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_speaks_for_the_rules_or_is_no_text_is_malformed(place: Place, name: str) -> None:
    reply = place.ask(infer("quiet", BODIES[name]))
    assert reply.status == 400, reply.body


def test_a_model_sees_the_rules_parameters_and_no_others_of_that_name(place: Place) -> None:
    request = infer("quiet", (0.5,), "attacker", ("Tidegate-Param-top_k", "99"), ("tidegate-param-other", "1"))
    (_, seen) = place.ask(request).json()["outputs"]
    assert "99" not in seen["data"][0]
    assert "other" not in seen["data"][0]
    assert '"20"' in seen["data"][0]


def test_bad_requests_are_logged_in_a_few_lines_without_advice(place: Place) -> None:
    before = len(place.stack.errors.splitlines())
    for _ in range(200):
        ask(place.port, b"nonsense\r\n\r\n")
        ask(place.port, b"GET /v2 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
    lines = place.stack.errors.splitlines()[before:]
    assert len(lines) < 60, lines
    assert not [line for line in lines if "install" in line or "nonsense" in line]


def test_connections_that_never_finish_their_request_are_ended(place: Place, bystander: Bystander) -> None:
    beginnings = [b"", b"G", b"GET /v2 HTTP/1.1\r\nHost: a\r\n", POST + b"Content-Length: 100\r\n\r\n{"]
    wires = [Wire(place.port, 30) for _ in range(160)]
    with bystander():
        for number, wire in enumerate(wires):
            wire.send(beginnings[number % len(beginnings)])
        threads = [threading.Thread(target=_drip, args=(wire,)) for wire in wires[1:9]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for wire in wires:
            reply = wire.reply()
            assert reply is None or (reply.status in (400, 408) and wire.closed())
            wire.socket.close()


def _drip(wire: Wire) -> None:
    """Send a byte now and then, for less than the whole test."""
    event = threading.Event()
    for _ in range(10):
        wire.send(b"a")
        event.wait(0.2)
