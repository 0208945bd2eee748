"""Refused requests, among them those that two parsers could split differently (request smuggling)."""

from __future__ import annotations

import logging

import pytest

from tests.listener.server import Client, Served, get, post, serving

HOST = b"Host: a\r\n"
TE = b"Transfer-Encoding: chunked\r\n"


def _head(line: bytes, *headers: bytes) -> bytes:
    return b"\r\n".join([line, *headers, b"", b""])


def _chunks(body: bytes) -> bytes:
    return b"POST /echo HTTP/1.1\r\n" + HOST + TE + b"\r\n" + body


REFUSED = {
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/0.9 in words": (_head(b"GET / HTTP/0.9", b"Host: a"), 505),
    "HTTP/2.0": (_head(b"GET / HTTP/2.0", b"Host: a"), 505),
    "HTTP/1.2": (_head(b"GET / HTTP/1.2", b"Host: a"), 505),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "RTSP": (_head(b"GET / RTSP/1.0", b"Host: a"), 400),
    "http in lower case": (_head(b"GET / http/1.1", b"Host: a"), 400),
    "method in lower case": (_head(b"get / HTTP/1.1", b"Host: a"), 400),
    "unknown method": (_head(b"FETCH / HTTP/1.1", b"Host: a"), 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40, 400),
    "CONNECT": (_head(b"CONNECT a:80 HTTP/1.1", b"Host: a"), 405),
    "two spaces": (_head(b"GET  / HTTP/1.1", b"Host: a"), 400),
    "tab in the line": (_head(b"GET\t/ HTTP/1.1", b"Host: a"), 400),
    "blank in the target": (_head(b"GET /a b HTTP/1.1", b"Host: a"), 400),
    "blank after the version": (_head(b"GET / HTTP/1.1 ", b"Host: a"), 400),
    "control character": (_head(b"GET /\x01 HTTP/1.1", b"Host: a"), 400),
    "raw UTF-8": (_head("GET /é HTTP/1.1".encode(), b"Host: a"), 400),
    "fragment": (_head(b"GET /a#b HTTP/1.1", b"Host: a"), 400),
    "relative target": (_head(b"GET a HTTP/1.1", b"Host: a"), 400),
    "asterisk": (_head(b"GET * HTTP/1.1", b"Host: a"), 400),
    "another scheme": (_head(b"GET ftp://a/b HTTP/1.1", b"Host: a"), 400),
    "user in the target": (_head(b"GET http://u@a/b HTTP/1.1", b"Host: a"), 400),
    "LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "LF before the request": (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "CR before the request": (b"\r\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "LF after a header": (b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    "CR in a value": (_head(b"GET / HTTP/1.1", b"Host: a", b"X: a\rb"), 400),
    "NUL in a value": (_head(b"GET / HTTP/1.1", b"Host: a", b"X: a\0b"), 400),
    "folded line": (_head(b"GET / HTTP/1.1", b"Host: a", b"X: a", b" b"), 400),
    "blank before the first header": (_head(b"GET / HTTP/1.1", b" Host: a"), 400),
    "blank before the colon": (_head(b"GET / HTTP/1.1", b"Host : a"), 400),
    "no colon": (_head(b"GET / HTTP/1.1", b"Host: a", b"X"), 400),
    "no name": (_head(b"GET / HTTP/1.1", b"Host: a", b": x"), 400),
    "name in UTF-8": (_head(b"GET / HTTP/1.1", b"Host: a", "É: x".encode()), 400),
    "no Host": (_head(b"GET / HTTP/1.1"), 400),
    "two Hosts": (_head(b"GET / HTTP/1.1", b"Host: a", b"Host: a"), 400),
    "two Hosts in HTTP/1.0": (_head(b"GET / HTTP/1.0", b"Host: a", b"Host: b"), 400),
    "Host with a path": (_head(b"GET / HTTP/1.1", b"Host: a/b"), 400),
    "Host with a blank": (_head(b"GET / HTTP/1.1", b"Host: a b"), 400),
    "another expectation": (_head(b"GET / HTTP/1.1", b"Host: a", b"Expect: 200-ok"), 417),
}

POST = b"POST /echo HTTP/1.1\r\n" + HOST
INNER = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
SMUGGLED = {
    "CL.TE": POST + b"Content-Length: 6\r\n" + TE + b"\r\n0\r\n\r\n" + INNER,
    "TE.CL": POST + TE + b"Content-Length: 3\r\n\r\n0\r\n\r\n" + INNER,
    "TE.TE": POST + TE + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + INNER,
    "TE twice": POST + TE + TE + b"\r\n0\r\n\r\n" + INNER,
    "TE list": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + INNER,
    "TE gzip, chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + INNER,
    "TE chunked, gzip": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + INNER,
    "TE with a parameter": POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n" + INNER,
    "TE quoted": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n' + INNER,
    "TE empty": POST + b"Transfer-Encoding:\r\nContent-Length: 0\r\n\r\n" + INNER,
    "TE empty alone": POST + b"Transfer-Encoding:\r\n\r\n" + INNER,
    "TE xchunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + INNER,
    "TE vertical tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + INNER,
    "TE folded": POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + INNER,
    "TE blank before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + INNER,
    "TE tab before the colon": POST + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "TE in HTTP/1.0": b"POST /echo HTTP/1.0\r\nConnection: keep-alive\r\n" + HOST + TE + b"\r\n0\r\n\r\n" + INNER,
    "TE with an upgrade": POST + b"Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: x\r\n\r\n" + INNER,
    "TE and CL with an upgrade": POST
    + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n"
    + TE
    + b"\r\n"
    + INNER,
    "CL+CL": POST + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n" + INNER,
    "CL twice alike": POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + INNER,
    "CL list": POST + b"Content-Length: 0, 0\r\n\r\n" + INNER,
    "CL signed": POST + b"Content-Length: +0\r\n\r\n" + INNER,
    "CL negative": POST + b"Content-Length: -1\r\n\r\n" + INNER,
    "CL hexadecimal": POST + b"Content-Length: 0x0\r\n\r\n" + INNER,
    "CL underscore": POST + b"Content-Length: 0_0\r\n\r\n" + INNER,
    "CL blank inside": POST + b"Content-Length: 0 5\r\n\r\n" + INNER,
    "CL empty": POST + b"Content-Length: \r\n\r\n" + INNER,
    "CL Arabic digits": POST + "Content-Length: ٣\r\n\r\n".encode() + INNER,
    "CL overflow": POST + b"Content-Length: 18446744073709551616\r\n\r\n" + INNER,
    "CL blank before the colon": POST + b"Content-Length : 5\r\n\r\n" + INNER,
    "chunk size overflow": _chunks(b"10000000000000000\r\nabc\r\n0\r\n\r\n" + INNER),
    "chunk size of zeros": _chunks(b"0" * 17 + b"\r\n\r\n" + INNER),
    "chunk size signed": _chunks(b"+0\r\n\r\n" + INNER),
    "chunk size with 0x": _chunks(b"0x0\r\n\r\n" + INNER),
    "chunk size underscore": _chunks(b"0_0\r\n\r\n" + INNER),
    "chunk size empty": _chunks(b"\r\n" + INNER),
    "chunk size and blank": _chunks(b"0 \r\n\r\n" + INNER),
    "blank and chunk size": _chunks(b" 0\r\n\r\n" + INNER),
    "chunk lines end in LF": _chunks(b"3\nabc\n0\n\n" + INNER),
    "last chunk ends in LF": _chunks(b"3\r\nabc\r\n0\n\r\n" + INNER),
    "chunk data ends in LF": _chunks(b"3\r\nabc\n0\r\n\r\n" + INNER),
    "chunk too long": _chunks(b"3\r\nabcd\r\n0\r\n\r\n" + INNER),
    "LF in an extension": _chunks(b"3;a\nabc\r\n0\r\n\r\n" + INNER),
    "CR in an extension": _chunks(b"3;a\rb\r\nabc\r\n0\r\n\r\n" + INNER),
    "long extension": _chunks(b"3;" + b"a" * 300 + b"\r\nabc\r\n0\r\n\r\n" + INNER),
    "trailer without a colon": _chunks(b"0\r\nGET / HTTP/1.1\r\n\r\n" + INNER),
    "trailer folded": _chunks(b"0\r\nA: b\r\n c\r\n\r\n" + INNER),
    "trailers without end": _chunks(b"0\r\n" + b"A: bcdef\r\n" * 3000 + b"\r\n" + INNER),
    "tiny chunks": _chunks(b"1\r\na\r\n" * 30_000 + b"0\r\n\r\n" + INNER),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "in parts"])
def test_refused(listener: Served, client: Client, name: str, whole: bool) -> None:
    request, status = REFUSED[name]
    client.send(post(b"good"))
    assert client.read().body == b"good"
    client.send(*([request] if whole else [request[:7], request[7:]]))
    answer = client.read()
    assert (answer.status, answer.header("connection")) == (status, "close"), answer
    assert answer.error
    assert client.ended()
    assert listener.app.events.count("called") == 1


@pytest.mark.parametrize("name", SMUGGLED)
def test_one_message_has_one_answer(listener: Served, client: Client, name: str) -> None:
    client.send(SMUGGLED[name])
    answer = client.read()
    assert answer.status in (400, 501), answer
    assert client.ended()
    assert listener.app.bodies == []


def test_one_line_per_second_and_nothing_of_the_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tidegate.listener")
    with serving() as served:
        for _ in range(30):
            with served.connect() as client:
                client.send(get(b"/secret?secret", b"X-Secret: secret\r\nSecret : secret\r\n"))
                assert client.read().status == 400
    lines = [record.getMessage() for record in caplog.records]
    assert 1 <= len(lines) <= 3, lines
    assert lines[0].startswith("refused a request of 127.0.0.1:")
    assert "secret" not in caplog.text.lower()
