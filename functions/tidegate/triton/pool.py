"""A bounded pool of connections to one Triton server, for which requests wait in turn."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from tidegate.errors import EndpointBusyError
from tidegate.ports import Endpoint
from tidegate.triton.connection import Connection, ResponseLimits

LOOK_AGAIN_AFTER_S: Final = 0.5


class Pool:
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
        """Return a connection to open; it counts as open until it is `lost`."""
        connection = Connection(self, self._limits)
        self._all.add(connection)
        return connection

    @property
    def open(self) -> int:
        """The number of connections, including granted permissions to open one."""
        return len(self._all) + self._leaves

    @property
    def may_open(self) -> bool:
        """Whether a connection may be opened now, before no waiting request."""
        return self.open < self._max_open and not self._waiting

    def take_fresh(self) -> Connection | None:
        """Return the most recently used idle connection, if it was used too lately for `take` to check it."""
        if not self._idle:
            return None
        connection = self._idle[-1]
        idle_s = self.loop.time() - connection.idle_since_s
        if idle_s > LOOK_AGAIN_AFTER_S or idle_s > self._max_idle_s or not connection.usable:
            return None
        return self._idle.pop()

    async def take(self) -> Connection | None:
        """Return the most recently used idle connection that is still open, if any."""
        while self._idle:
            connection = self._idle.pop()
            idle_s = self.loop.time() - connection.idle_since_s
            if idle_s > self._max_idle_s:
                connection.abort()
                continue
            if idle_s > LOOK_AGAIN_AFTER_S:
                # Two iterations let the loop process a close that arrived while the process was frozen.
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
        """Wait in turn for a released connection; None: one may be opened instead.

        Raises:
            EndpointBusyError: there was none by the deadline.
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
                # Too late for this request: pass it on.
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
        """Permit the first waiting request to open a connection, if the limit allows another."""
        if self.open < self._max_open and self._hand_on(None):
            self._leaves += 1

    def released(self, connection: Connection) -> None:
        if self._hand_on(connection):
            return
        if len(self._idle) < self._max_idle:
            connection.idle_since_s = self.loop.time()
            self._idle.append(connection)
        else:
            connection.abort()

    def lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        self._let_open()

    def hang_up(self) -> None:
        for connection in tuple(self._all):
            connection.hang_up()

    def close_old(self) -> bool:
        """Close all idle connections if even the most recently used one is too old. Return whether none is idle."""
        if self._idle and self._idle[-1].idle_since_s < self.loop.time() - self._max_idle_s:
            self.close_idle()
        return not self._idle

    def close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.abort()

    def _hand_on(self, connection: Connection | None) -> bool:
        """Give the first waiting request a connection, or (None) the permission to open one. Return False if none waits."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return True
        return False
