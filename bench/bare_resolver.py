"""A resolver that decides nothing: it gives every request the same routing key. What Envoy takes to ask it is the least of any resolver.

python -m bench.bare_resolver PORT ROUTING_KEY
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import uvloop

from bench.envoy import ROUTING_HEADER, free_port


@contextmanager
def bare_resolver(routing_key: str) -> Iterator[tuple[int, int]]:
    """Run one; yield its port and its process."""
    port = free_port()
    command = [sys.executable, "-m", "bench.bare_resolver", str(port), routing_key]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(10)


class Bare(asyncio.Protocol):
    """Answers whatever comes, as each question of Envoy comes in one part."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's own kind is none of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002  # asyncio's signature
        self._transport.write(self._answer)


async def _serve(port: int, routing_key: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\n{ROUTING_HEADER}: {routing_key}\r\ncontent-length: 0\r\n\r\n".encode()
    server = await asyncio.get_running_loop().create_server(lambda: Bare(answer), "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
