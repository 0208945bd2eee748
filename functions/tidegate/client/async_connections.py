"""Connections of a client whose callers share an event loop: HTTP/1.1, kept alive, on asyncio's streams."""

from __future__ import annotations

import asyncio
import http.client
import io
import ssl
from collections import deque
from typing import NamedTuple
from urllib.parse import urlsplit

from tidegate.client.connections import MOST_IDLE
from tidegate.client.exchange import Reply, Request
from tidegate.errors import EndpointRefusedError, EndpointResetError, EndpointTimeoutError

_HEAD_BYTES = 256 * 1024
_BROKEN = (OSError, EOFError, ValueError, http.client.HTTPException, asyncio.LimitOverrunError)


class _Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    was_used: bool


class AsyncConnections:
    """Idle connections by server, of one event loop."""

    def __init__(self, connect_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[str, deque[_Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    async def send(self, request: Request) -> Reply:
        """Send a request, and once more, on a new connection, where the server had closed the idle one meanwhile.

        Raises:
            EndpointError: no whole response came.
        """
        idle = self._idle.setdefault(request.url, deque())
        try:
            async with asyncio.timeout(request.timeout_s):
                if idle:
                    try:
                        return await self._exchange(idle.pop(), request, idle)
                    except EndpointResetError as error:
                        if not error.stale:
                            raise
                # The other idle ones may be as stale.
                return await self._exchange(await self._opened(request.url), request, idle)
        except TimeoutError:
            raise EndpointTimeoutError(f"{request.url} did not answer within {request.timeout_s:.3g} s") from None

    async def close(self) -> None:
        """Close the idle connections."""
        for idle in self._idle.values():
            while idle:
                idle.pop().writer.close()

    async def _opened(self, url: str) -> _Connection:
        parts = urlsplit(url)
        context = None
        if parts.scheme == "https":
            # Reading the authorities takes as long as a request.
            context = self._tls = self._tls or ssl.create_default_context()
        port = parts.port or (80 if context is None else 443)
        opening = asyncio.open_connection(parts.hostname, port, ssl=context, limit=_HEAD_BYTES)
        try:
            reader, writer = await asyncio.wait_for(opening, self._connect_timeout_s)
        except OSError as error:
            raise EndpointRefusedError(f"{url} cannot be reached: {type(error).__name__}") from None
        return _Connection(reader, writer, False)

    async def _exchange(self, connection: _Connection, request: Request, idle: deque[_Connection]) -> Reply:
        reader, writer, was_used = connection
        stays = answered = False
        try:
            writer.write(_head(request))
            if request.body:
                writer.write(request.body)
            await writer.drain()
            status, headers = await _read_head(reader)
            answered = True
            body = await _read_body(reader, status, headers)
            stays = headers.get("connection", "").lower() != "close" and (
                "content-length" in headers or "transfer-encoding" in headers or status == 304
            )
            return Reply(status, headers, body)
        except _BROKEN as error:
            stale = was_used and not answered and isinstance(error, OSError | EOFError)
            what = f"{request.url} ended the connection: {type(error).__name__}"
            raise EndpointResetError(what, stale=stale) from None
        finally:
            if stays and len(idle) < MOST_IDLE:
                idle.append(_Connection(reader, writer, True))
            else:
                writer.close()


def _head(request: Request) -> bytes:
    lines = [f"{request.method} {request.path} HTTP/1.1", f"Host: {urlsplit(request.url).netloc}"]
    lines += [f"{name}: {value}" for name, value in request.headers]
    if request.body or request.method == "POST":
        lines.append(f"Content-Length: {len(request.body)}")
    text = "\r\n".join([*lines, "", ""])
    if text.count("\n") != len(lines) + 1:
        raise ValueError("a header has a line break")
    return text.encode("latin-1")


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Return status and headers of the final answer: any number of interim ones may come before it (RFC 9110, section 15.2)."""
    while True:
        status, headers = await _read_one_head(reader)
        if status >= 200:
            return status, headers


async def _read_one_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    first, _, rest = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
    version, status, *_ = first.split(b" ", 2)
    if not version.startswith(b"HTTP/1."):
        raise ValueError("not HTTP/1")
    message = http.client.parse_headers(io.BytesIO(rest))
    return int(status), {name.lower(): value for name, value in message.items()}


async def _read_body(reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> bytes:
    if status in (204, 304):
        return b""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        pieces = []
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            pieces.append((await reader.readexactly(size + 2))[:-2])
        while (await reader.readuntil(b"\r\n")) != b"\r\n":
            pass
        return b"".join(pieces)
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return await reader.read()
