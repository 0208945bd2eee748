"""The body of an answer that is passed on as it arrives, between a connection and its reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from tidegate.byte_budget import ByteLease
from tidegate.errors import EndpointError, EndpointTimeoutError

PAUSE_ABOVE_BYTES: Final = 262_144
_JOIN_BELOW_BYTES: Final = 65_536


class AnswerBody:
    """An `AnswerStream`. The connection puts bytes in; while its reader is slow, it stops reading from the server.

    Args:
        loop: the connection's event loop.
        transport: the connection's.
        abort: ends the exchange, and with it the server's work on it.
        lease: counts the whole body in the byte budget. Such a body is received at the server's pace, so that a slow caller does
            not occupy the server; None: only `PAUSE_ABOVE_BYTES` are buffered.
    """

    __slots__ = (
        "_abort",
        "_ended",
        "_error",
        "_lease",
        "_parts",
        "_paused",
        "_size_bytes",
        "_transport",
        "_waiter",
        "loop",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        abort: Callable[[], None],
        lease: ByteLease | None,
    ) -> None:
        self.loop = loop
        self._transport = transport
        self._abort = abort
        self._lease = lease
        self._parts: deque[bytes] = deque()
        self._size_bytes = 0
        self._paused = False
        self._ended = False
        self._error: EndpointError | None = None
        self._waiter: asyncio.Future[None] | None = None

    # Called by the connection

    def arrived(self, part: bytes) -> None:
        self._parts.append(part)
        self._size_bytes += len(part)
        if self._size_bytes > PAUSE_ABOVE_BYTES and self._lease is None and not self._paused:
            self._paused = True
            if not self._transport.is_closing():
                self._transport.pause_reading()
        self._wake()

    def end(self, error: EndpointError | None) -> None:
        """Note the end of the body, or the error that cut it off."""
        self._ended = True
        self._error = error
        # The connection serves other requests from now on.
        self._resume()
        self._wake()

    # Called by the reader

    async def next(self, within_s: float) -> bytes:
        """See `AnswerStream.next`."""
        if not self._parts and not self._ended:
            self._waiter = waiter = self.loop.create_future()
            timer = self.loop.call_later(max(within_s, 0.0), self._wake)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        if self._parts:
            return self._taken()
        if not self._ended:
            raise EndpointTimeoutError(f"nothing more of the answer came within {within_s:g} s")
        if self._error is not None:
            raise self._error
        return b""

    def close(self) -> None:
        """See `AnswerStream.close`."""
        self._parts.clear()
        self._lease = None
        if not self._ended:
            self._abort()

    def _taken(self) -> bytes:
        """Return all that has arrived; of much, the first part, since joining it would cost more than another write."""
        if len(self._parts) == 1 or self._size_bytes > _JOIN_BELOW_BYTES:
            part = self._parts.popleft()
        else:
            part = b"".join(self._parts)
            self._parts.clear()
        self._size_bytes -= len(part)
        if not self._parts:
            self._resume()
        return part

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
