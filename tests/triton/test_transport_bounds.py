"""What the HTTP client holds at most, and what becomes of requests that nobody waits for."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tidegate.byte_budget import ByteBudget
from tidegate.errors import (
    EndpointAnswerTooLargeError,
    EndpointBusyError,
    EndpointRefusedError,
    EndpointResetError,
    EndpointTimeoutError,
)
from tidegate.ports import Endpoint, HttpRequest, HttpResponse
from tidegate.triton import pool
from tidegate.triton.connection import ResponseLimits
from tidegate.triton.transport import PooledTransport

from tests.triton.test_transport import OK, POST, Script, Scripted, always, read_request, run

__all__ = ["run"]


def limits(most_bytes: int = 1 << 20, budget_bytes: int = 1 << 30) -> ResponseLimits:
    return ResponseLimits(most_bytes, ByteBudget(budget_bytes))


def slow(seconds: float) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            _, body = await read_request(reader)
            await asyncio.sleep(seconds)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    return script


def test_whoever_finds_no_connection_waits_in_turn(run: Any) -> None:
    async def main() -> None:
        async with Scripted(slow(0.01)) as server:
            transport = PooledTransport(max_per_endpoint=2)
            order: list[int] = []

            async def ask(number: int) -> None:
                body = b"%d" % number
                assert (await transport.send(server.endpoint, HttpRequest("POST", "/", (), body), 5)).body == body
                order.append(number)

            tasks = []
            for number in range(8):
                tasks.append(asyncio.create_task(ask(number)))
                await asyncio.sleep(0)
            await asyncio.gather(*tasks)
            assert server.count == 2
            assert sorted(order[:2]) == [0, 1]
            assert sorted(order[-2:]) == [6, 7]

    run(main())


def test_whoever_waits_too_long_for_a_connection_learns_that_it_is_load(run: Any) -> None:
    came, go_on = asyncio.Event(), asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            await read_request(reader)
            came.set()
            await go_on.wait()
            writer.write(OK)

    async def main() -> None:
        async with Scripted(script) as server:
            transport = PooledTransport(max_per_endpoint=1)
            first = asyncio.create_task(transport.send(server.endpoint, POST, 60))
            await came.wait()
            with pytest.raises(EndpointBusyError) as caught:
                await transport.send(server.endpoint, POST, 0.05)
            assert not caught.value.sent
            cancelled = asyncio.create_task(transport.send(server.endpoint, POST, 60))
            await asyncio.sleep(0.01)
            cancelled.cancel()
            go_on.set()
            assert (await first).status == 200
            assert (await transport.send(server.endpoint, POST, 5)).status == 200
            assert server.count == 1

    run(main())


@pytest.mark.parametrize("size_bytes", [4, 100_000])
@pytest.mark.parametrize("leaves", ["time-out", "cancelled"])
def test_a_request_that_nobody_waits_for_is_cut_off(run: Any, leaves: str, size_bytes: int) -> None:
    request = HttpRequest("POST", "/", (), bytes(size_bytes))
    came, cut_off = asyncio.Event(), asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await read_request(reader)
        came.set()
        with contextlib.suppress(ConnectionError):
            assert not await reader.read(), "nothing follows the request"
        cut_off.set()

    async def main() -> None:
        async with Scripted(script) as server:
            transport = PooledTransport(max_per_endpoint=1)
            # A busy machine may take all of the time before the request is sent.
            for timeout_s in (0.05, 0.5, 5.0) if leaves == "time-out" else (60.0,):
                took: list[float | None] = []
                sending = asyncio.create_task(transport.send(server.endpoint, request, timeout_s, took.append))
                if leaves == "cancelled":
                    await came.wait()
                    sending.cancel()
                with pytest.raises((EndpointTimeoutError, asyncio.CancelledError)):
                    await sending
                if came.is_set():
                    break
            assert took == [None]
            async with asyncio.timeout(60):
                await cut_off.wait()

    run(main())


@pytest.mark.parametrize("failure", ["refused", "reset", "late"])
def test_the_end_of_what_was_sent_is_reported_once(run: Any, failure: str) -> None:
    came = False

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        nonlocal came
        await read_request(reader)
        came = True
        if failure == "late":
            # It ends the connection only when nobody waits any more.
            await reader.read()

    async def main() -> None:
        async with Scripted(script) as server:
            endpoint = Endpoint("shard", "127.0.0.1", 1) if failure == "refused" else server.endpoint
            # A busy machine may take all of the time before the request is sent.
            for timeout_s in (0.05, 0.5, 5.0) if failure == "late" else (60.0,):
                took: list[float | None] = []
                with pytest.raises((EndpointRefusedError, EndpointResetError, EndpointTimeoutError)):
                    await PooledTransport().send(endpoint, POST, timeout_s, took.append)
                await asyncio.sleep(0.15)
                if came:
                    break
            assert took == ([] if failure == "refused" else [None])

    run(main())


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2_000_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b"x" * 65_536 + b"\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 65_536,
        b"HTTP/1.1 200 OK\r\n" + b"X-Endless: 1\r\n" * 4_000,
    ],
    ids=["length", "chunks", "until close", "head"],
)
def test_an_endless_answer_is_not_held(run: Any, response: bytes) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await read_request(reader)
        writer.write(response)
        tail = response.partition(b"\r\n\r\n")[2] or response.partition(b"\r\n")[2]
        while True:
            writer.write(tail)
            await writer.drain()

    async def main() -> None:
        async with Scripted(script) as server:
            with pytest.raises(EndpointAnswerTooLargeError):
                await PooledTransport(limits=limits(most_bytes=1_000_000)).send(server.endpoint, POST, 10)

    run(main())


def test_what_all_answers_hold_together_is_bounded(run: Any) -> None:
    body = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000

    async def main() -> None:
        async with Scripted(always(body)) as server:
            bounds = limits(budget_bytes=150_000)
            transport = PooledTransport(limits=bounds)
            held: HttpResponse | None = await transport.send(server.endpoint, POST, 5)
            with pytest.raises(EndpointBusyError) as caught:
                await transport.send(server.endpoint, POST, 5)
            assert caught.value.sent, "the model has worked on it"
            assert held is not None
            held = None
            assert bounds.budget.used_bytes == 0
            assert len((await transport.send(server.endpoint, POST, 5)).body) == 100_000

    run(main())


def test_the_rest_of_a_body_is_read_no_faster_than_the_server_takes_it(run: Any) -> None:
    size, piece = 64 * 1024 * 1024, bytes(65_536)
    pulled = 0
    go_on = asyncio.Event()
    received = 0

    async def rest() -> AsyncIterator[bytes]:
        nonlocal pulled
        for _ in range(size // len(piece)):
            pulled += len(piece)
            yield piece

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        nonlocal received
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        while received < size + 4:
            received += len(await reader.read(1 << 20))
        writer.write(OK)

    async def main() -> None:
        async with Scripted(script) as server:
            request = HttpRequest("POST", "/", (), b"head", rest=rest(), rest_bytes=size)
            sending = asyncio.create_task(PooledTransport().send(server.endpoint, request, 60))
            while not pulled:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            assert pulled < size / 2
            go_on.set()
            assert (await sending).body == b"ok"
            assert (pulled, received) == (size, size + 4)

    run(main())


def test_a_body_that_ends_early_ends_the_request(run: Any) -> None:
    async def short() -> AsyncIterator[bytes]:
        yield b"abc"

    async def broken() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ConnectionAbortedError

    async def main() -> None:
        async with Scripted(always(OK)) as server:
            transport = PooledTransport()
            took: list[float | None] = []
            with pytest.raises(EndpointResetError):
                await transport.send(
                    server.endpoint, HttpRequest("POST", "/", rest=short(), rest_bytes=10), 5, took.append
                )
            with pytest.raises(ConnectionAbortedError):
                await transport.send(
                    server.endpoint, HttpRequest("POST", "/", rest=broken(), rest_bytes=10), 5, took.append
                )
            assert took == [None, None]
            assert (await transport.send(server.endpoint, POST, 5)).body == b"ok"

    run(main())


def test_a_body_that_is_longer_than_announced_does_not_begin_the_next_request(run: Any) -> None:
    received = b""

    async def longer() -> AsyncIterator[bytes]:
        yield b"abc"
        yield b"GET /next HTTP/1.1\r\n\r\n"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        nonlocal received
        received = await reader.read()

    async def main() -> None:
        async with Scripted(script) as server:
            with pytest.raises(EndpointResetError):
                await PooledTransport().send(server.endpoint, HttpRequest("POST", "/", rest=longer(), rest_bytes=3), 5)
            assert b"next" not in received

    run(main())


def test_the_rest_of_a_body_is_not_touched_where_nothing_is_sent(run: Any) -> None:
    async def rest() -> AsyncIterator[bytes]:
        raise AssertionError
        yield b""

    async def main() -> None:
        request = HttpRequest("POST", "/", rest=rest(), rest_bytes=10)
        with pytest.raises(EndpointRefusedError):
            await PooledTransport().send(Endpoint("shard", "127.0.0.1", 1), request, 5)

    run(main())


def test_requests_at_an_endpoint_that_answers_nothing_can_be_ended(run: Any) -> None:
    came = asyncio.Semaphore(0)

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        await read_request(reader)
        came.release()
        await reader.read()

    async def main() -> None:
        async with Scripted(script) as server:
            transport = PooledTransport()
            sending = [asyncio.create_task(transport.send(server.endpoint, POST, 60)) for _ in range(3)]
            for _ in sending:
                await came.acquire()
            transport.hang_up(server.endpoint)
            for each in sending:
                with pytest.raises(EndpointTimeoutError):
                    await each

    run(main())


def test_time_that_this_process_lost_is_no_sign_against_the_endpoint(run: Any) -> None:
    async def main() -> None:
        async with Scripted(always(OK)) as server:
            sending = asyncio.create_task(PooledTransport(connect_timeout_s=0.02).send(server.endpoint, POST, 10))
            await asyncio.sleep(0)
            time.sleep(0.2)  # the loop is busy
            assert (await sending).body == b"ok"

    run(main())


def test_what_follows_an_answer_is_not_the_answer_to_whoever_waits_for_the_connection(run: Any) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        _, body = await read_request(reader)
        if number > 1:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            return
        writer.write(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoi")
        await read_request(reader)
        writer.write(b"son")

    async def main() -> None:
        async with Scripted(script) as server:
            transport = PooledTransport(max_per_endpoint=1)
            first = asyncio.create_task(transport.send(server.endpoint, POST, 5))
            await asyncio.sleep(0)
            answer = await transport.send(server.endpoint, HttpRequest("POST", "/", (), b"mine"), 5)
            assert ((await first).body, answer.body) == (b"ok", b"mine")

    run(main())


@pytest.mark.parametrize("is_reused", [False, True])
def test_a_request_that_is_cancelled_at_any_moment_leaves_the_bound_as_it_was(
    run: Any, is_reused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "LOOK_AGAIN_AFTER_S", -1.0)
    under_way = most = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        nonlocal under_way, most
        while True:
            _, body = await read_request(reader)
            # One that was cancelled is still read here, whenever that may be.
            if body == b"counted":
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0.005)
                under_way -= 1
            writer.write(OK)

    async def main() -> None:
        nonlocal most
        async with Scripted(script) as server:
            for turns in range(12):
                transport = PooledTransport(max_per_endpoint=1)
                if is_reused:
                    await transport.send(server.endpoint, POST, 5)
                cancelled = asyncio.create_task(transport.send(server.endpoint, POST, 5))
                for _ in range(turns):
                    await asyncio.sleep(0)
                cancelled.cancel()
                await asyncio.wait((cancelled,))
                most = 0
                counted = HttpRequest(POST.method, POST.path, POST.headers, b"counted")
                await asyncio.gather(*(transport.send(server.endpoint, counted, 60) for _ in range(3)))
                assert most == 1, turns
                await transport.aclose()

    run(main())
