"""The control plane's own answers to `GET /v1/fleet` and `GET /metrics`, on a Unix socket that only its user can open.

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

from tidegate.bootstrap.small_http import REQUEST_BYTES, Reply, answering

TIMEOUT_S = 10.0


@contextlib.asynccontextmanager
async def operator_socket(
    path: Path,
    status: Callable[[], Awaitable[Mapping[str, Any]]],
    metrics: Callable[[str], Awaitable[tuple[str, bytes]]],
) -> AsyncIterator[None]:
    """Answer on a socket at `path`. Its folder keeps others out. Raises `OSError`: the socket cannot be made."""

    async def fleet(_accepted: str) -> Reply:
        return Reply(media_type="application/json", body=json.dumps(await status()).encode())

    async def scraped(accepted: str) -> Reply:
        media_type, text = await metrics(accepted)
        return Reply(media_type=media_type, body=text)

    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        path.chmod(0o600)
        answer = answering({"/v1/fleet": fleet, "/metrics": scraped}, TIMEOUT_S)
        server = await asyncio.start_unix_server(answer, sock=listener, limit=REQUEST_BYTES)
        try:
            yield
        finally:
            server.close()
            path.unlink(missing_ok=True)
