"""An HTTP/1.1 connection to a Triton server, with one request in flight at a time.

llhttp parses the responses, through httptools. They are framed by Content-Length, chunks or the end of the connection
(https://www.rfc-editor.org/rfc/rfc9112). Bodies are passed on unchanged, compressed or not.
"""

from __future__ import annotations

import asyncio
import math
import socket
from dataclasses import dataclass
from typing import Final, Protocol

import httptools

from tidegate.byte_budget import UNCOUNTED_BYTES, ByteBudget, ByteLease
from tidegate.errors import (
    EndpointAnswerTooLargeError,
    EndpointBusyError,
    EndpointError,
    EndpointResetError,
    EndpointTimeoutError,
)
from tidegate.ports import Done, HttpRequest, HttpResponse
from tidegate.triton.answer_body import AnswerBody
from tidegate.triton.known_head import KnownHead, head_of
from tidegate.triton.request_bytes import SLICE_BYTES, write_paced

_MOST_HEAD_BYTES: Final = 65_536
_PARSED_BELOW_BYTES: Final = 65_536
_BODILESS: Final = frozenset({204, 304})
_NOTHING: Final = memoryview(b"")
_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_SPENT: Final = httptools.HttpResponseParser(None)
"""The parser of all connections that are not open."""


@dataclass(frozen=True, slots=True)
class ResponseLimits:
    """Limits on responses.

    Attributes:
        most_bytes: the largest accepted body.
        budget: limits the bytes that all large responses hold together.
    """

    most_bytes: int
    budget: ByteBudget


class Owner(Protocol):
    """The pool of a connection."""

    def released(self, connection: Connection) -> None:
        """Take back a connection that can be used again."""

    def lost(self, connection: Connection) -> None:
        """Forget a connection that was closed."""


class Connection(asyncio.Protocol):
    """The protocol of one connection. llhttp's callbacks assemble the response."""

    def __init__(self, owner: Owner, limits: ResponseLimits) -> None:
        self.loop = asyncio.get_running_loop()
        self.usable = False
        self.served = False
        self.idle_since_s = 0.0
        self._owner = owner
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._parser = _SPENT
        self._waiter: asyncio.Future[HttpResponse] | None = None
        self._done: Done | None = None
        self._under_way = False
        self._started_s = 0.0
        self._deadline_s = math.inf
        self._expiry: asyncio.TimerHandle | None = None
        self._expiry_at_s = math.inf
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._length: int | None = None
        self._known: KnownHead | None = None
        self._body: list[bytes] = []
        self._body_left = 0
        self._size_bytes = 0
        self._lease: ByteLease | None = None
        self._stream_above: int | None = None
        self._stream_bytes: int | None = None
        self._stream: AnswerBody | None = None
        self._first_s = 0.0
        self._started = False
        self._bodiless = False
        self._until_close = False
        self._drained: asyncio.Future[None] | None = None
        self._writer: asyncio.Task[None] | None = None

    async def exchange(
        self, data: list[bytes], request: HttpRequest, deadline_s: float, done: Done | None
    ) -> HttpResponse:
        """Write one request and return its response. After a time-out or a cancellation, the connection is closed.

        Raises:
            EndpointError: see `Transport.send`.
        """
        assert self._transport is not None
        waiter: asyncio.Future[HttpResponse] = self.loop.create_future()
        self._waiter = waiter
        self._done = done
        self._under_way = True
        self._started_s = self.loop.time()
        self._bodiless = request.method == "HEAD"
        self._stream_above = request.stream_above_bytes
        self._expire_at(deadline_s)
        left = self._write_first(data)
        if left or request.rest is not None:
            self._writer = self.loop.create_task(self._write_rest(left, request))
        try:
            return await waiter
        except asyncio.CancelledError:
            self._leave(waiter)
            raise
        finally:
            # It keeps the error that it ended with, whose traceback keeps this frame.
            del waiter

    def _write_first(self, data: list[bytes]) -> memoryview:
        """Write a serialized request, or the beginning of a larger one in one piece with its head; return what is left of it."""
        assert self._transport is not None
        if len(data) == 1:
            self._transport.write(data[0])
            return _NOTHING
        head, body = data
        view = memoryview(body)
        self._transport.writelines((head, view[:SLICE_BYTES]))
        return view[SLICE_BYTES:]

    async def _write_rest(self, left: memoryview, request: HttpRequest) -> None:
        assert self._transport is not None
        try:
            await write_paced(self._transport.write, self._drain, left, request)
        except EndpointError as error:
            self._fail(error)
            self.abort()
        except Exception as error:  # noqa: BLE001  # the caller's own body could not be read; `send` reports it
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(error)
            self._fail(EndpointResetError("the request's body could not be read"))
            self.abort()

    async def _drain(self) -> None:
        while self._drained is not None:
            await asyncio.shield(self._drained)

    def abort(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def hang_up(self) -> None:
        """Fail the exchange under way and close the connection, as the endpoint does not answer."""
        if self._under_way:
            self._fail(EndpointTimeoutError("the endpoint answers nothing"))
            self.abort()

    def pause_writing(self) -> None:
        self._drained = self.loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # create_connection makes a stream transport
        # It refers to its connection, which is a cycle until the connection is lost.
        self._parser = httptools.HttpResponseParser(self)
        self.usable = True
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if not self._under_way:
            # A late or unsolicited response must not answer the next request.
            self.abort()
            return
        begins, self._started = not self._started, True
        known = self._known
        if known is not None and begins and known.begins(data) and self._is_whole(known.length):
            # llhttp is at the start of a response before it and after it.
            self._headers = known.headers
            self._body = [known.body_of(data)] if known.length else []
            self._finish(known.status)
            self._settle()
            return
        try:
            if self._body_left:
                self._pass_by(data)
            else:
                self._parser.feed_data(data)
                if begins:
                    self._know(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._bodiless:
                self._fail(EndpointResetError(f"the answer is not HTTP/1.1 ({type(error).__name__})"))
            self.abort()
        self._settle()

    def _is_whole(self, length: int) -> bool:
        """Return whether a response with so long a body is handed on as a whole."""
        above = self._stream_above
        return not self._bodiless and (above is None or length <= above != 0)

    def _know(self, data: bytes) -> None:
        """Keep the head of a small response, if `data` was that and nothing else."""
        length = self._length
        if not self._under_way and self.usable and length is not None:
            self._known = head_of(data, self._parser.get_status_code(), self._headers, length) or self._known

    def _settle(self) -> None:
        # After all received data is parsed: bytes after the response have made the connection unusable by now.
        if self._under_way:
            return
        if self.usable:
            self._owner.released(self)
        else:
            self.abort()

    def _pass_by(self, data: bytes) -> None:
        """Receive a part of a large body whose length is known. The parser would copy it; another reads the next response."""
        left = self._body_left
        self.on_body(data if len(data) <= left else data[:left])
        if not self._under_way or len(data) < left:
            return
        if len(data) > left:
            # A late or unsolicited response must not answer the next request.
            self.usable = False
        self.on_message_complete()
        self._parser = httptools.HttpResponseParser(self)

    def eof_received(self) -> bool | None:
        self.usable = False
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self.resume_writing()
        if self._under_way:
            if self._until_close and exc is None:
                self._finish(self._parser.get_status_code())
            elif self.served and not self._started:
                self._fail(EndpointResetError("the connection ended before any of the response had come", stale=True))
            else:
                self._fail(EndpointResetError("the connection ended before a whole response had come"))
        self._parser = _SPENT
        self._owner.lost(self)

    def on_message_begin(self) -> None:
        if not self._under_way:
            self.usable = False
        self._headers = []
        self._head_bytes = 0
        self._length = None
        self._body = []
        self._size_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _MOST_HEAD_BYTES:
            self._fail(EndpointAnswerTooLargeError(f"the answer's head is larger than {_MOST_HEAD_BYTES} bytes"))
            self.abort()
            return
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or not self._under_way:
            return
        if self._bodiless:
            # llhttp has no way to expect a response without a body, so the connection is not used again.
            self.usable = False
            self._finish(status)
            return
        framed, coded, length = False, False, 0
        for name, value in self._headers:
            if name in _FRAMING:
                framed = True
                if name == b"content-length":
                    # llhttp has checked that it is a number.
                    length = int(value)
                else:
                    coded = True
        self._length = length if framed and not coded else None
        self._until_close = not framed and status not in _BODILESS
        if length > _PARSED_BELOW_BYTES and status not in _BODILESS:
            self._body_left = length
        above = self._stream_above
        if above is not None and status < 300 and (not above or above < length <= self._limits.most_bytes):
            self._stream_bytes = length

    def _begin_stream(self, length: int) -> None:
        """Return the response now, as its first byte has come, with its body as a stream. `length` is 0 if it is not known."""
        self._stream_bytes = None
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        assert self._transport is not None
        status = self._parser.get_status_code()
        lease = self._limits.budget.lease(length) if 0 < length <= self._limits.most_bytes else None
        self._stream = AnswerBody(self.loop, self._transport, self._cut_off, lease)
        self._first_s = self.loop.time()
        self._waiter = None
        self._deadline_s = math.inf
        waiter.set_result(HttpResponse(status, self._headers, b"", None, self._stream))

    def _leave(self, waiter: asyncio.Future[HttpResponse]) -> None:
        """Close the connection if it still works on the exchange of `waiter`, by which a server that can cancels the request.

        Once that response was complete, the connection may work on another request.
        """
        if self._waiter is waiter:
            self._fail(EndpointTimeoutError("the caller no longer waits for the response"))
            self.abort()
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            stream = waiter.result().stream
            if stream is not None:
                stream.close()

    def _cut_off(self) -> None:
        """End the exchange in progress, as the rest of its response is not wanted."""
        self._fail(EndpointTimeoutError("the rest of the response is not wanted"))
        self.abort()

    def on_body(self, body: bytes) -> None:
        if not self._under_way:
            return
        if self._body_left:
            self._body_left -= len(body)
        if self._stream_bytes is not None:
            self._begin_stream(self._stream_bytes)
        if self._stream is not None:
            self._stream.arrived(body)
            return
        self._size_bytes += len(body)
        if self._size_bytes > UNCOUNTED_BYTES and not self._has_room():
            return
        if self._waiter is not None:
            self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if not self._under_way or status < 200:
            return
        if not self._parser.should_keep_alive():
            self.usable = False
        self._finish(status)

    def _has_room(self) -> bool:
        """Count the received bytes. If they exceed a limit, fail the exchange and return False."""
        limits = self._limits
        if self._size_bytes > limits.most_bytes:
            self._fail(EndpointAnswerTooLargeError(f"the answer is larger than {limits.most_bytes} bytes"))
        elif self._lease is None:
            self._lease = limits.budget.lease(self._size_bytes)
        elif not self._lease.grow(self._size_bytes):
            self._lease = None
        if self._under_way and self._lease is None:
            self._fail(
                EndpointBusyError(
                    f"all requests together hold {limits.budget.limit_bytes} bytes, the most allowed", sent=True
                )
            )
        if not self._under_way:
            self.abort()
        return self._under_way

    def _finish(self, status: int) -> None:
        waiter, self._waiter = self._waiter, None
        body, lease = self._body, self._lease
        stream, self._stream = self._stream, None
        ended_s = self.loop.time() if stream is None else self._first_s
        self._close_exchange(None if status >= 400 else ended_s - self._started_s)
        if stream is not None:
            stream.end(None)
        if waiter is not None and not waiter.done():
            content = body[0] if len(body) == 1 else b"".join(body)
            waiter.set_result(HttpResponse(status, self._headers, content, lease))

    def _fail(self, error: EndpointError) -> None:
        waiter, self._waiter = self._waiter, None
        stream, self._stream = self._stream, None
        self._close_exchange(None)
        if stream is not None:
            stream.end(error)
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _close_exchange(self, took_s: float | None) -> None:
        done, self._done = self._done, None
        self.served = True
        self._under_way = False
        self._started = False
        self._until_close = False
        self._stream_bytes = None
        self._body_left = 0
        self._body = []
        self._lease = None
        self._deadline_s = math.inf
        if self._drained is not None:
            # The server answered before it read the whole request. Perhaps it never will, and the next one is behind it.
            self.usable = False
        if self._writer is not None:
            if not self._writer.done():
                # The next request must not follow a partial one.
                self.usable = False
                self._writer.cancel()
            self._writer = None
        if done is not None:
            done(took_s)

    def _expire_at(self, deadline_s: float) -> None:
        """Set the deadline of the exchange. A timer that comes before it is left as it is, and is then set again: deadlines are
        much later than answers, so a timer for each exchange would be started and cancelled for nothing."""
        self._deadline_s = deadline_s
        if self._expiry is not None:
            if self._expiry_at_s <= deadline_s:
                return
            self._expiry.cancel()
        self._expiry_at_s = deadline_s
        self._expiry = self.loop.call_at(deadline_s, self._look_for_expiry)

    def _look_for_expiry(self) -> None:
        self._expiry = None
        if self._expiry_at_s >= self._deadline_s:
            self._fail(EndpointTimeoutError("no whole response within the attempt's time"))
            self.abort()
        elif self._deadline_s < math.inf:
            self._expire_at(self._deadline_s)
