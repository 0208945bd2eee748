"""`Transport`: pooled connections to a scripted server, and answers from a function."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from tidegate.errors import EndpointError, EndpointRefusedError, EndpointTimeoutError
from tidegate.ports import Endpoint, HttpRequest, HttpResponse, Transport
from tidegate.testing import MemoryTransport
from tidegate.triton.transport import PooledTransport

from tests.triton.test_transport import Scripted, read_request

Opened = tuple[Transport, Endpoint]
Open = Callable[[], AbstractAsyncContextManager[Opened]]

STATUSES = {"/ok": 200, "/broken": 500}
REFUSING = Endpoint("shard", "127.0.0.1", 9)


@asynccontextmanager
async def in_memory() -> AsyncIterator[Opened]:
    async def answer(endpoint: Endpoint, request: HttpRequest) -> HttpResponse:
        if endpoint == REFUSING:
            raise EndpointRefusedError("connection failed: Connection refused")
        if request.path not in STATUSES:
            await asyncio.Event().wait()
        return HttpResponse(STATUSES[request.path], [(b"content-length", b"2")], b"ok")

    yield MemoryTransport(answer), Endpoint("shard", "memory", 1)


@asynccontextmanager
async def pooled() -> AsyncIterator[Opened]:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
        while True:
            head, _ = await read_request(reader)
            status = STATUSES.get(head.split(b" ")[1].decode())
            if status is not None:
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\nok" % status)

    async with Scripted(script) as server:
        transport = PooledTransport()
        yield transport, server.endpoint
        transport.hang_up(server.endpoint)
        await transport.aclose()


@pytest.mark.parametrize("opened", [in_memory, pooled])
def test_a_response_is_returned_and_the_time_of_a_successful_one_reported(opened: Open) -> None:
    async def work() -> None:
        async with opened() as (transport, endpoint):
            for path, status in STATUSES.items():
                took_s: list[float | None] = []
                response = await transport.send(endpoint, HttpRequest("GET", path), 5.0, took_s.append)
                assert (response.status, response.body, response.header(b"content-length")) == (status, b"ok", b"2")
                assert len(took_s) == 1
                assert (took_s[0] is None) == (status >= 400)

    asyncio.run(asyncio.wait_for(work(), 30))


@pytest.mark.parametrize("opened", [in_memory, pooled])
def test_a_failure_is_raised_and_what_was_sent_reported_once_as_done(opened: Open) -> None:
    async def failure(transport: Transport, endpoint: Endpoint, took_s: list[float | None]) -> type[EndpointError]:
        with pytest.raises(EndpointError) as error:
            await transport.send(endpoint, HttpRequest("GET", "/hangs"), 0.1, took_s.append)
        transport.hang_up(endpoint)
        return error.type

    async def work() -> None:
        async with opened() as (transport, endpoint):
            took_s: list[float | None] = []
            assert await failure(transport, endpoint, took_s) is EndpointTimeoutError
            assert await failure(transport, REFUSING, took_s) is EndpointRefusedError
            assert took_s == [None], "nothing was sent to the one that refuses"

    asyncio.run(asyncio.wait_for(work(), 30))
