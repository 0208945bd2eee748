"""The sending side of a connection: back-pressure on the app, and the time-out of a caller that does not read."""

from __future__ import annotations

import asyncio
import math

from tidegate.listener.config import ListenerConfig
from tidegate.listener.owner import Owner


class Sending:
    """Watches the unsent bytes of one connection.

    Attributes:
        writable: set while the caller reads the answer more slowly than the app sends it.
        deadline_s: when `is_stalled` must be called; infinity while everything is sent.
    """

    __slots__ = ("_config", "_owner", "_transport", "_unsent_bytes", "deadline_s", "writable")

    def __init__(self, owner: Owner, config: ListenerConfig, transport: asyncio.Transport) -> None:
        self._owner = owner
        self._config = config
        self._transport = transport
        self._unsent_bytes = 0
        self.writable: asyncio.Future[None] | None = None
        self.deadline_s = math.inf

    def pause(self, loop: asyncio.AbstractEventLoop) -> None:
        self.writable = loop.create_future()
        self.watch()

    def resume(self) -> None:
        self.deadline_s = math.inf
        if self.writable is not None:
            self.writable.set_result(None)
            self.writable = None

    def watch(self) -> None:
        """Set the deadline by which the caller must have read some of the unsent bytes."""
        self._unsent_bytes = self._transport.get_write_buffer_size()
        if self._unsent_bytes:
            self.deadline_s = self._owner.later_s(self._config.write_timeout_s)

    def is_stalled(self) -> bool:
        """Return whether the caller read too little since the last look; set the next deadline if it did not."""
        left_bytes = self._transport.get_write_buffer_size()
        if self._unsent_bytes - left_bytes < self._config.min_bytes_per_s * self._config.write_timeout_s and left_bytes:
            return True
        self.deadline_s = math.inf
        self.watch()
        return False
