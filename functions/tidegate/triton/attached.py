"""A Triton server that something else runs beside this process, such as the other container of a task."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tidegate.errors import EndpointError, EndpointTimeoutError, StackError
from tidegate.ports import Endpoint, ModelRepository, Transport
from tidegate.triton.health import is_live
from tidegate.triton.repository import TritonRepository

WATCH_S = 2.0
MISSES = 3
"""A server that refuses so many looks in a row has ended: whoever runs both starts both anew."""


@dataclass(frozen=True, slots=True)
class Doors:
    """Where a server listens: how this process reaches it, and how others do."""

    local_host: str
    host: str
    http_port: int
    grpc_port: int
    metrics_port: int


class AttachedServer:
    """A server that this process looks after and does not run.

    `ended` is set once this process has given it up: then the process ends, and whoever runs both replaces both.
    """

    def __init__(
        self, shard: str, doors: Doors, transport: Transport, secret: str | None, ended: asyncio.Event
    ) -> None:
        self._endpoint = Endpoint(shard, doors.host, doors.http_port)
        self._doors = doors
        near = Endpoint(shard, doors.local_host, doors.http_port)
        self._repository = TritonRepository(transport, near, doors.grpc_port, secret=secret)
        self._ended = ended

    @property
    def endpoint(self) -> Endpoint:
        """Where others reach it."""
        return self._endpoint

    @property
    def pid(self) -> int:
        """Not a process of this machine's view: 0."""
        return 0

    @property
    def grpc_port(self) -> int | None:
        """The port of its gRPC door."""
        return self._doors.grpc_port

    @property
    def metrics_port(self) -> int | None:
        """The port of its metrics."""
        return self._doors.metrics_port

    @property
    def repository(self) -> ModelRepository:
        """Its models."""
        return self._repository

    async def live(self) -> bool:
        """See `ModelServer.live`."""
        return await is_live(self._doors.local_host, self._doors.http_port)

    async def wait(self) -> str:
        """Wait until it has ended; says so in words. One that keeps its port open and answers nothing has not: its supervisor
        looks after that."""
        misses = 0
        while misses < MISSES and not self._ended.is_set():
            await asyncio.sleep(WATCH_S)
            try:
                misses = 0 if await self._repository.server_ready() else misses + 1
            except EndpointTimeoutError:
                misses = 0
            except EndpointError:
                misses += 1
        return "answers no more"

    async def stop(self) -> None:
        """Let it go: whoever runs it stops it."""

    async def kill(self) -> None:
        """Give it up, and this process with it."""
        self._ended.set()

    async def answers(self) -> bool:
        """Whether it takes requests."""
        try:
            return await self._repository.server_ready()
        except EndpointError:
            return False


@dataclass(frozen=True, slots=True)
class AttachedLauncher:
    """A `ServerLauncher` of the one server beside this process; `ended` is set once it has been given up."""

    doors: Doors
    transport: Transport
    secret: str | None
    ended: asyncio.Event
    start_timeout_s: float = 300.0

    async def launch(self, shard: str) -> AttachedServer:
        """Wait until the server takes requests.

        Raises:
            StackError: it did not within `start_timeout_s` seconds, or it was given up before.
        """
        if self.ended.is_set():
            raise StackError("the server beside this process was given up, and this process ends")
        server = AttachedServer(shard, self.doors, self.transport, self.secret, self.ended)
        try:
            async with asyncio.timeout(self.start_timeout_s):
                while not await server.answers():
                    await asyncio.sleep(0.25)
        except TimeoutError as error:
            self.ended.set()
            raise StackError(f"the server beside this process was not ready in {self.start_timeout_s:g} s") from error
        return server
