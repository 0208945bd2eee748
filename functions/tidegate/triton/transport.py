"""An HTTP/1.1 client for Triton: bytes in, bytes out, over pooled keep-alive connections.

It does no more than the request path needs: one write per request, one parser per connection (llhttp, through
httptools), no stream objects, no decoding. Bodies travel untouched, compressed or not. Messages are framed as RFC 9112
says (https://www.rfc-editor.org/rfc/rfc9112): Content-Length, chunked, or up to the end of the connection.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httptools

from tidegate.errors import EndpointError, EndpointRefusedError, EndpointResetError, EndpointTimeoutError
from tidegate.ports import Endpoint, HttpRequest, HttpResponse

_JOIN_BELOW_BYTES = 65_536
_LOOK_AGAIN_AFTER_S = 0.5
_BODILESS = frozenset({204, 304})


class _StaleError(EndpointResetError):
    """A connection that had served before ended without a byte of this response."""


class PooledTransport:
    """A `tidegate.ports.Transport` over pooled keep-alive connections, last used first.

    One instance serves one event loop at a time; connections that belong to another loop are dropped. A process may be
    frozen between requests: a connection that has been idle for a while is looked at before it is used.

    Args:
        connect_timeout_s: how long opening a connection may take before the endpoint counts as unreachable (> 0).
        max_idle_per_endpoint: how many unused connections are kept for each endpoint (at least 0).
        max_idle_s: an unused connection older than this is closed instead of used; keep it below the idle time-out of
            whatever stands in front of Triton (60 s for an AWS load balancer).
    """

    def __init__(
        self, connect_timeout_s: float = 1.0, max_idle_per_endpoint: int = 64, max_idle_s: float = 50.0
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._max_idle = max_idle_per_endpoint
        self._max_idle_s = max_idle_s
        self._pools: dict[Endpoint, list[_Connection]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, endpoint: Endpoint, request: HttpRequest, timeout_s: float) -> HttpResponse:
        """Send one request and return the whole response.

        A pooled connection found dead before any response byte is replaced and the request sent again at once, unless
        `request.send_once` is set. A response that comes after `timeout_s` is never taken for another request's: its
        connection is gone.

        Raises:
            EndpointRefusedError: the connection could not be opened.
            EndpointResetError: the connection ended, or the answer was not HTTP, before a whole response had come.
            EndpointTimeoutError: no whole response within `timeout_s` seconds.
            ValueError: the request's method, path or a header holds a line break.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._pools = {}
            self._loop = loop
        deadline_s = loop.time() + timeout_s
        data = _serialize(endpoint, request)
        connection = await self._idle(endpoint, loop)
        if connection is not None:
            try:
                return await self._exchange(endpoint, connection, data, request.method, deadline_s)
            except _StaleError:
                if request.send_once:
                    raise
        connection = await self._connect(endpoint, loop, deadline_s)
        return await self._exchange(endpoint, connection, data, request.method, deadline_s)

    async def aclose(self) -> None:
        """Close every unused connection; the transport may be used again."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            for connection in pool:
                connection.abort()
        await asyncio.sleep(0)

    async def _idle(self, endpoint: Endpoint, loop: asyncio.AbstractEventLoop) -> _Connection | None:
        """The most recently used live connection to `endpoint`, taken out of the pool."""
        pool = self._pools.get(endpoint)
        while pool:
            connection = pool.pop()
            idle_s = loop.time() - connection.idle_since_s
            if idle_s > self._max_idle_s:
                connection.abort()
                continue
            if idle_s > _LOOK_AGAIN_AFTER_S:
                # Two turns of the loop let it see a close that arrived while nobody polled (a frozen process).
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            if connection.usable:
                return connection
        return None

    async def _connect(self, endpoint: Endpoint, loop: asyncio.AbstractEventLoop, deadline_s: float) -> _Connection:
        left_s = deadline_s - loop.time()
        limit_s = min(left_s, self._connect_timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                _, connection = await loop.create_connection(_Connection, endpoint.host, endpoint.port)
        except TimeoutError as error:
            if left_s <= self._connect_timeout_s:
                raise EndpointTimeoutError("no connection within the attempt's time") from error
            raise EndpointRefusedError(f"no connection within {self._connect_timeout_s:g} s") from error
        except OSError as error:
            raise EndpointRefusedError(f"connection failed: {error.strerror or type(error).__name__}") from error
        return connection

    async def _exchange(
        self, endpoint: Endpoint, connection: _Connection, data: list[bytes], method: str, deadline_s: float
    ) -> HttpResponse:
        response: HttpResponse | None = None
        try:
            response = await connection.exchange(data, method == "HEAD", deadline_s)
            return response
        finally:
            if response is None or not connection.usable:
                connection.abort()
            else:
                self._release(endpoint, connection)

    def _release(self, endpoint: Endpoint, connection: _Connection) -> None:
        pool = self._pools.get(endpoint)
        if pool is None:
            self._sweep()
            pool = self._pools[endpoint] = []
        if len(pool) >= self._max_idle:
            connection.abort()
            return
        connection.idle_since_s = connection.loop.time()
        pool.append(connection)

    def _sweep(self) -> None:
        """Let go of endpoints that nobody asks any more; called when a new one comes."""
        assert self._loop is not None
        oldest_s = self._loop.time() - self._max_idle_s
        for endpoint, pool in list(self._pools.items()):
            if not pool or pool[-1].idle_since_s < oldest_s:
                for connection in self._pools.pop(endpoint):
                    connection.abort()


class _Connection(asyncio.Protocol):
    """One connection: at most one request under way, its response assembled by llhttp's callbacks."""

    __slots__ = (
        "_bodiless",
        "_body",
        "_expiry",
        "_headers",
        "_parser",
        "_started",
        "_transport",
        "_until_close",
        "_waiter",
        "idle_since_s",
        "loop",
        "served",
        "usable",
    )  # fmt: skip

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.usable = False
        self.served = False
        self.idle_since_s = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[HttpResponse] | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._started = False
        self._bodiless = False
        self._until_close = False

    def exchange(self, data: list[bytes], bodiless: bool, deadline_s: float) -> asyncio.Future[HttpResponse]:
        """Write one request; the future brings its response or an `EndpointError`."""
        assert self._transport is not None
        waiter: asyncio.Future[HttpResponse] = self.loop.create_future()
        self._waiter = waiter
        self._bodiless = bodiless
        self._expiry = self.loop.call_at(deadline_s, self._expire)
        if len(data) == 1:
            self._transport.write(data[0])
        else:
            self._transport.writelines(data)
        return waiter

    def abort(self) -> None:
        """Close at once; whatever still arrives is dropped with the socket."""
        self.usable = False
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # create_connection makes a stream transport
        self.usable = True
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
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

    def eof_received(self) -> bool | None:
        self.usable = False
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        if self._waiter is None:
            return
        if self._until_close and exc is None:
            self._finish()
        elif self.served and not self._started:
            self._fail(_StaleError("the pooled connection had been closed"))
        else:
            self._fail(EndpointResetError("the connection ended before a whole response had come"))

    def on_message_begin(self) -> None:
        if self._waiter is None:
            self.usable = False
        self._headers = []
        self._body = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        if self._bodiless:
            # llhttp cannot be told that this response has no body, so the connection ends with it.
            self.usable = False
            self._finish()
            return
        framed = any(name == b"content-length" or name == b"transfer-encoding" for name, _ in self._headers)
        self._until_close = not framed and status not in _BODILESS

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._waiter is None or self._parser.get_status_code() < 200:
            return
        if not self._parser.should_keep_alive():
            self.usable = False
        self._finish()

    def _finish(self) -> None:
        waiter, self._waiter = self._waiter, None
        body = self._body
        self._close_exchange()
        if waiter is not None and not waiter.done():
            content = body[0] if len(body) == 1 else b"".join(body)
            waiter.set_result(HttpResponse(self._parser.get_status_code(), self._headers, content))

    def _fail(self, error: EndpointError) -> None:
        waiter, self._waiter = self._waiter, None
        self._close_exchange()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _close_exchange(self) -> None:
        self.served = True
        self._started = False
        self._until_close = False
        self._body = []
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None

    def _expire(self) -> None:
        self._expiry = None
        self._fail(EndpointTimeoutError("no whole response within the attempt's time"))
        self.abort()


def _serialize(endpoint: Endpoint, request: HttpRequest) -> list[bytes]:
    """The request on the wire, as one piece, or as head and body where copying the body would cost more."""
    body = request.body
    lines: list[Any] = [f"{request.method} {request.path} HTTP/1.1\r\nhost: {endpoint.host}:{endpoint.port}".encode()]
    for name, value in request.headers:
        lines.append(b"%b: %b" % (name, value))
    if body or request.method in ("POST", "PUT", "PATCH"):
        lines.append(b"content-length: %d" % len(body))
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    breaks = len(lines) + 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks:
        raise ValueError("a request's method, path and headers may not hold line breaks")
    if len(body) > _JOIN_BELOW_BYTES:
        return [head, body]
    return [head + body]
