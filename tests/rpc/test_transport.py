"""The gRPC client for Triton, against a server that behaves as told: what each failure means to the dispatcher."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from tidegate.byte_budget import ByteBudget
from tidegate.errors import (
    EndpointAnswerError,
    EndpointAnswerTooLargeError,
    EndpointBusyError,
    EndpointError,
    EndpointRefusedError,
    EndpointResetError,
    EndpointTimeoutError,
)
from tidegate.oip.infer_message import stream_error_response
from tidegate.oip.protobuf import field
from tidegate.ports import Endpoint, HttpRequest, HttpResponse
from tidegate.testing.gateway import MemoryTransport
from tidegate.triton.connection import ResponseLimits
from tidegate.triton.rpc_errors import error_response
from tidegate.triton.rpc_transport import RpcTransport

AT = Endpoint("alpha", "127.0.0.1", 8000)
PATH = "/a.Service/Method"
HEADERS = ((b"traceparent", b"00-1"),)
UNARY = HttpRequest("POST", PATH, HEADERS, b"message", send_once=True, is_rpc=True)
STREAM = HttpRequest("POST", PATH, HEADERS, b"message", send_once=True, stream_above_bytes=0, is_rpc=True)
CONNECT = HttpRequest("POST", "/a.Service/Connect", HEADERS, b"message", send_once=True, is_rpc=True)
MOST_BYTES = 200_000

Behave = Callable[[Any], Awaitable[None]]


@asynccontextmanager
async def server(
    behave: Behave, *, cancels: bool = True
) -> AsyncIterator[tuple[RpcTransport, grpc.aio.Server, ByteBudget]]:
    """A server whose one method does what `behave` says, and the transport to it, which is connected: how long that takes
    is no part of the time of any request."""

    async def answer(_requests: Any, context: Any) -> None:
        await behave(context)

    async def connect(_requests: Any, context: Any) -> None:
        await context.write(b"")

    started = grpc.aio.server()
    methods = {
        name: grpc.stream_stream_rpc_method_handler(each) for name, each in (("Method", answer), ("Connect", connect))
    }
    started.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("a.Service", methods)])
    port = started.add_insecure_port("127.0.0.1:0")
    await started.start()
    async with transport_to(port, cancels=cancels) as (transport, budget):
        try:
            await transport.send(AT, CONNECT, 60.0)
            yield transport, started, budget
        finally:
            await started.stop(0)


@asynccontextmanager
async def transport_to(port: int | None, *, cancels: bool = True) -> AsyncIterator[tuple[RpcTransport, ByteBudget]]:
    async def unexpected(_endpoint: Endpoint, _request: HttpRequest) -> HttpResponse:
        return HttpResponse(200, (), b"over HTTP")

    budget = ByteBudget(MOST_BYTES)
    limits = ResponseLimits(MOST_BYTES, budget)
    transport = RpcTransport(MemoryTransport(unexpected), lambda _endpoint: port, limits, cancels=cancels)
    try:
        yield transport, budget
    finally:
        await transport.aclose()


def answers(*messages: bytes, error: tuple[grpc.StatusCode, str] | None = None, pause_s: float = 0.0) -> Behave:
    async def behave(context: Any) -> None:
        await context.read()
        for message in messages:
            await context.write(message)
            await asyncio.sleep(pause_s)
        if error is not None:
            await context.abort(*error)

    return behave


class Silent:
    """Answers nothing. `began` is set when it is asked, `ended` when nobody waits any more."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self, _context: Any) -> None:
        self.began.set()
        try:
            await asyncio.sleep(600)
        finally:
            self.ended.set()


def test_an_answer_and_the_time_that_it_took() -> None:
    async def run() -> None:
        took: list[float | None] = []
        async with server(answers(b"answer")) as (transport, _, _):
            response = await transport.send(AT, UNARY, 5.0, took.append)
        assert (response.status, response.body) == (200, b"answer")
        assert len(took) == 1
        assert took[0] is not None

    asyncio.run(run())


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, 400),
        (grpc.StatusCode.NOT_FOUND, 404),
        (grpc.StatusCode.INTERNAL, 500),
        (grpc.StatusCode.UNIMPLEMENTED, 501),
        (grpc.StatusCode.UNAVAILABLE, 503),
        (grpc.StatusCode.UNKNOWN, 400),
    ],
)
@pytest.mark.parametrize("request_", [UNARY, STREAM])
def test_an_error_of_the_server_is_a_response_with_its_code(
    code: grpc.StatusCode, status: int, request_: HttpRequest
) -> None:
    async def run() -> None:
        took: list[float | None] = []
        async with server(answers(error=(code, "Exceeds maximum queue size"))) as (transport, _, _):
            response = await transport.send(AT, request_, 5.0, took.append)
        assert response.status == status
        assert response.body == b'{"error": "Exceeds maximum queue size"}'
        assert response.header(b"grpc-status") == b"%d" % code.value[0]
        assert took == [None]

    asyncio.run(run())


@pytest.mark.parametrize("request_", [UNARY, STREAM])
def test_a_server_that_does_not_listen_refuses(request_: HttpRequest) -> None:
    async def run() -> None:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            async with transport_to(reserved.getsockname()[1]) as (transport, _):
                with pytest.raises(EndpointRefusedError):
                    await transport.send(AT, request_, 5.0)

    asyncio.run(run())


@pytest.mark.parametrize("request_", [UNARY, STREAM])
def test_an_endpoint_without_a_port_is_not_taken_for_one_that_refuses(request_: HttpRequest) -> None:
    async def run() -> None:
        ended: list[float | None] = []
        async with transport_to(None) as (transport, _):
            with pytest.raises(EndpointError) as failed:
                await transport.send(AT, request_, 5.0, ended.append)
            assert type(failed.value) is EndpointError
            assert ended == [None]
            assert (await transport.send(AT, HttpRequest("POST", PATH, (), UNARY.body), 5.0)).body == b"over HTTP"

    asyncio.run(run())


@pytest.mark.parametrize("request_", [UNARY, STREAM])
def test_a_server_that_ends_resets(request_: HttpRequest) -> None:
    async def run() -> None:
        silent = Silent()
        async with server(silent) as (transport, started, _):
            asking = asyncio.create_task(transport.send(AT, request_, 30.0))
            await silent.began.wait()
            await started.stop(0)
            with pytest.raises(EndpointResetError):
                await asking

    asyncio.run(run())


def test_a_connection_that_ends_as_an_rpc_begins_resets() -> None:
    # By chance, some once in 250 times on a busy machine.
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), "Internal error from Core"
    )
    with pytest.raises(EndpointResetError):
        error_response(error, is_connected=True)


@pytest.mark.parametrize("request_", [UNARY, STREAM])
@pytest.mark.parametrize("how", ["late", "hung up"])
def test_a_silent_server_is_late_and_its_rpc_cancelled(request_: HttpRequest, how: str) -> None:
    async def run() -> None:
        silent = Silent()
        async with server(silent) as (transport, _, _):
            asking = asyncio.create_task(transport.send(AT, request_, 30.0 if how == "hung up" else 0.3))
            if how == "hung up":
                await silent.began.wait()
                transport.hang_up(AT)
            with pytest.raises(EndpointTimeoutError) as late:
                await asking
            assert late.value.sent
            async with asyncio.timeout(60):
                await silent.ended.wait()

    asyncio.run(run())


def test_a_caller_that_leaves_cancels_the_rpc() -> None:
    async def run() -> None:
        silent = Silent()
        async with server(silent) as (transport, _, _):
            asking = asyncio.create_task(transport.send(AT, UNARY, 30.0))
            await silent.began.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            async with asyncio.timeout(60):
                await silent.ended.wait()

    asyncio.run(run())


@pytest.mark.parametrize("how", ["late", "left"])
def test_an_rpc_that_nobody_waits_for_goes_on(how: str) -> None:
    async def run() -> None:
        ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        began, nobody_waits = asyncio.Event(), asyncio.Event()

        async def behave(context: Any) -> None:
            try:
                began.set()
                await nobody_waits.wait()
                await context.write(b"answer")
                ended.set_result(context.time_remaining() is None)
            except BaseException:
                ended.set_result(False)
                raise

        async with server(behave, cancels=False) as (transport, _, _):
            asking = asyncio.create_task(transport.send(AT, UNARY, 0.2 if how == "late" else 30.0))
            if how == "left":
                await began.wait()
                asking.cancel()
            with pytest.raises(EndpointTimeoutError if how == "late" else asyncio.CancelledError):
                await asking
            nobody_waits.set()
            async with asyncio.timeout(60):
                assert await ended

    asyncio.run(run())


def test_large_answers_are_limited_alone_and_together() -> None:
    async def run() -> None:
        async with server(answers(bytes(MOST_BYTES + 1))) as (transport, _, _):
            with pytest.raises(EndpointAnswerTooLargeError):
                await transport.send(AT, UNARY, 5.0)
        async with server(answers(bytes(150_000))) as (transport, _, budget):
            response = await transport.send(AT, UNARY, 5.0)
            assert budget.used_bytes == 150_000
            with pytest.raises(EndpointBusyError):
                await transport.send(AT, UNARY, 5.0)
            del response
            assert budget.used_bytes == 0

    asyncio.run(run())


def test_a_stream_is_read_message_by_message_to_its_end() -> None:
    async def run() -> None:
        took: list[float | None] = []
        first, second = field(2, b"\x0a\x01m"), field(2, bytes(100_000))
        async with server(answers(first, second)) as (transport, _, budget):
            response = await transport.send(AT, STREAM, 5.0, took.append)
            assert response.stream is not None
            assert took == []
            assert await response.stream.next(5.0) == first
            assert await response.stream.next(5.0) == second
            assert budget.used_bytes == len(second)
            assert await response.stream.next(5.0) == b""
            assert budget.used_bytes == 0
            assert len(took) == 1
            response.stream.close()
            assert len(took) == 1

    asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("Request for unknown model: 'm' is not found", 404),
        ("Stub process 'm_0_0' is not healthy.", 500),
        ("what a model raised", 500),
        ("unexpected inference input 'x' for model 'm'", 400),
    ],
)
def test_a_stream_that_begins_with_an_error_is_an_error(text: str, status: int) -> None:
    async def run() -> None:
        async with server(answers(stream_error_response(text, "7"), pause_s=60)) as (transport, _, _):
            response = await transport.send(AT, STREAM, 5.0)
        assert response.status == status
        assert response.stream is None

    asyncio.run(run())


def test_a_stream_that_pauses_or_breaks_off_fails() -> None:
    async def run() -> None:
        message = field(2, b"\x0a\x01m")
        async with server(answers(message, pause_s=60)) as (transport, started, _):
            response = await transport.send(AT, STREAM, 5.0)
            assert response.stream is not None
            await response.stream.next(1.0)
            with pytest.raises(EndpointTimeoutError):
                await response.stream.next(0.2)
            response.stream.close()
            broken = await transport.send(AT, STREAM, 5.0)
            assert broken.stream is not None
            await broken.stream.next(1.0)
            await started.stop(0)
            with pytest.raises(EndpointResetError):
                await broken.stream.next(5.0)

    asyncio.run(run())


def test_an_error_that_ends_a_stream_is_not_taken_for_a_lost_connection() -> None:
    async def run() -> None:
        message, error = field(2, b"\x0a\x01m"), (grpc.StatusCode.INTERNAL, "what a model raised")
        async with server(answers(message, error=error)) as (transport, _, _):
            response = await transport.send(AT, STREAM, 5.0)
            assert response.stream is not None
            await response.stream.next(5.0)
            with pytest.raises(EndpointAnswerError):
                await response.stream.next(5.0)

    asyncio.run(run())


@pytest.mark.parametrize("cancels", [True, False])
@pytest.mark.parametrize("request_", [UNARY, STREAM])
def test_what_never_had_a_connection_was_not_sent(request_: HttpRequest, cancels: bool) -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent_:
            async with transport_to(silent_.getsockname()[1], cancels=cancels) as (transport, budget):
                with pytest.raises(EndpointTimeoutError) as late:
                    await transport.send(AT, request_, 0.3)
                assert not late.value.sent
                await asyncio.sleep(0.1)
                assert budget.used_bytes == 0, "it does not go on"

    asyncio.run(run())


def test_an_rpc_that_goes_on_is_counted_and_can_be_hung_up() -> None:
    async def run() -> None:
        silent = Silent()
        async with server(silent, cancels=False) as (transport, _, budget):
            with pytest.raises(EndpointTimeoutError) as late:
                await transport.send(AT, UNARY, 0.3)
            assert late.value.sent
            assert budget.used_bytes == len(UNARY.body)
            transport.hang_up(AT)
            async with asyncio.timeout(60):
                await silent.ended.wait()
            await asyncio.sleep(0.1)
            assert budget.used_bytes == 0

    asyncio.run(run())


def test_an_endpoint_that_is_gone_keeps_its_connection_as_long_as_an_rpc_goes_on() -> None:
    async def run() -> None:
        asked, answered = asyncio.Semaphore(0), asyncio.Semaphore(0)
        nobody_waits = asyncio.Event()

        async def behave(context: Any) -> None:
            await context.read()
            asked.release()
            await nobody_waits.wait()
            await context.write(b"answer")
            answered.release()

        async with server(behave, cancels=False) as (transport, _, _):
            port_of = transport._port_of
            with pytest.raises(EndpointTimeoutError):
                await transport.send(AT, UNARY, 0.2)
            transport._port_of = lambda endpoint: None if endpoint == AT else port_of(endpoint)
            # Another endpoint's new connection is when unused ones are closed.
            other = asyncio.create_task(transport.send(Endpoint("beta", "127.0.0.1", 8001), UNARY, 60.0))
            async with asyncio.timeout(60):
                for _ in range(2):
                    await asked.acquire()
                nobody_waits.set()
                await other
                for _ in range(2):
                    await answered.acquire()

    asyncio.run(run())


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A port that leads to `port`, and an event for when a connection to it has been closed by its client."""
    closed = asyncio.Event()
    writers: list[asyncio.StreamWriter] = []

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, back_writer))
        back = asyncio.create_task(copy(back_reader, writer))
        with contextlib.suppress(OSError):
            await copy(reader, back_writer)
        closed.set()
        back.cancel()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1], closed
    finally:
        for writer in writers:
            writer.close()
        listening.close()


@pytest.mark.parametrize("request_", [UNARY, STREAM])
def test_a_connection_to_a_port_that_has_changed_ends_with_its_last_rpc(request_: HttpRequest) -> None:
    async def run() -> None:
        finish = asyncio.Event()
        first, second = field(2, b"\x0a\x01m"), field(2, b"\x0a\x01n")

        async def behave(context: Any) -> None:
            await context.read()
            if request_ is STREAM:
                await context.write(first)
            asked.set()
            await finish.wait()
            await context.write(second)

        asked = asyncio.Event()
        async with server(behave) as (transport, _, _), server(answers(first)) as (other, _, _):
            port, other_port = transport._port_of(AT), other._port_of(AT)
            async with relay(port) as (relayed, closed):
                transport._port_of = lambda _endpoint: relayed
                asking = asyncio.create_task(transport.send(AT, request_, 60.0))
                async with asyncio.timeout(60):
                    await asked.wait()
                transport._port_of = lambda _endpoint: other_port
                assert (await transport.send(AT, UNARY, 60.0)).body == first, "the server at the new port is asked"
                assert not closed.is_set()
                finish.set()
                response = await asking
                if response.stream is None:
                    assert response.body == second
                else:
                    assert [await response.stream.next(60.0) for _ in range(3)] == [first, second, b""]
                del response, asking
                async with asyncio.timeout(60):
                    await closed.wait()
                assert (await transport.send(AT, UNARY, 60.0)).body == first, "the new connection stays"

    asyncio.run(run())


def test_an_unused_connection_ends_when_its_port_has_changed() -> None:
    async def run() -> None:
        async with server(answers(b"old")) as (transport, _, _), server(answers(b"new")) as (other, _, _):
            port, other_port = transport._port_of(AT), other._port_of(AT)
            async with relay(port) as (relayed, closed):
                transport._port_of = lambda _endpoint: relayed
                assert (await transport.send(AT, UNARY, 60.0)).body == b"old"
                transport._port_of = lambda _endpoint: other_port
                assert (await transport.send(AT, UNARY, 60.0)).body == b"new"
                async with asyncio.timeout(60):
                    await closed.wait()

    asyncio.run(run())


def test_an_rpc_at_the_port_before_can_still_be_hung_up() -> None:
    async def run() -> None:
        asked = asyncio.Event()

        async def behave(_context: Any) -> None:
            asked.set()
            await asyncio.sleep(3_600)

        async with server(behave) as (transport, _, _), server(answers(b"new")) as (other, _, _):
            other_port = other._port_of(AT)
            asking = asyncio.create_task(transport.send(AT, UNARY, 3_600.0))
            async with asyncio.timeout(60):
                await asked.wait()
                transport._port_of = lambda _endpoint: other_port
                assert (await transport.send(AT, UNARY, 60.0)).body == b"new"
                transport.hang_up(AT)
                with pytest.raises(EndpointTimeoutError):
                    await asking

    asyncio.run(run())
