"""The wiring of a shard agent: beside each deployed Triton server, it loads what the shard must hold, and registers it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from tidegate.bootstrap import build_transport
from tidegate.bootstrap.control import build_control_plane
from tidegate.errors import SettingsError, StackError
from tidegate.fleet.directory import RegistryDirectory
from tidegate.fleet.healing import Healer
from tidegate.fleet.slot import Turn
from tidegate.fleet.supervisor import Supervisor
from tidegate.settings import Settings
from tidegate.tasks import cancel
from tidegate.triton.attached import Addresses, AttachedLauncher

FOLLOW_S = 2.0
READY_PATH = "/ready"


def own_address() -> str:
    """Return the address by which others on its network reach this machine or task."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"


async def run_agent(settings: Settings, addresses: Addresses, port: int) -> None:
    """Look after the Triton server beside this process until cancelled.

    `GET /ready` on `port` answers 200 while the server answers, holds what its shard must hold, as far as is known, and has
    passed its self-test (see `SelfTest`), else 503. Stores that do not answer leave a ready server ready.

    Raises:
        StackError: the server ended, is wedged or answers nothing: the service that runs both must restart both.
    """
    if settings.shard is None:
        raise SettingsError("TIDEGATE_SHARD must name the shard")
    async with contextlib.AsyncExitStack() as started:
        transport = build_transport(settings)
        started.push_async_callback(transport.aclose)
        plane = build_control_plane(settings, transport)
        directory = RegistryDirectory(plane.ports.registry, settings.shard)
        ended = asyncio.Event()
        launcher = AttachedLauncher(addresses, transport, settings.management_secret, ended)
        supervisor = Supervisor(settings.shard, launcher, plane, directory, settings.report_interval_s, Turn())
        healer = Healer(plane, supervisor.repository_of)
        started.push_async_callback(healer.close)

        test = supervisor.self_test(healer.suspect)

        def ready() -> bool:
            return supervisor.serving is not None and (test.passed or not settings.self_test_interval_s)

        server = await asyncio.start_server(_answer(ready), "0.0.0.0", port)  # noqa: S104  # the balancer asks
        await started.enter_async_context(server)
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(directory.follow(FOLLOW_S)),
            asyncio.create_task(supervisor.run()),
        ]
        if settings.self_test_interval_s:
            tasks.append(asyncio.create_task(test.run(settings.self_test_interval_s)))
        tasks.append(asyncio.create_task(ended.wait()))
        started.push_async_callback(cancel, *tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        raise StackError("the Triton server ended, hangs, or a load on it does; it is restarted with this process")


def _answer(ready: Callable[[], bool]) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(5):
                request = await reader.readuntil(b"\r\n\r\n")
            path = request.split(b" ", 2)[1:2]
            status = b"404 Not Found" if path != [READY_PATH.encode()] else b"503 Service Unavailable"
            if path == [READY_PATH.encode()] and ready():
                status = b"200 OK"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
        writer.close()

    return answer
