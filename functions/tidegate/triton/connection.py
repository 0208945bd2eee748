"""One HTTP/1.1 connection to a Triton server: one request at a time out, its response in.

Responses are parsed by llhttp, through httptools, and framed as RFC 9112 says (https://www.rfc-editor.org/rfc/rfc9112):
Content-Length, chunked, or up to the end of the connection. Bodies travel untouched, compressed or not.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import Any, Protocol

import httptools

from tidegate.byte_budget import ByteBudget, ByteLease
from tidegate.errors import (
    EndpointAnswerTooLargeError,
    EndpointBusyError,
    EndpointError,
    EndpointResetError,
    EndpointTimeoutError,
)
from tidegate.ports import Done, Endpoint, HttpRequest, HttpResponse

_JOIN_BELOW_BYTES = 65_536
_SLICE_BYTES = 262_144
_UNCOUNTED_BYTES = 65_536
_MOST_HEAD_BYTES = 65_536
_BODILESS = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class ResponseLimits:
    """Bounds on what a response may hold.

    Attributes:
        most_bytes: the largest body that is accepted.
        budget: counts what all responses hold together; small ones are not counted.
        abandoned_s: how long an exchange that nobody waits for may go on, until its connection is closed.
    """

    most_bytes: int
    budget: ByteBudget
    abandoned_s: float


class Owner(Protocol):
    """The pool that a connection belongs to."""

    def released(self, connection: Connection) -> None:
        """An exchange has ended and the connection can take another."""
        ...

    def lost(self, connection: Connection) -> None:
        """A connection is closed."""
        ...


class Connection(asyncio.Protocol):
    """One connection: at most one request under way, its response assembled by llhttp's callbacks."""

    __slots__ = (
        "_bodiless",
        "_body",
        "_done",
        "_drained",
        "_expiry",
        "_head_bytes",
        "_headers",
        "_lease",
        "_limits",
        "_owner",
        "_parser",
        "_size_bytes",
        "_started",
        "_started_s",
        "_transport",
        "_under_way",
        "_until_close",
        "_waiter",
        "_writer",
        "idle_since_s",
        "loop",
        "served",
        "usable",
    )  # fmt: skip

    def __init__(self, owner: Owner, limits: ResponseLimits) -> None:
        self.loop = asyncio.get_running_loop()
        self.usable = False
        self.served = False
        self.idle_since_s = 0.0
        self._owner = owner
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[HttpResponse] | None = None
        self._done: Done | None = None
        self._under_way = False
        self._started_s = 0.0
        self._expiry: asyncio.TimerHandle | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._body: list[bytes] = []
        self._size_bytes = 0
        self._lease: ByteLease | None = None
        self._started = False
        self._bodiless = False
        self._until_close = False
        self._drained: asyncio.Future[None] | None = None
        self._writer: asyncio.Task[None] | None = None

    async def exchange(
        self, data: list[bytes], request: HttpRequest, deadline_s: float, done: Done | None
    ) -> HttpResponse:
        """Write one request and return its response.

        Where `done` is given and nobody waits for the response any more (time-out, cancellation), the exchange goes on:
        Triton works on a request that it has, and `done` is called when that is over.

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
        self._expiry = self.loop.call_at(deadline_s, self._expire)
        if len(data) == 1 and request.rest is None:
            self._transport.write(data[0])
        else:
            self._writer = self.loop.create_task(self._write(data, request))
        try:
            return await waiter
        except asyncio.CancelledError:
            self._abandon()
            raise

    async def _write(self, data: list[bytes], request: HttpRequest) -> None:
        """Write a large request, no faster than the endpoint reads it."""
        assert self._transport is not None
        sent = 0
        try:
            for piece in data:
                view = memoryview(piece)
                for start in range(0, len(view), _SLICE_BYTES):
                    self._transport.write(view[start : start + _SLICE_BYTES])
                    await self._drain()
            if request.rest is not None:
                async for chunk in request.rest:
                    sent += len(chunk)
                    if sent > request.rest_bytes:
                        # What is longer than announced would be the next request.
                        raise EndpointResetError("the request's body is longer than announced")
                    self._transport.write(chunk)
                    await self._drain()
                if sent != request.rest_bytes:
                    raise EndpointResetError("the request's body ended early")
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
        """Close at once; whatever still arrives is dropped with the socket."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def hang_up(self) -> None:
        """End the exchange, as the endpoint is known to answer nothing."""
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
        self.usable = True
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if not self._under_way:
            # Nobody asked: a late or unsolicited response must not answer the next request.
            self.abort()
            return
        self._started = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._bodiless:
                self._fail(EndpointResetError(f"the answer is not HTTP/1.1 ({type(error).__name__})"))
            self.abort()
        self._settle()

    def _settle(self) -> None:
        """Give the connection back, where the exchange is over and all that has come was read: what follows the response
        must not answer the next request."""
        if self._under_way:
            return
        if self.usable:
            self._owner.released(self)
        else:
            self.abort()

    def eof_received(self) -> bool | None:
        self.usable = False
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self.resume_writing()
        if self._under_way:
            if self._until_close and exc is None:
                self._finish()
            elif self.served and not self._started:
                self._fail(EndpointResetError("the connection ended before any of the response had come", stale=True))
            else:
                self._fail(EndpointResetError("the connection ended before a whole response had come"))
        self._owner.lost(self)

    def on_message_begin(self) -> None:
        if not self._under_way:
            self.usable = False
        self._headers = []
        self._head_bytes = 0
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
            # llhttp cannot be told that this response has no body, so the connection ends with it.
            self.usable = False
            self._finish()
            return
        framed = any(name == b"content-length" or name == b"transfer-encoding" for name, _ in self._headers)
        self._until_close = not framed and status not in _BODILESS

    def on_body(self, body: bytes) -> None:
        if not self._under_way:
            return
        self._size_bytes += len(body)
        if self._size_bytes > _UNCOUNTED_BYTES and not self._has_room():
            return
        if self._waiter is not None:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if not self._under_way or self._parser.get_status_code() < 200:
            return
        if not self._parser.should_keep_alive():
            self.usable = False
        self._finish()

    def _has_room(self) -> bool:
        """Count what has come; False, and the exchange is over, where it is too much."""
        limits = self._limits
        if self._size_bytes > limits.most_bytes:
            self._fail(EndpointAnswerTooLargeError(f"the answer is larger than {limits.most_bytes} bytes"))
        elif self._waiter is None:
            # Of an exchange that was abandoned, whose bytes are dropped.
            return True
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

    def _finish(self) -> None:
        waiter, self._waiter = self._waiter, None
        body, lease = self._body, self._lease
        is_error = self._parser.get_status_code() >= 400
        self._close_exchange(None if is_error else self.loop.time() - self._started_s)
        if waiter is not None and not waiter.done():
            content = body[0] if len(body) == 1 else b"".join(body)
            waiter.set_result(HttpResponse(self._parser.get_status_code(), self._headers, content, lease))

    def _fail(self, error: EndpointError) -> None:
        waiter, self._waiter = self._waiter, None
        self._close_exchange(None)
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _close_exchange(self, took_s: float | None) -> None:
        done, self._done = self._done, None
        self.served = True
        self._under_way = False
        self._started = False
        self._until_close = False
        self._body = []
        self._lease = None
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._writer is not None:
            if not self._writer.done():
                # Answered before it was read whole: what is left of it must not become the next request.
                self.usable = False
                self._writer.cancel()
            self._writer = None
        if done is not None:
            done(took_s)

    def _abandon(self) -> None:
        """Nobody waits any more. What Triton has begun goes on for a while, where somebody wants to know when it ends."""
        self._waiter = None
        self._body = []
        self._lease = None
        if not self._under_way:
            return
        if self._done is None or (self._writer is not None and not self._writer.done()):
            self._fail(EndpointTimeoutError("nobody waits for the response any more"))
            self.abort()
            return
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = self.loop.call_later(self._limits.abandoned_s, self._give_up)

    def _expire(self) -> None:
        self._expiry = None
        waiter = self._waiter
        self._abandon()
        if waiter is not None and not waiter.done():
            waiter.set_exception(EndpointTimeoutError("no whole response within the attempt's time"))

    def _give_up(self) -> None:
        self._expiry = None
        self._fail(EndpointTimeoutError("no whole response in the time of an abandoned request"))
        self.abort()


def serialize(endpoint: Endpoint, request: HttpRequest) -> list[bytes]:
    """The request on the wire without its `rest`, as one piece, or as head and body where copying the body would cost more.

    Raises:
        ValueError: the request's method, path or a header holds a line break.
    """
    body = request.body
    lines: list[Any] = [f"{request.method} {request.path} HTTP/1.1\r\nhost: {endpoint.host}:{endpoint.port}".encode()]
    for name, value in request.headers:
        lines.append(b"%b: %b" % (name, value))
    size_bytes = len(body) + request.rest_bytes
    if size_bytes or request.method in ("POST", "PUT", "PATCH"):
        lines.append(b"content-length: %d" % size_bytes)
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    breaks = len(lines) + 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks:
        raise ValueError("a request's method, path and headers may not hold line breaks")
    if len(body) > _JOIN_BELOW_BYTES:
        return [head, body]
    return [head + body]
