"""The HTTP client against a server that is scripted byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.errors import EndpointRefusedError, EndpointResetError, EndpointTimeoutError
from tidegate.ports import Endpoint, HttpRequest
from tidegate.triton.connection import Connection
from tidegate.triton.transport import PooledTransport

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], Awaitable[None]]

POST = HttpRequest("POST", "/v2/models/m/infer", [(b"X-Id", b"7")], b"payload")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"


class Scripted:
    """A server on a free port that runs one script per connection; `count` counts the connections."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.count = 0
        self.endpoint = Endpoint("shard", "127.0.0.1", 0)

    async def __aenter__(self) -> Scripted:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.endpoint = Endpoint("shard", "127.0.0.1", self.server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        try:
            await self.script(reader, writer, self.count)
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return head, await reader.readexactly(length)


def answering(*responses: bytes) -> Script:
    """Answers the requests of each connection in turn, then closes it."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        for response in responses:
            await read_request(reader)
            writer.write(response)
            await writer.drain()

    return script


def always(response: bytes) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            await read_request(reader)
            writer.write(response)
            await writer.drain()

    return script


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Runs a coroutine on either event loop."""
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    def runner(main: Any) -> Any:
        with asyncio.Runner(loop_factory=factory) as loop:
            return loop.run(asyncio.wait_for(main, 120))

    return runner


def test_a_request_goes_out_byte_for_byte_and_connections_are_reused(run: Any) -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            seen.append(await read_request(reader))
            writer.write(OK)

    async def main() -> None:
        async with Scripted(script) as server:
            transport = PooledTransport()
            for _ in range(3):
                response = await transport.send(server.endpoint, POST, 5)
            assert (response.status, response.body, response.header(b"content-type")) == (200, b"ok", b"text/plain")
            assert server.count == 1
            await transport.aclose()

    run(main())
    head, body = seen[0]
    assert head.startswith(b"POST /v2/models/m/infer HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"\r\nX-Id: 7\r\n" in head
    assert b"\r\ncontent-length: 7\r\n" in head
    assert body == b"payload"


@pytest.mark.parametrize(
    ("response", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200, b"abcde"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
        (b"HTTP/1.1 102 Processing\r\nX: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 3\r\n\r\n\x00\xff\n", 500, b"\x00\xff\n"),
    ],
)
def test_every_framing_that_keeps_the_connection(run: Any, response: bytes, status: int, body: bytes) -> None:
    async def main() -> None:
        async with Scripted(always(response)) as server:
            transport = PooledTransport()
            for _ in range(2):
                answer = await transport.send(server.endpoint, POST, 5)
                assert (answer.status, answer.body) == (status, body)
                assert answer.header(b"x") is None
            assert server.count == 1
            await transport.aclose()

    run(main())


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nok",
    ],
)
def test_a_response_may_end_its_connection(run: Any, response: bytes) -> None:
    async def main() -> None:
        async with Scripted(answering(response)) as server:
            transport = PooledTransport()
            for _ in range(2):
                assert (await transport.send(server.endpoint, POST, 5)).body == b"ok"
            assert server.count == 2

    run(main())


def test_head_has_no_body(run: Any) -> None:
    async def main() -> None:
        async with Scripted(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")) as server:
            response = await PooledTransport().send(server.endpoint, HttpRequest("HEAD", "/v2"), 5)
            assert (response.status, response.body) == (200, b"")

    run(main())


def test_large_bodies_both_ways(run: Any) -> None:
    size = 24 * 1024 * 1024
    sent = bytes(range(256)) * (size // 256)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        _, body = await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        writer.write(body)
        await writer.drain()

    async def main() -> None:
        async with Scripted(script) as server:
            response = await PooledTransport().send(server.endpoint, HttpRequest("POST", "/", (), sent), 15)
            assert response.body == sent

    run(main())


def test_a_stale_pooled_connection_is_replaced_once_and_at_once(run: Any) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await read_request(reader)
        writer.write(OK)
        await writer.drain()
        if number == 1:
            # Takes the second request and dies without a byte of an answer.
            await read_request(reader)
            return
        await read_request(reader)

    async def main() -> None:
        async with Scripted(script) as server:
            transport = PooledTransport()
            assert (await transport.send(server.endpoint, POST, 5)).status == 200
            assert (await transport.send(server.endpoint, POST, 5)).status == 200
            assert server.count == 2

    run(main())


def test_a_request_that_may_be_sent_once_is_not_sent_again(run: Any) -> None:
    async def main() -> None:
        async with Scripted(answering(OK, b"")) as server:
            transport = PooledTransport()
            once = HttpRequest("POST", "/", (), b"x", send_once=True)
            assert (await transport.send(server.endpoint, once, 5)).status == 200
            with pytest.raises(EndpointResetError):
                await transport.send(server.endpoint, once, 5)
            assert server.count == 1

    run(main())


def test_a_close_that_came_while_the_process_was_frozen_is_seen_before_sending(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.triton.pool.LOOK_AGAIN_AFTER_S", 0.0)

    async def main() -> None:
        async with Scripted(answering(OK)) as server:
            transport = PooledTransport()
            once = HttpRequest("POST", "/", (), b"x", send_once=True)
            for expected in (1, 2):
                assert (await transport.send(server.endpoint, once, 5)).status == 200
                assert server.count == expected
                await asyncio.sleep(0.05)

    run(main())


def test_no_second_attempt_on_a_fresh_connection(run: Any) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await read_request(reader)

    async def main() -> None:
        async with Scripted(script) as server:
            with pytest.raises(EndpointResetError):
                await PooledTransport().send(server.endpoint, POST, 5)
            assert server.count == 1

    run(main())


@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    ],
)
@pytest.mark.parametrize("served_before", [False, True])
def test_a_broken_response_is_a_reset_and_is_not_retried(run: Any, part: bytes, served_before: bool) -> None:
    async def main() -> None:
        async with Scripted(answering(*([OK] if served_before else []), part)) as server:
            transport = PooledTransport()
            if served_before:
                await transport.send(server.endpoint, POST, 5)
            with pytest.raises(EndpointResetError):
                await transport.send(server.endpoint, POST, 5)
            assert server.count == 1

    run(main())


def test_nobody_listens(run: Any) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        endpoint = Endpoint("shard", "127.0.0.1", reserved.getsockname()[1])
        with pytest.raises(EndpointRefusedError):
            run(PooledTransport().send(endpoint, POST, 5))


def test_a_connection_that_is_refused_is_freed_without_the_collector(run: Any) -> None:
    async def main() -> list[Any]:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            endpoint = Endpoint("shard", "127.0.0.1", bound.getsockname()[1])
            with contextlib.suppress(EndpointRefusedError):
                await PooledTransport().send(endpoint, POST, 5)
        await asyncio.sleep(0)
        return [each for each in gc.get_objects() if isinstance(each, Connection)]

    gc.collect()
    gc.disable()
    try:
        assert run(main()) == []
    finally:
        gc.enable()


def test_a_connection_that_is_closed_as_soon_as_it_is_open_is_refused(run: Any) -> None:
    # As by the kernel of a server that is killed. The loop is slow, so that both have come when the request is sent.
    async def delay_the_loop() -> None:
        while True:
            time.sleep(0.002)
            await asyncio.sleep(0)

    def reset_all(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listening.accept()
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                accepted.close()

    async def main(endpoint: Endpoint) -> None:
        delaying = asyncio.create_task(delay_the_loop())
        for _ in range(10):
            ended: list[float | None] = []
            with pytest.raises((EndpointRefusedError, EndpointResetError)) as error:
                await PooledTransport().send(endpoint, POST, 5, ended.append)
            assert ended == ([None] if error.type is EndpointResetError else []), "what was not sent is not ended"
        delaying.cancel()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        resetting = threading.Thread(target=reset_all, args=(listening,))
        resetting.start()
        try:
            run(main(Endpoint("shard", "127.0.0.1", listening.getsockname()[1])))
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            resetting.join()


def test_a_name_that_does_not_resolve_is_refused(run: Any) -> None:
    with pytest.raises(EndpointRefusedError):
        run(PooledTransport(connect_timeout_s=5).send(Endpoint("shard", "no-such-host.invalid", 1), POST, 10))


def test_a_late_response_answers_nobody(run: Any) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            _, body = await read_request(reader)
            if body == b"slow":
                await asyncio.sleep(0.2)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()

    async def main() -> None:
        async with Scripted(script) as server:
            transport = PooledTransport()
            await transport.send(server.endpoint, POST, 5)
            with pytest.raises(EndpointTimeoutError):
                await transport.send(server.endpoint, HttpRequest("POST", "/", (), b"slow"), 0.05)
            for number in range(5):
                body = b"fast-%d" % number
                assert (await transport.send(server.endpoint, HttpRequest("POST", "/", (), body), 5)).body == body
                await asyncio.sleep(0.06)
            assert server.count == 2

    run(main())


def test_a_cancelled_request_leaves_no_connection_behind(run: Any) -> None:
    came = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            _, body = await read_request(reader)
            if body == b"slow":
                came.set()
                await asyncio.sleep(0.5)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def main() -> None:
        async with Scripted(script) as server:
            transport = PooledTransport()
            task = asyncio.create_task(transport.send(server.endpoint, HttpRequest("POST", "/", (), b"slow"), 5))
            await came.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await transport.send(server.endpoint, HttpRequest("POST", "/", (), b"next"), 5)).body == b"next"
            assert server.count == 2

    run(main())


def test_a_request_that_is_cancelled_as_its_answer_comes_leaves_the_connection_to_the_next_one(run: Any) -> None:
    async def work() -> None:
        async with Scripted(always(OK)) as server:
            transport = PooledTransport()
            is_answered = asyncio.Event()
            sending: list[asyncio.Task[Any]] = []

            async def following() -> Any:
                # It goes on once the first answer is parsed, before the first request does.
                await is_answered.wait()
                sending[0].cancel()
                return await transport.send(server.endpoint, POST, 60)

            second = asyncio.create_task(following())
            await asyncio.sleep(0)
            sending.append(asyncio.create_task(transport.send(server.endpoint, POST, 60, lambda _: is_answered.set())))
            assert (await second).body == b"ok"
            with pytest.raises(asyncio.CancelledError):
                await sending[0]
            assert server.count == 1
            await transport.aclose()

    run(work())


def test_a_stream_that_is_cancelled_while_it_begins_is_closed(run: Any) -> None:
    ends: asyncio.Queue[None] = asyncio.Queue()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _: int) -> None:
        try:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok")
            assert await reader.read(1) == b""
        finally:
            ends.put_nowait(None)

    async def work() -> None:
        async with Scripted(script) as server:
            transport = PooledTransport()
            for turns in range(40):
                count = server.count
                request = HttpRequest("POST", "/", (), b"payload", stream_above_bytes=0)
                sending = asyncio.create_task(transport.send(server.endpoint, request, 60))
                while server.count == count:
                    await asyncio.sleep(0)
                # Somewhere around the first byte of the answer.
                for _ in range(turns):
                    await asyncio.sleep(0)
                sending.cancel()
                try:
                    response = await sending
                except asyncio.CancelledError:
                    pass
                else:
                    assert response.stream is not None
                    response.stream.close()
                await asyncio.wait_for(ends.get(), 60)
            await transport.aclose()

    run(work())


def test_bytes_that_nobody_asked_for_spoil_the_connection(run: Any) -> None:
    async def main() -> None:
        async with Scripted(always(OK + OK)) as server:
            transport = PooledTransport()
            for _ in range(3):
                assert (await transport.send(server.endpoint, POST, 5)).body == b"ok"
            assert server.count == 3

    run(main())


@pytest.mark.parametrize(("surplus", "connections"), [(b"", 1), (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 3)])
def test_large_answers_follow_each_other_on_a_connection_however_they_arrive(
    run: Any, surplus: bytes, connections: int
) -> None:
    body = bytes(range(256)) * 1200
    response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX: y\r\n\r\n" % len(body) + body + surplus

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        for piece in (7_000, 100_000, len(response)):
            await read_request(reader)
            for at in range(0, len(response), piece):
                writer.write(response[at : at + piece])
                await writer.drain()

    async def main() -> None:
        async with Scripted(script) as server:
            transport = PooledTransport()
            for _ in range(3):
                answer = await transport.send(server.endpoint, POST, 30)
                assert (answer.status, answer.body, answer.header(b"x")) == (200, body, b"y")
            assert server.count == connections

    run(main())


def test_a_large_answer_that_breaks_off_is_a_reset(run: Any) -> None:
    async def main() -> None:
        async with Scripted(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n" + bytes(399_999))) as server:
            with pytest.raises(EndpointResetError, match="before a whole response"):
                await PooledTransport().send(server.endpoint, POST, 30)

    run(main())


def test_a_request_has_the_time_that_it_was_given_whatever_the_one_before_had(run: Any) -> None:
    answer = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            head, _ = await read_request(reader)
            if b"/slow" in head:
                await answer.wait()
            if b"/never" not in head:
                writer.write(OK)

    async def main() -> None:
        async with Scripted(script) as server:
            transport = PooledTransport()
            await transport.send(server.endpoint, HttpRequest("GET", "/"), 0.2)
            # The time of the first request passes while the second one waits.
            asyncio.get_running_loop().call_later(0.5, answer.set)
            assert (await transport.send(server.endpoint, HttpRequest("GET", "/slow"), 1000)).body == b"ok"
            with pytest.raises(EndpointTimeoutError, match="attempt's time"):
                await transport.send(server.endpoint, HttpRequest("GET", "/never"), 0.1)
            # On the second connection, as a request after a time-out does not find the first one.
            await transport.send(server.endpoint, HttpRequest("GET", "/"), 0.2)
            assert server.count == 2

    run(main())


def test_idle_connections_are_bounded(run: Any) -> None:
    async def main() -> None:
        async with Scripted(always(OK)) as server:
            transport = PooledTransport(max_idle_per_endpoint=1)
            await asyncio.gather(*(transport.send(server.endpoint, POST, 5) for _ in range(4)))
            assert server.count == 4
            await asyncio.gather(*(transport.send(server.endpoint, POST, 5) for _ in range(2)))
            assert server.count == 5
            await transport.aclose()
            await transport.send(server.endpoint, POST, 5)
            assert server.count == 6
            await transport.aclose()

    run(main())


def test_connections_to_endpoints_that_nobody_asks_any_more_are_closed(run: Any) -> None:
    closed = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await read_request(reader)
        writer.write(OK)
        if not await reader.read():
            closed.set()

    async def main() -> None:
        async with Scripted(script) as gone, Scripted(always(OK)) as new:
            transport = PooledTransport(max_idle_s=0.02)
            await transport.send(gone.endpoint, POST, 5)
            await asyncio.sleep(0.05)
            await transport.send(new.endpoint, POST, 5)
            await closed.wait()
            await transport.aclose()

    run(main())


def test_another_event_loop_gets_its_own_connections() -> None:
    transport = PooledTransport()

    async def main() -> None:
        async with Scripted(always(OK)) as server:
            assert (await transport.send(server.endpoint, POST, 5)).body == b"ok"

    asyncio.run(main())
    asyncio.run(main())


@pytest.mark.parametrize(
    "request_", [HttpRequest("GET", "/v2\r\nX: 1"), HttpRequest("GET", "/v2", [(b"X", b"1\nY: 2")])]
)
def test_a_header_cannot_be_smuggled_in(request_: HttpRequest) -> None:
    async def main() -> None:
        async with Scripted(always(OK)) as server:
            with pytest.raises(ValueError, match="line breaks"):
                await PooledTransport().send(server.endpoint, request_, 5)

    asyncio.run(main())


@settings(max_examples=30, deadline=None)
@given(bodies=st.lists(st.binary(max_size=300), min_size=1, max_size=4), cuts=st.lists(st.integers(1, 40), max_size=30))
def test_framing_does_not_depend_on_how_the_bytes_arrive(bodies: list[bytes], cuts: list[int]) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(body), body) for body in bodies if body)
    response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n" + chunks + b"0\r\n\r\n"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await read_request(reader)
        at = 0
        for cut in cuts:
            writer.write(response[at : at + cut])
            at += cut
            await asyncio.sleep(0)
        writer.write(response[at:])
        await writer.drain()

    async def main() -> None:
        async with Scripted(script) as server:
            answer = await PooledTransport().send(server.endpoint, POST, 5)
            assert answer.body == b"".join(bodies)
            assert answer.header(b"x") == b"y"

    asyncio.run(main())


ALIKE = [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a\r\n\r\nfirst", (200, b"first", b"a")),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: a\r\n\r\n\r\n\r\n1", (200, b"\r\n\r\n1", b"a")),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: b\r\n\r\nthird", (200, b"third", b"b")),
    (b"HTTP/1.1 500 No\r\nContent-Length: 5\r\nX: a\r\n\r\nerror", (500, b"error", b"a")),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: a\r\n\r\n", (200, b"", b"a")),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: a\r\n\r\n5\r\nparts\r\n0\r\n\r\n", (200, b"parts", b"a")),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: c\r\n\r\nafter", (200, b"after", b"c")),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\nX: a\r\n\r\nclose", (200, b"close", b"a")),
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    turns=st.lists(
        st.tuples(st.sampled_from(ALIKE), st.integers(0, 80), st.sampled_from([None, 0, 4, 100])),
        min_size=2,
        max_size=8,
    )
)
def test_what_a_response_means_does_not_depend_on_those_before_it(turns: list[Any]) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            await read_request(reader)
            (response, _), cut, _ = turns[len(asked)]
            asked.append(number)
            if cut < len(response):
                writer.write(response[:cut])
                await writer.drain()
                await asyncio.sleep(0.001)
            writer.write(response[min(cut, len(response)) :] if cut < len(response) else response)
            await writer.drain()
            if b"close" in response:
                return

    asked: list[int] = []

    async def main() -> None:
        async with Scripted(script) as server:
            transport = PooledTransport()
            for (_, (status, body, value)), _, above in turns:
                request = HttpRequest("POST", "/m", (), b"payload", True, stream_above_bytes=above)
                answer = await transport.send(server.endpoint, request, 60)
                found = answer.body
                if answer.stream is not None:
                    assert status < 300
                    while piece := await answer.stream.next(60):
                        found += piece
                assert (answer.status, found, answer.header(b"x")) == (status, body, value)
            await transport.aclose()

    asyncio.run(main())


def test_a_known_head_does_not_hide_bytes_that_nobody_asked_for(run: Any) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        for turn in range(4):
            await read_request(reader)
            writer.write(OK + (OK if turn == 2 else b""))
            await writer.drain()

    async def main() -> None:
        async with Scripted(script) as server:
            transport = PooledTransport()
            for _ in range(4):
                assert (await transport.send(server.endpoint, POST, 60)).body == b"ok"
            assert server.count == 2

    run(main())


def test_a_request_for_the_head_alone_follows_one_with_the_same_head(run: Any) -> None:
    async def main() -> None:
        async with Scripted(always(OK)) as server:
            transport = PooledTransport()
            for _ in range(2):
                assert (await transport.send(server.endpoint, POST, 60)).body == b"ok"
            answer = await transport.send(server.endpoint, HttpRequest("HEAD", "/"), 60)
            assert (answer.status, answer.body) == (200, b"")

    run(main())
