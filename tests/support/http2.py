"""One RPC over a bare HTTP/2 connection, whose DATA frames a test makes up (https://httpwg.org/specs/rfc9113.html)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_OPEN_WINDOW = struct.pack(">HI", 4, 0x7FFFFFFF)


def prefixed(message: bytes, length: int | None = None) -> bytes:
    """A message as gRPC sends it, of its own length or of another."""
    return struct.pack(">BI", 0, len(message) if length is None else length) + message


def answered(port: int, path: str, headers: Mapping[str, str], frames: Sequence[bytes]) -> bytes | None:
    """Send an RPC in these DATA frames; the message of the answer, None if it has none."""
    sent = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test", "content-type": "application/grpc", "te": "trailers"}  # fmt: skip
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in {**sent, **headers}.items())
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, _OPEN_WINDOW))
        connection.sendall(_frame(_HEADERS, _END_HEADERS, 1, block))
        for data in frames:
            connection.sendall(_frame(_DATA, 0, 1, data))
        connection.sendall(_frame(_DATA, _END_STREAM, 1, b""))
        found = b""
        reader = connection.makefile("rb")
        while head := reader.read(9):
            length, kind, flags, stream = int.from_bytes(head[:3]), head[3], head[4], int.from_bytes(head[5:])
            payload = reader.read(length)
            if kind in (_SETTINGS, _PING) and not flags & _ACK:
                connection.sendall(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
            if kind == _DATA:
                found += payload
            if kind in (_RST_STREAM, _GOAWAY) or (stream == 1 and flags & _END_STREAM):
                break
    return found[5:] if found else None


def _text(text: str) -> bytes:
    """A literal of HPACK, without Huffman's code."""
    data = text.encode()
    assert len(data) < 127
    return bytes([len(data)]) + data


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
