"""Streams that break off, pause or are read slowly, in front of a scripted server."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tidegate.gateway import DispatchConfig, Dispatcher
from tidegate.gateway.streams import AnswerReader
from tidegate.ports import Endpoint, Served, StreamEnd
from tidegate.rules import Engine
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource
from tidegate.triton.transport import PooledTransport
from tidegate.web import create_app
from tidegate.web.access_log import AccessLog
from tidegate.web.streams import StreamedAnswer

from tests.web.conftest import Host, serving

STREAM = "/v2/models/tallying/generate_stream"
JSON_STREAM, JSON_BODY = "/v1/objectives/tallying/stream", b'{"context": {}, "inputs": {}}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"model_name":"tally","NUMBER":%d}\n\n'
LIVE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
METADATA = b'HTTP/1.1 200 OK\r\nContent-Length: 58\r\n\r\n{"name":"tally","versions":["1"],"inputs":[],"outputs":[]}'
DEAD_STUB = b'data: {"error":"Stub process \'tally_0_0\' is not healthy."}\n\n'

Script = Callable[[socket.socket], None]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Server:
    """Answers each POST as the next of `scripts` says, and closes the connection; health requests get 200."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.posts = 0
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.sock.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self.sock.accept()[0],), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            while data := peer.recv(65_536):
                if data.startswith(b"GET"):
                    peer.sendall(LIVE if b"/health/" in data else METADATA)
                    continue
                # Where something is left unread, a close loses the answer.
                while (head := data.partition(b"\r\n\r\n"))[1] == b"" or len(head[2]) < _length(head[0]):
                    data += peer.recv(65_536)
                self.posts += 1
                script = self.scripts.pop(0)
                script(peer)
                return


def _length(head: bytes) -> int:
    """What the head of a request announces."""
    found = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    return 0 if found is None else int(found[1])


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.sock.close()


@contextlib.contextmanager
def gateway_of(
    engine: Engine, server: Server, log: AccessLog | None = None, **config: float
) -> Iterator[tuple[Host, list[Served]]]:
    served: list[Served] = []
    directory = MemoryEndpointDirectory({"main": (Endpoint("main", "127.0.0.1", server.port),)})
    dispatcher = Dispatcher(PooledTransport(), directory, DispatchConfig(**config))  # type: ignore[arg-type]
    app = create_app(engines=MemoryEngineSource(engine), dispatcher=dispatcher, observe=served.append, log=log)
    with serving(app) as host:
        yield host, served


def read(host: Host) -> tuple[list[dict[str, object]], bool]:
    """Return the events of a stream, and whether its body is complete."""
    connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=20)
    with contextlib.closing(connection):
        connection.request("POST", STREAM, b"{}")
        response = connection.getresponse()
        try:
            body, is_complete = response.read(), True
        except http.client.IncompleteRead as error:
            body, is_complete = error.partial, False
    return [json.loads(each.removeprefix(b"data: ")) for each in body.split(b"\n\n") if each], is_complete


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def two_events_then(rest: Script) -> Script:
    def script(peer: socket.socket) -> None:
        peer.sendall(HEAD + chunk(EVENT % 0) + chunk(EVENT % 1))
        rest(peer)

    return script


def end(peer: socket.socket) -> None:
    peer.sendall(b"0\r\n\r\n")


def hang_up(_peer: socket.socket) -> None:
    return


def test_a_stream_that_breaks_off_ends_with_an_error_and_without_an_end(engine: Engine, server: Server) -> None:
    server.scripts = [two_events_then(hang_up)]
    lines: list[bytes] = []
    with gateway_of(engine, server, AccessLog(lines.append, 0.0)) as (host, served):
        events, is_complete = read(host)
        wait_for(lambda: bool(lines))
    assert [(line["outcome"], line["stream_end"]) for line in map(json.loads, lines)] == [("broken", "broken")], (
        "it is never sampled away"
    )
    assert [event.get("NUMBER") for event in events] == [0, 1, None]
    assert list(events[-1]) == ["error"]
    assert not is_complete
    assert [(each.status, each.stream_end) for each in served] == [(200, StreamEnd.BROKEN)]


def test_a_model_whose_process_ends_within_a_stream_is_like_a_server_that_does(engine: Engine, server: Server) -> None:
    server.scripts = [two_events_then(lambda peer: peer.sendall(chunk(DEAD_STUB) + b"0\r\n\r\n"))]
    with gateway_of(engine, server) as (host, _):
        events, is_complete = read(host)
    assert (list(events[-1]), is_complete) == (["error"], False)
    assert "process has ended" in str(events[-1]["error"])


def test_a_request_that_ends_two_servers_within_its_stream_is_refused(engine: Engine, server: Server) -> None:
    server.scripts = [two_events_then(hang_up)] * 2
    with gateway_of(engine, server, breaker_failures=100) as (host, _):
        read(host)
        time.sleep(1.5)  # one end may break off several streams within a second
        read(host)
        assert host.ask("POST", STREAM, b"{}").status == 422
    assert server.posts == 2


def test_until_the_first_byte_another_attempt_is_made(engine: Engine, server: Server) -> None:
    server.scripts = [lambda peer: peer.sendall(HEAD), two_events_then(end)]
    with gateway_of(engine, server) as (host, served):
        events, is_complete = read(host)
    assert ([event["NUMBER"] for event in events], is_complete) == ([0, 1], True)
    assert [(each.failed_attempts, each.stream_end) for each in served] == [(1, StreamEnd.COMPLETE)]


@pytest.mark.parametrize("limit", ["stream_idle_ms", "stream_most_ms"])
def test_a_stream_has_limits_of_its_own(engine: Engine, server: Server, limit: str) -> None:
    def trickle(peer: socket.socket) -> None:
        for number in range(2, 100):
            time.sleep(0.5 if limit == "stream_idle_ms" else 0.05)
            peer.sendall(chunk(EVENT % number))

    # Where the first event is late, on a busy machine, there is another attempt.
    server.scripts = [two_events_then(trickle)] * 10
    with gateway_of(engine, server, **{limit: 250.0}) as (host, served):
        events, is_complete = read(host)
        wait_for(lambda: bool(served))
    assert (list(events[-1]), is_complete) == (["error"], False)
    assert len(events) < 90
    assert served[0].stream_end is StreamEnd.BROKEN
    assert served[0].stream_ms > 200


def test_a_slow_caller_slows_the_server_and_not_the_gateways_memory(engine: Engine, server: Server) -> None:
    sent = [0]
    large = chunk(b'data: {"x":"' + b"x" * 50_000 + b'"}\n\n')

    def flood(peer: socket.socket) -> None:
        peer.sendall(HEAD)
        while sent[0] < 2000:
            peer.sendall(large)
            sent[0] += 1

    server.scripts = [flood]
    with gateway_of(engine, server) as (host, served), socket.create_connection(("127.0.0.1", host.port)) as caller:
        caller.sendall(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}" % STREAM.encode())
        wait_for(lambda: sent[0] > 20)
        before = -1
        while before != sent[0]:
            before = sent[0]
            time.sleep(0.3)
        assert sent[0] < 600, "most of 100 MB is not accepted from the server"
        caller.close()
        wait_for(lambda: bool(served))
        assert served[0].stream_end is StreamEnd.CALLER_LEFT


def test_an_event_in_small_pieces_is_put_together(engine: Engine, server: Server) -> None:
    def pieces(peer: socket.socket) -> None:
        data = EVENT % 2 + DEAD_STUB.replace(b"Stub process 'tally_0_0'", b"the heart") + EVENT % 3
        for byte in data:
            peer.sendall(chunk(bytes([byte])))
            time.sleep(0.001)
        end(peer)

    server.scripts = [two_events_then(pieces)]
    with gateway_of(engine, server) as (host, _):
        events, is_complete = read(host)
    assert [event.get("NUMBER") for event in events] == [0, 1, 2, None, 3]
    assert "correlation id" in str(events[3]["error"])
    assert is_complete


@pytest.mark.parametrize("path", [STREAM, JSON_STREAM])
def test_a_stream_that_ends_within_an_event_is_broken(engine: Engine, server: Server, path: str) -> None:
    secret = b'data: {"error":"secret of the model"}\n'
    server.scripts = [two_events_then(lambda peer: peer.sendall(chunk(secret) + b"0\r\n\r\n"))]
    with gateway_of(engine, server) as (host, served):
        connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=20)
        with contextlib.closing(connection):
            connection.request("POST", path, JSON_BODY, {"Content-Type": "application/json"})
            with pytest.raises(http.client.IncompleteRead) as broken:
                connection.getresponse().read()
        wait_for(lambda: bool(served))
    assert b"secret" not in broken.value.partial
    assert b"ended within an event" in broken.value.partial
    assert served[0].stream_end is StreamEnd.BROKEN


class Failing:
    """An answer whose next part cannot be read."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def next(self, within_s: float) -> bytes:
        raise self.error

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("error", "end"),
    [(ValueError("unforeseen"), StreamEnd.BROKEN), (asyncio.CancelledError(), StreamEnd.CALLER_LEFT)],
)
def test_only_a_caller_that_leaves_is_reported_as_one_that_left(error: BaseException, end: StreamEnd) -> None:
    ends: list[StreamEnd] = []

    async def send(_message: Any) -> None: ...

    async def pass_on() -> None:
        reader = AnswerReader(Failing(error), time.monotonic, 1.0, math.inf, lambda _error: None)
        await StreamedAnswer(200, [], reader, None, ends.append)({}, send, send)  # type: ignore[arg-type]

    with pytest.raises(type(error)):
        asyncio.run(pass_on())
    assert ends == [end]


def test_a_first_response_that_json_cannot_carry_is_an_event(engine: Engine, server: Server) -> None:
    event = chunk(b'data: {"model_name":"tally","NUMBER":nan}\n\n')
    server.scripts = [lambda peer: peer.sendall(HEAD + event + b"0\r\n\r\n")]
    with gateway_of(engine, server) as (host, _):
        connection = http.client.HTTPConnection("127.0.0.1", host.port, timeout=20)
        with contextlib.closing(connection):
            connection.request("POST", JSON_STREAM, JSON_BODY, {"Content-Type": "application/json"})
            response = connection.getresponse()
            with pytest.raises(http.client.IncompleteRead) as broken:
                response.read()
    assert response.status == 200
    assert broken.value.partial.startswith(b"event: error\ndata: {")
    assert b"JSON cannot carry" in broken.value.partial
