"""An HTTP/1.1 client for Triton: bytes in, bytes out, over pooled keep-alive connections.

It does no more than the request path needs: one write per request, one parser per connection, no stream objects, no
decoding. Each endpoint has a bounded number of connections; who finds none free waits in turn.
"""

from __future__ import annotations

import asyncio
from collections import deque

from tidegate.byte_budget import ByteBudget
from tidegate.errors import (
    EndpointBusyError,
    EndpointError,
    EndpointRefusedError,
    EndpointResetError,
    EndpointTimeoutError,
)
from tidegate.ports import Done, Endpoint, HttpRequest, HttpResponse
from tidegate.triton.connection import Connection, ResponseLimits, serialize

_LOOK_AGAIN_AFTER_S = 0.5
_MOST_RESPONSE_BYTES = 64 * 1024 * 1024
_UNLIMITED_BYTES = 1 << 62


class PooledTransport:
    """A `tidegate.ports.Transport` over pooled keep-alive connections, last used first.

    One instance serves one event loop at a time; connections that belong to another loop are dropped. A process may be
    frozen between requests: a connection that has been idle for a while is looked at before it is used.

    Args:
        connect_timeout_s: how long opening a connection may take before the endpoint counts as unreachable (> 0). Time in
            which this process did not run is not counted.
        max_idle_per_endpoint: how many unused connections are kept for each endpoint (at least 0).
        max_idle_s: an unused connection older than this is closed instead of used; keep it below the idle time-out of
            whatever stands in front of Triton (60 s for an AWS load balancer).
        max_per_endpoint: how many connections may be open to each endpoint (at least 1).
        limits: bounds on responses; by default 64 MiB for each and none for all together.
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
        self._limits = limits or ResponseLimits(_MOST_RESPONSE_BYTES, ByteBudget(_UNLIMITED_BYTES), 60.0)
        self._pools: dict[Endpoint, _Pool] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(
        self, endpoint: Endpoint, request: HttpRequest, timeout_s: float, done: Done | None = None
    ) -> HttpResponse:
        """See `tidegate.ports.Transport.send`.

        Raises:
            EndpointError: as the port says.
            ValueError: the request's method, path or a header holds a line break.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._pools = {}
            self._loop = loop
        deadline_s = loop.time() + timeout_s
        began = False
        try:
            data = serialize(endpoint, request)
            pool = self._pools.get(endpoint) or self._add_pool(endpoint, loop)
            connection = await (self._connect if request.apart else self._pooled)(pool, deadline_s)
            began = True
            try:
                return await connection.exchange(data, request, deadline_s, done)
            except EndpointResetError as error:
                if not error.stale or request.send_once or request.rest is not None:
                    raise
                # `done` was called.
                connection = await self._connect(pool, deadline_s)
                return await connection.exchange(data, request, deadline_s, None)
        finally:
            if done is not None and not began:
                done(None)

    def hang_up(self, endpoint: Endpoint) -> None:
        """See `tidegate.ports.Transport.hang_up`."""
        pool = self._pools.get(endpoint)
        if pool is not None:
            pool.hang_up()

    async def aclose(self) -> None:
        """Close every unused connection; the transport may be used again."""
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close_idle()
        await asyncio.sleep(0)

    async def _pooled(self, pool: _Pool, deadline_s: float) -> Connection:
        """A connection of a pool: an unused one, else a new one, else the first that another request leaves."""
        found = await pool.take()
        if found is None and not pool.may_open:
            found = await pool.wait_turn(deadline_s)
        return found if found is not None and found.usable else await self._connect(pool, deadline_s)

    async def _connect(self, pool: _Pool, deadline_s: float) -> Connection:
        """Open a connection, as one of the pool's.

        Raises:
            EndpointRefusedError: nothing can be reached there.
            EndpointTimeoutError: it was not open in time.
        """
        connection = pool.add()
        opening = pool.loop.create_task(
            pool.loop.create_connection(lambda: connection, pool.endpoint.host, pool.endpoint.port)
        )
        try:
            await self._opened(opening, pool.loop, deadline_s)
            return opening.result()[1]
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

    async def _opened(
        self,
        opening: asyncio.Task[tuple[asyncio.Transport, Connection]],
        loop: asyncio.AbstractEventLoop,
        deadline_s: float,
    ) -> None:
        """Wait until a connection is open or refused.

        Time that this loop spent on something else is no time that the endpoint had: where the loop was late, the wait
        goes on.

        Raises:
            EndpointTimeoutError: neither by the deadline, or within the time to connect.
        """
        while True:
            began_s = loop.time()
            left_s = deadline_s - began_s
            limit_s = min(left_s, self._connect_timeout_s)
            await asyncio.wait((opening,), timeout=max(limit_s, 0.0))
            if opening.done():
                return
            took_s = loop.time() - began_s
            # Two turns of the loop let it see what had arrived meanwhile.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if opening.done():
                return
            if left_s <= self._connect_timeout_s:
                raise EndpointTimeoutError("no connection within the attempt's time", sent=False)
            if took_s <= 1.5 * limit_s:
                raise EndpointTimeoutError(f"no connection within {self._connect_timeout_s:g} s", sent=False)

    def _add_pool(self, endpoint: Endpoint, loop: asyncio.AbstractEventLoop) -> _Pool:
        """A pool for a new endpoint; those of endpoints that nobody asks any more are let go."""
        for each, pool in list(self._pools.items()):
            if pool.close_old() and not pool.open:
                del self._pools[each]
        pool = _Pool(endpoint, loop, self._limits, self._max_open, self._max_idle, self._max_idle_s)
        self._pools[endpoint] = pool
        return pool


class _Pool:
    """The connections to one endpoint, those that are being opened included."""

    __slots__ = (
        "_all",
        "_idle",
        "_leaves",
        "_limits",
        "_max_idle",
        "_max_idle_s",
        "_max_open",
        "_waiting",
        "endpoint",
        "loop",
    )  # fmt: skip

    def __init__(
        self,
        endpoint: Endpoint,
        loop: asyncio.AbstractEventLoop,
        limits: ResponseLimits,
        max_open: int,
        max_idle: int,
        max_idle_s: float,
    ) -> None:
        self.endpoint = endpoint
        self._limits = limits
        self._all: set[Connection] = set()
        self.loop = loop
        self._leaves = 0
        self._max_open = max_open
        self._max_idle = max_idle
        self._max_idle_s = max_idle_s
        self._idle: list[Connection] = []
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()

    def add(self) -> Connection:
        """A connection that is about to be opened; it counts until it is `lost`."""
        connection = Connection(self, self._limits)
        self._all.add(connection)
        return connection

    @property
    def open(self) -> int:
        """How many connections there are, leave to open one included."""
        return len(self._all) + self._leaves

    @property
    def may_open(self) -> bool:
        """Whether another connection may be opened now, before those who wait for one."""
        return self.open < self._max_open and not self._waiting

    async def take(self) -> Connection | None:
        """The unused connection that was used last, if one is alive."""
        while self._idle:
            connection = self._idle.pop()
            idle_s = self.loop.time() - connection.idle_since_s
            if idle_s > self._max_idle_s:
                connection.abort()
                continue
            if idle_s > _LOOK_AGAIN_AFTER_S:
                # Two turns of the loop let it see a close that arrived while nobody polled (a frozen process).
                try:
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    connection.abort()
                    raise
            if connection.usable:
                return connection
        return None

    async def wait_turn(self, deadline_s: float) -> Connection | None:
        """Wait for a connection that another request leaves, first come, first served; None: one may be opened instead.

        Raises:
            EndpointBusyError: no turn by the deadline.
        """
        turn: asyncio.Future[Connection | None] = self.loop.create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(deadline_s):
                given = await turn
        except BaseException as error:
            if turn in self._waiting:
                self._waiting.remove(turn)
            elif turn.done() and not turn.cancelled():
                # It came too late for this request, and is the next one's.
                self._return(turn.result())
            if isinstance(error, TimeoutError):
                raise EndpointBusyError(f"all {self._max_open} connections were in use") from None
            raise
        if given is None:
            self._leaves -= 1
        return given

    def _return(self, given: Connection | None) -> None:
        if given is None:
            self._leaves -= 1
            self._let_open()
        elif given.usable:
            self.released(given)

    def _let_open(self) -> None:
        """Give the first who waits leave to open a connection, where another may be open."""
        if self.open < self._max_open and self._hand_on(None):
            self._leaves += 1

    def released(self, connection: Connection) -> None:
        """Keep a connection that can take another request, or hand it on."""
        if self._hand_on(connection):
            return
        if len(self._idle) < self._max_idle:
            connection.idle_since_s = self.loop.time()
            self._idle.append(connection)
        else:
            connection.abort()

    def lost(self, connection: Connection) -> None:
        """Forget a connection that has ended or could not be opened: another may be opened in its place."""
        self._all.discard(connection)
        self._let_open()

    def hang_up(self) -> None:
        """End every exchange as if its time were over."""
        for connection in tuple(self._all):
            connection.hang_up()

    def close_old(self) -> bool:
        """Close all unused connections if the one that was used last has been unused for too long; whether none is left."""
        if self._idle and self._idle[-1].idle_since_s < self.loop.time() - self._max_idle_s:
            self.close_idle()
        return not self._idle

    def close_idle(self) -> None:
        """Close every unused connection."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.abort()

    def _hand_on(self, connection: Connection | None) -> bool:
        """Give the first who waits a connection, or with None leave to open one; False where nobody waits."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False
