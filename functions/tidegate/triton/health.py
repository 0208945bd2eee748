"""Checks on a new connection whether a Triton server answers.

A pool may be full, and a kept connection belongs to one of the server's HTTP threads, which alone may be busy.
"""

from __future__ import annotations

import asyncio
import contextlib

from tidegate.oip.paths import SERVER_LIVE

METRICS = "/metrics"
MOST_LINE_BYTES = 1024


async def is_live(host: str, port: int) -> bool:
    """Return whether a server is live. The caller bounds the time."""
    return await answers(host, port, SERVER_LIVE)


async def answers(host: str, port: int, path: str) -> bool:
    """Return whether a GET of a path is answered with 200. The caller bounds the time."""
    try:
        reader, writer = await asyncio.open_connection(host, port, limit=MOST_LINE_BYTES)
    except OSError:
        return False
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return (await reader.readline()).split(b" ", 2)[1:2] == [b"200"]
    except (OSError, ValueError):
        # ValueError: the line is too long.
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
