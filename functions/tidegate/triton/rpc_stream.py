"""One request to `ModelStreamInfer`, and its answers as they arrive.

Each request has an RPC of its own, so that its answers need no correlation, its end shows even if a model does not mark it, and it can be
cancelled alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc.aio

from tidegate.byte_budget import UNCOUNTED_BYTES, ByteBudget, ByteLease
from tidegate.errors import EndpointAnswerError, EndpointBusyError, EndpointTimeoutError
from tidegate.oip.infer_message import stream_error
from tidegate.ports import Done, HttpResponse
from tidegate.triton.rpc_errors import error_response, raise_if_cancelled, streamed_error


class RpcStream:
    """An `AnswerStream` whose parts are messages.

    Args:
        call: the RPC.
        is_connected: returns whether the connection is open.
        budget: counts a large message until the next one is read.
        ended: see `Done`; called once.
    """

    def __init__(self, call: Any, is_connected: Callable[[], bool], budget: ByteBudget, ended: Done) -> None:
        self._call = call
        self._is_connected = is_connected
        self._budget = budget
        self._ended: Done | None = ended
        self._lease: ByteLease | None = None
        self._first: bytes | None = None
        self._error: str | None = None
        self._took_s: float | None = None

    async def start(self, message: bytes, timeout_s: float) -> HttpResponse:
        """Send the request, and return its response once it has a first answer or ended without one.

        Raises:
            EndpointError: see `Transport.send`.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            async with asyncio.timeout(timeout_s):
                # Of an RPC that has ended already, reading says why.
                with contextlib.suppress(asyncio.InvalidStateError):
                    await self._call.write(message)
                    await self._call.done_writing()
                self._first = await self._read()
        except TimeoutError:
            raise EndpointTimeoutError("no answer within the attempt's time", sent=self._is_connected()) from None
        except grpc.aio.AioRpcError as error:
            return error_response(error, self._is_connected())
        if self._error is not None:
            return streamed_error(self._error)
        self._took_s = loop.time() - began_s
        return HttpResponse(200, (), b"", stream=self)

    async def next(self, within_s: float) -> bytes:
        """See `AnswerStream.next`."""
        first, self._first = self._first, None
        if first is not None:
            part = first
        else:
            try:
                async with asyncio.timeout(within_s):
                    part = await self._read()
            except TimeoutError:
                raise EndpointTimeoutError("the model paused for too long") from None
            except grpc.aio.AioRpcError as error:
                response = error_response(error, self._is_connected())
                raise EndpointAnswerError(f"the stream ended with an error ({response.status})", sent=True) from error
        if not part:
            self._end()
        return part

    def close(self) -> None:
        """See `AnswerStream.close`."""
        if self._ended is not None:
            self._call.cancel()
            self._end()

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        self._lease = None
        if ended is not None:
            ended(self._took_s)

    async def _read(self) -> bytes:
        """Return the next message; nothing once the stream has ended.

        Raises:
            EndpointError: the server answers nothing, or no message of the protocol, or more than there is room for.
        """
        self._lease = None
        try:
            message = await self._call.read()
        except asyncio.CancelledError:
            raise_if_cancelled()
            raise EndpointTimeoutError("the server answers nothing", sent=self._is_connected()) from None
        if message is grpc.aio.EOF:
            return b""
        if len(message) > UNCOUNTED_BYTES:
            self._lease = self._budget.lease(len(message))
            if self._lease is None:
                raise EndpointBusyError("answers hold as many bytes as they may (max_buffered_bytes)", sent=True)
        self._error = stream_error(message)
        return bytes(message)


async def open_stream(stream: RpcStream, message: bytes, timeout_s: float) -> HttpResponse:
    """Return the response of a stream, which is closed unless the response has it."""
    is_open = False
    try:
        response = await stream.start(message, timeout_s)
        is_open = response.stream is not None
        return response
    finally:
        if not is_open:
            stream.close()
