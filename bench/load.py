"""A closed-loop HTTP/1.1 load generator on raw sockets: each connection sends its next request on its last answer.

It costs some 30 µs a request, so that what it measures is the server.
"""

from __future__ import annotations

import itertools
import json
import selectors
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Peer:
    """A request as bytes, and its address. With `others`, they are sent in turn: those of one connection then differ from each other."""

    name: str
    host: str
    port: int
    request: bytes
    others: tuple[bytes, ...] = ()

    def requests(self) -> Iterator[bytes]:
        """Return what is sent, without end."""
        return itertools.cycle((self.request, *self.others))


def infer_request(path: str, headers: dict[str, str], values: int) -> bytes:
    """A binary inference request with one FP32 tensor `INPUT` of `values` elements."""
    tensor = struct.pack(f"<{values}f", *range(values))
    inputs = [{"name": "INPUT", "shape": [values], "datatype": "FP32", "parameters": {"binary_data_size": len(tensor)}}]
    header = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: bench",
        f"Content-Length: {len(header) + len(tensor)}",
        f"Inference-Header-Content-Length: {len(header)}",
        "Content-Type: application/octet-stream",
        *(f"{name}: {value}" for name, value in headers.items()),
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + header + tensor


def latencies_ms(peer: Peer, requests: int) -> list[float]:
    """The latency of each of `requests` requests over one connection, in milliseconds."""
    sent = peer.requests()
    with _connect(peer) as connection:
        taken = []
        for _ in range(requests):
            request = next(sent)
            start = time.perf_counter()
            connection.sendall(request)
            _read(connection)
            taken.append((time.perf_counter() - start) * 1e3)
    return taken


def throughput_per_s(peer: Peer, connections: int, seconds: float) -> float:
    """Answers per second over `connections` connections."""
    selector = selectors.DefaultSelector()
    opened = [_connect(peer) for _ in range(connections)]
    buffers = {connection: bytearray() for connection in opened}
    sent = peer.requests()
    for connection in opened:
        selector.register(connection, selectors.EVENT_READ)
        connection.sendall(next(sent))
    answered, start = 0, time.perf_counter()
    end = start + seconds
    while (now := time.perf_counter()) < end:
        for key, _ in selector.select(1.0):
            ready = key.fileobj
            assert isinstance(ready, socket.socket)
            buffer = buffers[ready]
            data = ready.recv(65536)
            if not data:
                raise ConnectionError(f"{peer.name} closed a connection")
            buffer += data
            if _whole(buffer):
                buffer.clear()
                answered += 1
                ready.sendall(next(sent))
    for connection in opened:
        selector.unregister(connection)
        connection.close()
    selector.close()
    return answered / (now - start)


@dataclass(slots=True)
class Crowd:
    """The answers to many connections: the number of each status, and the milliseconds of each answer."""

    statuses: Counter[int] = field(default_factory=Counter)
    took_ms: list[float] = field(default_factory=list)


def crowd(peer: Peer, connections: int, seconds: float) -> Crowd:
    """The answers over `connections` connections, whatever their status."""
    seen = Crowd()
    with selectors.DefaultSelector() as selector:
        opened = [_connect(peer) for _ in range(connections)]
        for connection in opened:
            selector.register(connection, selectors.EVENT_READ, [bytearray(), time.perf_counter()])
            connection.sendall(peer.request)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for key, _ in selector.select(0.1):
                ready, (buffer, sent) = key.fileobj, key.data
                assert isinstance(ready, socket.socket)
                data = ready.recv(65536)
                if not data:
                    raise ConnectionError(f"{peer.name} closed a connection")
                buffer += data
                if (status := _answer(buffer)) is None:
                    continue
                now = time.perf_counter()
                seen.statuses[status] += 1
                seen.took_ms.append((now - sent) * 1e3)
                buffer.clear()
                key.data[1] = now
                ready.sendall(peer.request)
        for connection in opened:
            connection.close()
    return seen


def _connect(peer: Peer) -> socket.socket:
    connection = socket.create_connection((peer.host, peer.port), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _read(connection: socket.socket) -> None:
    buffer = bytearray()
    while not _whole(buffer):
        data = connection.recv(65536)
        if not data:
            raise ConnectionError("the connection was closed before an answer had come")
        buffer += data


def _whole(buffer: bytearray) -> bool:
    """Return whether the buffer holds a complete answer. Raises an error for another status than success."""
    status = _answer(buffer)
    if status not in (None, 200):
        raise ConnectionError(f"not a success: {bytes(buffer[:200])!r}")
    return status is not None


def _answer(buffer: bytearray) -> int | None:
    """The status of the answer that the buffer holds; None while it is not whole."""
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = bytes(buffer[:end]).lower()
    place = head.index(b"\r\ncontent-length:") + 17
    stop = head.find(b"\r\n", place)
    length = int(head[place : stop if stop > 0 else end])
    return int(head[9:12]) if len(buffer) >= end + 4 + length else None
