"""The control plane's own answer to `GET /v1/fleet`, on a Unix socket that only its user can open.

A gateway that is busy or stopped answers nothing, and just then somebody asks what is wrong. `curl --unix-socket` reads it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

REQUEST_BYTES = 16 * 1024
TIMEOUT_S = 10.0
_ASKED = b"GET /v1/fleet HTTP/1."


@contextlib.asynccontextmanager
async def operator_socket(path: Path, status: Callable[[], Awaitable[Mapping[str, Any]]]) -> AsyncIterator[None]:
    """Answer on a socket at `path`. Its folder keeps others out. Raises `OSError`: the socket cannot be made."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            async with asyncio.timeout(TIMEOUT_S):
                request = await reader.readuntil(b"\r\n\r\n")
                found = request.startswith(_ASKED)
                body = json.dumps(await status()).encode() if found else b""
                head = f"HTTP/1.1 {'200 OK' if found else '404 Not Found'}\r\nContent-Type: application/json\r\n"
                writer.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
                await writer.drain()
        writer.close()

    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        server = await asyncio.start_unix_server(answer, sock=listener, limit=REQUEST_BYTES)
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)
