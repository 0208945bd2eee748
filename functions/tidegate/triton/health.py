"""Whether a Triton server answers, asked on a connection of its own.

A pool of connections may be full, and a connection that is kept belongs to one of the server's HTTP threads, which may be
busy while the others are not. So each look has a new connection.
"""

from __future__ import annotations

import asyncio
import contextlib

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"
"""Triton answers it without any model."""

MOST_LINE_BYTES = 1024


async def is_live(host: str, port: int) -> bool:
    """Whether a server says that it is live. It waits for as long as the server takes its time."""
    try:
        reader, writer = await asyncio.open_connection(host, port, limit=MOST_LINE_BYTES)
    except OSError:
        return False
    try:
        writer.write(LIVE % host.encode())
        return (await reader.readline()).split(b" ", 2)[1:2] == [b"200"]
    except (OSError, ValueError):
        # ValueError: a line without an end, which Triton never writes.
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
