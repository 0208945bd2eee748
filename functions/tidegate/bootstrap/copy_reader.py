"""Reads copies of requests from the gateway's socket, many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tidegate.bootstrap.frames import SIZE
from tidegate.errors import EventError
from tidegate.shadows.copy import ShadowCopy, read_copy


class CopyReader(asyncio.Protocol):
    """The shadow process's end of the socket.

    Args:
        take: gets each copy.
        unreadable: gets the error of one that cannot be read.

    Attributes:
        ended: set once the gateway sends no more.
        closed: set once the connection is gone.
        seen: the number of copies that came, read or not.
    """

    def __init__(self, take: Callable[[ShadowCopy], None], unreadable: Callable[[EventError], None]) -> None:
        self.ended = asyncio.Event()
        self.closed = asyncio.Event()
        self.seen = 0
        self._take = take
        self._unreadable = unreadable
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._wanted_bytes = SIZE.size

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._held_bytes += len(data)
        if self._held_bytes < self._wanted_bytes:
            return
        whole = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        end = self._read(whole)
        rest = whole[end:]
        self._pieces = [rest] if rest else []
        self._held_bytes = len(rest)

    def eof_received(self) -> bool:
        """Keep the connection, on which the last counts are still sent."""
        self.ended.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the gateway is gone, whatever the reason
        self.ended.set()
        self.closed.set()

    def _read(self, whole: bytes) -> int:
        """Take the copies that are complete; return where the rest begins."""
        view = memoryview(whole)
        at = 0
        while True:
            self._wanted_bytes = SIZE.size
            if len(whole) - at >= SIZE.size:
                self._wanted_bytes += SIZE.unpack_from(whole, at)[0]
            if len(whole) - at < self._wanted_bytes:
                return at
            self.seen += 1
            try:
                self._take(read_copy(view[at + SIZE.size : at + self._wanted_bytes]))
            except EventError as error:
                self._unreadable(error)
            at += self._wanted_bytes
