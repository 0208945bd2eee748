"""A Triton server beside this process that another supervisor runs, such as the other container of a task."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from tidegate.errors import EndpointError, EndpointTimeoutError, StackError
from tidegate.ports import Endpoint, Transport
from tidegate.triton.health import is_live
from tidegate.triton.repository import TritonRepository

WATCH_S = 2.0
MISSES = 3
"""A server has ended after so many failed checks in a row; the supervisor then starts both processes again."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a server listens: `local_host` for this process, `host` for others."""

    local_host: str
    host: str
    http_port: int
    grpc_port: int
    metrics_port: int


class AttachedServer:
    """A server that this process fills and does not run.

    `kill` sets `ended`: then this process ends too, and the supervisor replaces both.
    """

    def __init__(
        self, shard: str, addresses: Addresses, transport: Transport, secret: str | None, ended: asyncio.Event
    ) -> None:
        self.endpoint = Endpoint(shard, addresses.host, addresses.http_port)
        # Its process is another container's.
        self.pid = 0
        self.grpc_port = addresses.grpc_port
        self.metrics_port = addresses.metrics_port
        self._near = Endpoint(shard, addresses.local_host, addresses.http_port)
        self.repository = TritonRepository(transport, self._near, addresses.grpc_port, secret=secret)
        self._ended = ended

    async def live(self) -> bool:
        return await is_live(self._near.host, self._near.port)

    async def wait(self) -> str:
        """See `ModelServer.wait`. A server that keeps its port open and does not answer has not ended: its supervisor detects
        that."""
        misses = 0
        while misses < MISSES and not self._ended.is_set():
            await asyncio.sleep(WATCH_S)
            try:
                # A server is not ready while a model unloads, which waits for the requests under way on it.
                misses = 0 if await self.repository.server_live() else misses + 1
            except EndpointTimeoutError:
                misses = 0
            except EndpointError:
                misses += 1
        return "answers no more"

    async def stop(self) -> None:
        """Do nothing: the supervisor stops it."""

    async def kill(self) -> None:
        self._ended.set()


@dataclass(frozen=True, slots=True)
class AttachedLauncher:
    """A `ServerLauncher` of the one server beside this process."""

    addresses: Addresses
    transport: Transport
    secret: str | None
    ended: asyncio.Event
    start_timeout_s: float = 300.0

    async def launch(self, shard: str) -> AttachedServer:
        """Wait until the server takes requests.

        Raises:
            StackError: it did not within `start_timeout_s` seconds, or was killed before.
        """
        if self.ended.is_set():
            raise StackError("the server beside this process was given up, and this process ends")
        server = AttachedServer(shard, self.addresses, self.transport, self.secret, self.ended)
        try:
            async with asyncio.timeout(self.start_timeout_s):
                while True:
                    with contextlib.suppress(EndpointError):
                        if await server.repository.server_ready():
                            break
                    await asyncio.sleep(0.25)
        except TimeoutError as error:
            self.ended.set()
            raise StackError(f"the server beside this process was not ready in {self.start_timeout_s:g} s") from error
        return server
