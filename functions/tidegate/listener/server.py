"""The listener: accepts connections, enforces their time-outs, and stops in bounded time."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Iterator

from tidegate.listener.config import ListenerConfig
from tidegate.listener.connection import Connection
from tidegate.listener.exchange import App, AtOnce
from tidegate.listener.refusal import RefusalLog

_TICK_S = 0.5
_BACKLOG = 2048
_REFUSED_AT_ONCE = 256
"""How many connections above the limit may be open to be answered with 503; further ones are closed without an answer."""


class Listener:
    """Serves one ASGI app over HTTP/1.1 on one socket, within one event loop.

    It installs no signal handlers, runs no lifespan and writes no access log. When a caller disconnects, the app's work for
    it ends (see `Exchange`).

    Args:
        app: answers the requests.
        config: the limits.
        at_once: is asked before the app about each request without a body, and answers those that need no waiting.
    """

    def __init__(self, app: App, config: ListenerConfig, at_once: AtOnce | None = None) -> None:
        self.app = app
        self.at_once = at_once
        self.config = config
        self.stopping = False
        self.now_s = 0.0
        self._loop: asyncio.AbstractEventLoop
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        unbounded = descriptors == resource.RLIM_INFINITY
        self._max_connections = config.max_connections if unbounded else min(config.max_connections, descriptors // 2)
        times_s = (
            config.head_timeout_s,
            config.idle_timeout_s,
            config.body_timeout_s,
            config.write_timeout_s,
            config.linger_s,
        )
        self._tick_s = min(_TICK_S, *(each / 4 for each in times_s))
        self._ticker: asyncio.TimerHandle | None = None
        self._evictable: Iterator[Connection] = iter(())
        self._changed = asyncio.Event()
        self._log = RefusalLog()

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def start(self, sock: socket.socket) -> None:
        """Accept connections on `sock`, which must be bound.

        Raises:
            OSError: the socket cannot listen.
        """
        loop = asyncio.get_running_loop()
        self._loop = loop
        self.now_s = loop.time()
        self._server = await loop.create_server(lambda: Connection(self, loop), sock=sock, backlog=_BACKLOG)
        self._ticker = loop.call_later(self._tick_s, self._tick)

    async def stop(self, grace_s: float) -> None:
        """Stop accepting, give requests in progress `grace_s` to end, answer the others with 503, and close everything.

        Return after at most `grace_s` plus `flush_s`; connections that are still open then are reset.
        """
        if self._server is None:
            return
        self.stopping = True
        self._server.close()
        for connection in tuple(self._connections):
            connection.stop()
        await self._empty(grace_s, busy=True)
        for connection in tuple(self._connections):
            connection.end_request()
        await self._empty(self.config.flush_s, busy=False)
        for connection in tuple(self._connections):
            connection.abort()
        await asyncio.sleep(0)
        if self._ticker is not None:
            self._ticker.cancel()
        self._server = None

    def opened(self, connection: Connection) -> bool:
        """Note a new connection; return whether there is room for it."""
        open_ = len(self._connections)
        self._connections.add(connection)
        if open_ < self._max_connections or self._evict():
            return True
        if open_ >= self._max_connections + _REFUSED_AT_ONCE:
            connection.abort()
        return False

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self._connections.discard(connection)
        self._changed.set()

    def refused(self, text: str, peer: str) -> None:
        """Log a refusal; see `RefusalLog`."""
        self._log.write(text, peer, self._loop.time())

    def later_s(self, delay_s: float) -> float:
        """Return a deadline that is at least `delay_s` away, by a clock that is up to one tick old."""
        return self.now_s + delay_s + self._tick_s

    def _evict(self) -> bool:
        """Close a connection that only lingers, else the longest idle one, else the one with the slowest head.

        The order is computed once per tick, since it visits every connection.
        """
        for connection in self._evictable:
            if connection.spare and connection in self._connections:
                connection.abort()
                return True
        return False

    def _tick(self) -> None:
        self.now_s = self._loop.time()
        self._ticker = self._loop.call_later(self._tick_s, self._tick)
        now_s = self.now_s
        for connection in tuple(self._connections):
            if connection.read_deadline_s <= now_s or connection.sending.deadline_s <= now_s:
                connection.look(now_s)
        if len(self._connections) >= self._max_connections // 2:
            idle = [each for each in self._connections if each.spare]
            self._evictable = iter(sorted(idle, key=lambda each: (each.busy, each.read_deadline_s)))

    async def _empty(self, limit_s: float, *, busy: bool) -> None:
        """Wait up to `limit_s` until no connection is left, or with `busy` until none is busy."""
        deadline_s = self._loop.time() + limit_s
        while any(not busy or each.busy for each in self._connections):
            self._changed.clear()
            try:
                async with asyncio.timeout_at(min(deadline_s, self._loop.time() + self._tick_s)):
                    await self._changed.wait()
            except TimeoutError:
                if self._loop.time() >= deadline_s:
                    return
