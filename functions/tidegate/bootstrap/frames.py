"""Frames between the gateway and its workers: the number of parts, the size of each, then the parts."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

COUNT = struct.Struct(">I")
SIZE = struct.Struct(">Q")


def frame(parts: Sequence[bytes | memoryview]) -> bytes:
    return COUNT.pack(len(parts)) + b"".join(SIZE.pack(len(part)) for part in parts)


def receive_frame(connection: socket.socket) -> list[memoryview] | None:
    """Return the parts of the next frame; None if the other end has closed the connection."""
    head = _receive(connection, COUNT.size)
    if head is None:
        return None
    parts = []
    sizes = [_receive(connection, SIZE.size) for _ in range(COUNT.unpack(head)[0])]
    for size in sizes:
        part = None if size is None else _receive(connection, SIZE.unpack(size)[0])
        if part is None:
            return None
        parts.append(part)
    return parts


def _receive(connection: socket.socket, size_bytes: int) -> memoryview | None:
    view = memoryview(bytearray(size_bytes))
    at = 0
    while at < size_bytes:
        received = connection.recv_into(view[at:])
        if not received:
            return None
        at += received
    return view
