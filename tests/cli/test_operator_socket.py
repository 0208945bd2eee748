"""The control plane's own answer to operators, beside a gateway that may answer nothing."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate.bootstrap.operator_socket import operator_socket

ASKED = b"GET /v1/fleet HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def ask(path: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


def test_it_answers_for_the_fleet_alone_and_ends_every_connection(tmp_path: Path) -> None:
    broken = False

    async def status() -> Mapping[str, Any]:
        if broken:
            raise ZeroDivisionError
        return {"healthy": True}

    async def metrics(accepted: str) -> tuple[str, bytes]:
        return "text/plain", f"asked for {accepted}".encode()

    async def work() -> None:
        nonlocal broken
        path = tmp_path / "up.sock"
        path.touch()  # what a stack that was killed has left
        async with operator_socket(path, status, metrics):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            head, _, body = (await ask(path, ASKED)).partition(b"\r\n\r\n")
            assert (head.split(b"\r\n")[0], body) == (b"HTTP/1.1 200 OK", b'{"healthy": true}')
            scrape = b"GET /metrics HTTP/1.1\r\nAccept: text/plain;q=0.5\r\n\r\n"
            head, _, body = (await ask(path, scrape)).partition(b"\r\n\r\n")
            assert b"Content-Type: text/plain\r\n" in head
            assert body == b"asked for  text/plain;q=0.5"
            assert (await ask(path, b"POST /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404")
            assert (await ask(path, b"GET /elsewhere HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 404")
            assert await ask(path, b"x" * 100_000) == b""
            broken = True
            assert await ask(path, ASKED) == b""
        assert not path.exists()

    asyncio.run(work())
