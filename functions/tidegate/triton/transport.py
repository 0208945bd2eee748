"""An HTTP/1.1 client for Triton, with pooled keep-alive connections.

It does what the request path needs: one write per request, one parser per connection, no stream objects, no decoding.
"""

from __future__ import annotations

import asyncio
from typing import Final

from tidegate.byte_budget import ByteBudget
from tidegate.errors import (
    EndpointError,
    EndpointRefusedError,
    EndpointResetError,
    EndpointTimeoutError,
)
from tidegate.ports import Done, Endpoint, HttpRequest, HttpResponse
from tidegate.triton.connection import Connection, ResponseLimits
from tidegate.triton.pool import Pool
from tidegate.triton.request_bytes import serialize

_MOST_RESPONSE_BYTES: Final = 64 * 1024 * 1024
_UNLIMITED_BYTES: Final = 1 << 62


class PooledTransport:
    """A `Transport` over pooled keep-alive connections, of which the most recently used one is taken first.

    An instance serves one event loop at a time, and drops the connections of another loop. Since the process may be frozen
    between requests, a connection that was idle for a while is checked before it is used.

    Args:
        connect_timeout_s: time to open a connection (> 0), without time in which this process did not run.
        max_idle_per_endpoint: unused connections that are kept for each endpoint (at least 0).
        max_idle_s: a connection that was idle for longer is closed; keep it below the idle time-out of a load balancer in
            front of Triton (60 s on AWS).
        max_per_endpoint: open connections to each endpoint (at least 1); further requests wait in turn.
        limits: by default 64 MiB for each response, and no limit for all together.
    """

    def __init__(
        self,
        connect_timeout_s: float = 1.0,
        max_idle_per_endpoint: int = 64,
        max_idle_s: float = 50.0,
        max_per_endpoint: int = 256,
        limits: ResponseLimits | None = None,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._max_idle = max_idle_per_endpoint
        self._max_idle_s = max_idle_s
        self._max_open = max_per_endpoint
        self._limits = limits or ResponseLimits(_MOST_RESPONSE_BYTES, ByteBudget(_UNLIMITED_BYTES))
        self._pools: dict[Endpoint, Pool] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(
        self, endpoint: Endpoint, request: HttpRequest, timeout_s: float, done: Done | None = None
    ) -> HttpResponse:
        """See `Transport.send`. Raises `ValueError` also for a line break in the method, the path or a header."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._pools = {}
            self._loop = loop
        deadline_s = loop.time() + timeout_s
        data = serialize(endpoint, request)
        pool = self._pools.get(endpoint) or self._add_pool(endpoint, loop)
        connection = None if request.apart else pool.take_fresh()
        if connection is None:
            connection = await (self._connect if request.apart else self._pooled)(pool, deadline_s)
        try:
            return await connection.exchange(data, request, deadline_s, done)
        except EndpointResetError as error:
            if not error.stale or request.send_once or request.rest is not None:
                raise
            # `done` was called when the first exchange ended.
            connection = await self._connect(pool, deadline_s)
            return await connection.exchange(data, request, deadline_s, None)

    def hang_up(self, endpoint: Endpoint) -> None:
        pool = self._pools.get(endpoint)
        if pool is not None:
            pool.hang_up()

    async def aclose(self) -> None:
        """Close every idle connection; the transport may be used again."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close_idle()
        await asyncio.sleep(0)

    async def _pooled(self, pool: Pool, deadline_s: float) -> Connection:
        """Return an idle connection, a new one, or the next that is released."""
        found = await pool.take()
        if found is None and not pool.may_open:
            found = await pool.wait_turn(deadline_s)
        return found if found is not None and found.usable else await self._connect(pool, deadline_s)

    async def _connect(self, pool: Pool, deadline_s: float) -> Connection:
        connection = pool.add()
        opening = pool.loop.create_task(
            pool.loop.create_connection(lambda: connection, pool.endpoint.host, pool.endpoint.port)
        )
        try:
            await self._opened(opening, pool.loop, deadline_s)
            opening.result()
        except BaseException as error:
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                connection.abort()
            else:
                opening.cancel()
                pool.lost(connection)
            if isinstance(error, OSError) and not isinstance(error, EndpointError):
                reason = error.strerror or type(error).__name__
                raise EndpointRefusedError(f"connection failed: {reason}") from error
            raise
        finally:
            # A task keeps the error that it ended with, whose traceback keeps this frame.
            del opening
        if not connection.usable:
            raise EndpointRefusedError("the connection was closed as soon as it was open")
        return connection

    async def _opened(
        self,
        opening: asyncio.Task[tuple[asyncio.Transport, Connection]],
        loop: asyncio.AbstractEventLoop,
        deadline_s: float,
    ) -> None:
        """Wait until a connection is open or refused, and longer if the event loop was blocked meanwhile.

        Raises:
            EndpointTimeoutError: neither happened by the deadline, or within the connect time-out.
        """
        while True:
            began_s = loop.time()
            left_s = deadline_s - began_s
            limit_s = min(left_s, self._connect_timeout_s)
            await asyncio.wait((opening,), timeout=max(limit_s, 0.0))
            if opening.done():
                return
            took_s = loop.time() - began_s
            # Two iterations let the loop process what arrived meanwhile.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if opening.done():
                return
            if left_s <= self._connect_timeout_s:
                raise EndpointTimeoutError("no connection within the attempt's time", sent=False)
            if took_s <= 1.5 * limit_s:
                raise EndpointTimeoutError(f"no connection within {self._connect_timeout_s:g} s", sent=False)

    def _add_pool(self, endpoint: Endpoint, loop: asyncio.AbstractEventLoop) -> Pool:
        """Add the pool of an endpoint, and drop the pools of unused endpoints."""
        for each, pool in list(self._pools.items()):
            if pool.close_old() and not pool.open:
                del self._pools[each]
        pool = Pool(endpoint, loop, self._limits, self._max_open, self._max_idle, self._max_idle_s)
        self._pools[endpoint] = pool
        return pool
