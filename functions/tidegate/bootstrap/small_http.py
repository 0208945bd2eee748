"""Answers GET requests of operators and probes, one on each connection, where there is no gateway or it may not answer."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

REQUEST_BYTES = 16 * 1024
MOST_CONNECTIONS = 512
"""Connections at a time: half of the files that a process may have open by default, as it needs some for its own work."""

_ASKED = re.compile(rb"GET (\S+) HTTP/1\.[01]\r\n")
_ACCEPT = re.compile(rb"^accept:(.*)\r$", re.IGNORECASE | re.MULTILINE)


NOT_KEPT = {"Cache-Control": "no-store"}


class Reply(NamedTuple):
    """An answer, whole."""

    status: HTTPStatus = HTTPStatus.OK
    media_type: str = "text/plain"
    body: bytes = b""
    headers: Mapping[str, str] = NOT_KEPT


Answer = Callable[[str], Awaitable[Reply]]
"""Answers a request, given its header `Accept`."""


def answering(
    paths: Mapping[str, Answer], timeout_s: float, most: int = MOST_CONNECTIONS
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return the callback of a server (`asyncio.start_server`) with a limit of `REQUEST_BYTES` that answers some paths, and 404 to all
    else. A connection that takes longer than `timeout_s` is closed; so is at once what comes while `most` are open."""
    open_now = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now
        if open_now >= most:
            writer.close()
            return
        open_now += 1
        try:
            await answer_one(reader, writer)
        finally:
            open_now -= 1
        writer.close()

    async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            async with asyncio.timeout(timeout_s):
                request = await reader.readuntil(b"\r\n\r\n")
                asked = _ASKED.match(request)
                answer = None if asked is None else paths.get(asked[1].decode("latin-1"))
                accepted = b",".join(_ACCEPT.findall(request)).decode("latin-1")
                reply = Reply(HTTPStatus.NOT_FOUND) if answer is None else await answer(accepted)
                head = f"HTTP/1.1 {reply.status.value} {reply.status.phrase}\r\nContent-Type: {reply.media_type}\r\n"
                head += "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
                head += f"Content-Length: {len(reply.body)}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + reply.body)
                await writer.drain()

    return serve
