"""Valid requests: framing, connections, the app's scope, and its answers."""

from __future__ import annotations

import http.client
import json
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.listener.server import Client, Served, chunked, get, post, serving, until


@pytest.mark.parametrize(
    "parts",
    [
        [post(b"abc")],
        [post(b"abc")[:-3], b"abc"],
        [bytes([each]) for each in post(b"abc")],
        [chunked(b"a", b"bc")],
        [bytes([each]) for each in chunked(b"a", b"bc")],
        [b"\r\n\r\n" + post(b"abc")],
        [b"\r", b"\n\r\n" + post(b"abc")[:9], post(b"abc")[9:]],
        [b"POST /echo HTTP/1.1\r\nhost: a\r\nTRANSFER-encoding: \tChunked \r\n\r\n3;name=value\r\nabc\r\n0\r\nTrailer: x\r\n\r\n"],
        [b"POST http://elsewhere:80/echo?x HTTP/1.1\r\nHost: a\r\nContent-Length:003 \r\n\r\nabc"],
    ],
    ids=["one write", "head, body", "byte by byte", "chunks", "chunks byte by byte", "blank lines", "blank lines in parts",
         "extension and trailer", "absolute form"],
)  # fmt: skip
def test_a_body_arrives_whole_and_the_connection_is_kept(listener: Served, client: Client, parts: list[bytes]) -> None:
    for _ in range(2):
        client.send(*parts)
        answer = client.read()
        assert (answer.status, answer.body, answer.header("connection")) == (200, b"abc", None)
        assert answer.header("date")


def test_a_large_body_in_both_directions(client: Client) -> None:
    body = bytes(range(256)) * 40_000
    client.send(post(body))
    assert client.read().body == body
    client.send(chunked(body[:1_000_000], body[1_000_000:]))
    assert client.read().body == body


def test_scope(listener: Served, client: Client) -> None:
    client.send(b"PUT /scope?a=%20b&c HTTP/1.1\r\nHost: a:80\r\nX-City: Z\xfcrich\r\nx-city: Bern\r\n\r\n")
    found = json.loads(client.read().body)
    assert found == {
        "type": "http", "http_version": "1.1", "method": "PUT", "scheme": "http", "path": "/scope", "raw_path": "/scope",
        "query_string": "a=%20b&c", "root_path": "", "client": list(client.sock.getsockname()),
        "server": ["127.0.0.1", listener.listening.port],
        "headers": [["host", "a:80"], ["x-city", "Z\xfcrich"], ["x-city", "Bern"]],
    }  # fmt: skip


def test_the_path_is_decoded_and_kept_as_sent(listener: Served, client: Client) -> None:
    client.send(get(b"/%73cope"))
    found = json.loads(client.read().body)
    assert (found["path"], found["raw_path"]) == ("/scope", "/%73cope")


def test_head_has_no_body(client: Client) -> None:
    client.send(b"HEAD /ignore HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = client.read(head_only=True)
    assert (answer.status, answer.header("content-length")) == (200, "6")
    client.send(get())
    assert client.read().status == 200


def test_204_has_no_body_and_no_length(client: Client) -> None:
    client.send(get(b"/empty") + get())
    first = client.read()
    assert (first.status, first.header("content-length"), first.header("transfer-encoding")) == (204, None, None)
    assert client.read().status == 200


def test_an_answer_without_a_length_is_chunked(client: Client) -> None:
    client.send(get(b"/stream") + get())
    answer = client.read()
    assert (answer.header("transfer-encoding"), answer.body) == ("chunked", b"one,two")
    assert client.read().status == 200


def test_http_10(listener: Served) -> None:
    with listener.connect() as client:
        client.send(b"GET /stream HTTP/1.0\r\n\r\n")
        answer = client.read()
        assert (answer.header("connection"), answer.header("transfer-encoding"), answer.body) == (
            "close",
            None,
            b"one,two",
        )
    with listener.connect() as client:
        for _ in range(2):
            client.send(b"GET /ignore HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
            assert client.read().header("connection") == "keep-alive"
        client.send(b"GET /ignore HTTP/1.0\r\n\r\n")
        assert client.read().header("connection") == "close"
        assert client.ended()


def test_the_apps_date_is_sent_once_however_often_it_is_the_same(client: Client) -> None:
    for _ in range(3):
        client.send(get(b"/dated"))
        assert client.read().header("date") == "Mon, 01 Jan 2024 00:00:00 GMT"


@pytest.mark.parametrize("options", [b"close", b"Keep-Alive, Close", b"close\r\nConnection: keep-alive"])
def test_connection_close_is_honoured(client: Client, options: bytes) -> None:
    client.send(get(headers=b"Connection: " + options + b"\r\n"))
    assert client.read().header("connection") == "close"
    assert client.ended()


def test_the_app_can_end_the_connection(client: Client) -> None:
    client.send(get(b"/close"))
    assert client.read().header("connection") == "close"
    assert client.ended()


def test_pipelined_requests_are_answered_in_order(listener: Served, client: Client) -> None:
    client.send(post(b"one", b"/wait-then-read") + chunked(b"two") + post(b"three") + get(b"/ignore") * 50)
    until(lambda: listener.app.events)
    listener.go_on()
    assert [client.read().body for _ in range(53)] == [b"one", b"two", b"three"] + [b"unread"] * 50


def test_requests_sent_ahead_are_not_hoarded() -> None:
    with serving() as served, served.connect() as client:
        client.send(get(b"/wait"))
        until(lambda: "waiting" in served.app.events)
        client.sock.setblocking(False)
        sent = 0
        with pytest.raises(BlockingIOError):
            while sent < 64_000_000:
                sent += client.sock.send(post(b"x" * 100_000))
        client.sock.settimeout(20)
        served.go_on()
        assert client.read().body == b"waited"
        assert client.read().body == b"x" * 100_000


def test_a_bad_request_costs_those_before_it_nothing(listener: Served, client: Client) -> None:
    client.send(post(b"good") + b"NONSENSE\r\n\r\n" + post(b"never"))
    assert client.read().body == b"good"
    refused = client.read()
    assert (refused.status, refused.header("connection")) == (400, "close")
    assert client.ended()
    assert listener.app.bodies == [b"good"]


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
def test_upgrade_is_ignored(client: Client, framing: bytes) -> None:
    upgrade = b"POST /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAA\r\n"
    client.send(upgrade + framing + get(headers=b"Connection: Upgrade\r\nUpgrade: websocket\r\n") + post(b"next"))
    assert [client.read().body for _ in range(3)] == [b"abc", b"", b"next"]


def test_curl_with_http2_upgrade(listener: Served) -> None:
    curl = ["curl", "-sS", "--http2", "-d", "abc", f"http://127.0.0.1:{listener.listening.port}/echo"]
    done = subprocess.run([*curl, "--next", *curl[1:]], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "abcabc"


def test_pythons_client_keeps_its_connection(listener: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", listener.listening.port, timeout=20)
    for body in (b"a", b"b"):
        connection.request("POST", "/echo", body)
        assert connection.getresponse().read() == body
    connection.close()


def test_the_interim_response_comes_when_the_app_reads(client: Client) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n"
    client.send(head)
    assert client.read().status == 100
    client.send(b"abc")
    assert client.read().body == b"abc"
    client.send(head + b"abc")
    assert client.read().body == b"abc", "no interim response is owed for a body that is there"


def test_a_body_that_was_expected_and_not_read_is_no_request(listener: Served, client: Client) -> None:
    client.send(b"POST /ignore HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 60\r\n\r\n")
    answer = client.read()
    assert (answer.status, answer.header("connection")) == (200, "close")
    client.send(get())
    assert client.ended()
    assert listener.app.events.count("called") == 1


def test_the_rest_of_an_unread_body_is_dropped(listener: Served, client: Client) -> None:
    whole = post(b"x" * 50_000, b"/ignore")
    client.send(whole[:1000])
    answer = client.read()
    assert (answer.body, answer.header("connection")) == (b"unread", None)
    client.send(whole[1000:] + post(b"next"))
    assert client.read().body == b"next"


def test_an_early_answer_to_a_large_body_arrives(client: Client) -> None:
    client.send(b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
    client.send(b"x" * 5_000_000)
    answer = client.read()
    assert (answer.body, answer.header("connection")) == (b"unread", "close")
    assert client.ended()


@pytest.mark.parametrize("path", [b"/fail", b"/silent", b"/too-long", b"/too-short", b"/split", b"/status-999"])
def test_an_app_that_fails(listener: Served, client: Client, path: bytes, caplog: pytest.LogCaptureFixture) -> None:
    client.send(post(b"abc", path))
    answer = client.read()
    assert (answer.status, answer.error, answer.header("connection")) == (500, "internal error", "close")
    assert client.ended()
    assert listener.healthy()
    until(lambda: "the app" in caplog.text)
    assert "4711" not in caplog.text, "an error's text may quote the caller"


def test_an_app_that_fails_midway(client: Client) -> None:
    client.send(get(b"/fail-midway"))
    assert client.rest().endswith(b"\r\n\r\n12345")


ALIKE = [
    (post(b"abc"), b"abc"), (post(b"xyz"), b"xyz"), (post(b"\r\n\r"), b"\r\n\r"), (post(b"abcd"), b"abcd"), (post(b""), b""),
    (post(b"abc", headers=b"Connection: keep-alive\r\n"), b"abc"), (chunked(b"ab", b"c"), b"abc"), (get(b"/ignore"), b"unread"),
    (post(b"abc", headers=b"Connection: Upgrade\r\nUpgrade: h2c\r\n"), b"abc"),
]  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turns=st.lists(st.tuples(st.sampled_from(ALIKE), st.integers(0, 150), st.booleans()), min_size=2, max_size=10))
def test_what_a_request_means_does_not_depend_on_those_before_it(
    listener: Served, turns: list[tuple[tuple[bytes, bytes], int, bool]]
) -> None:
    with listener.connect() as client:
        waiting: list[bytes] = []
        for (request, body), cut, reads in turns:
            client.send(*(part for part in (request[:cut], request[cut:]) if part))
            waiting.append(body)
            if reads:
                assert [client.read().body for _ in waiting] == waiting
                waiting = []
        assert [client.read().body for _ in waiting] == waiting


def test_a_head_that_is_sent_again_is_as_it_was(client: Client) -> None:
    head = b"POST /scope?a HTTP/1.1\r\nHost: a\r\nX: %b\r\nContent-Length: 1\r\n\r\nx"
    for value in (b"1", b"1", b"1", b"2", b"1", b"1"):
        client.send(head % value)
        found = json.loads(client.read().body)
        assert found["headers"] == [["host", "a"], ["x", value.decode()], ["content-length", "1"]]
