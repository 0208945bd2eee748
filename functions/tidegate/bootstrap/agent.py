"""The wiring of a shard agent: beside each deployed Triton server, it loads what the shard must hold, and registers it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from http import HTTPStatus
from itertools import chain
from typing import Any

from tidegate.aws.cached_pointer import PointerCache
from tidegate.bootstrap import build_transport
from tidegate.bootstrap.control import build_control_plane
from tidegate.bootstrap.small_http import REQUEST_BYTES, Answer, Reply, answering
from tidegate.console.metrics import agent_families, process_families, step_families
from tidegate.console.processes import LoopLag, process_figures
from tidegate.console.server_times import MOST_S
from tidegate.control.endpoints import Times
from tidegate.errors import EndpointError, SettingsError, StackError, StoreError
from tidegate.fleet.directory import RegistryDirectory
from tidegate.fleet.healing import Healer
from tidegate.fleet.slot import Turn
from tidegate.fleet.supervisor import Supervisor
from tidegate.metrics.exposition import Renderer, negotiated
from tidegate.settings import Settings
from tidegate.tasks import cancel
from tidegate.triton.attached import Addresses, AttachedLauncher

FOLLOW_S = 2.0
ANSWER_S = 5.0
READY_PATH = "/ready"
POINTER_PATH = "/pointer"
POINTER_S = 1.0
"""How long the pointer is kept for those that read it from here."""


def own_address() -> str:
    """Return the address by which others on its network reach this machine or task."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"


async def run_agent(settings: Settings, addresses: Addresses, port: int) -> None:
    """Look after the Triton server beside this process until cancelled.

    `GET /ready` on `port` answers 200 while the server answers, holds what its shard must hold, as far as is known, and has
    passed its self-test (see `SelfTest`), else 503. Stores that do not answer leave a ready server ready. `GET /metrics` answers with
    the figures of the server's models and of this process, `GET /pointer` with the pointer to the live revision, for gateways with
    `TIDEGATE_POINTER_CACHE_URL`.

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

        lag = LoopLag()
        metrics = AgentMetrics(settings.shard, supervisor, healer, ready, lag)
        pointer = pointer_answer(PointerCache(plane.ports.bundles, POINTER_S))
        paths = {READY_PATH: _readiness(ready), POINTER_PATH: pointer, "/metrics": metrics.answer}
        answer = answering(paths, ANSWER_S)
        server = await asyncio.start_server(answer, "0.0.0.0", port, limit=REQUEST_BYTES)  # noqa: S104  # the balancer asks
        await started.enter_async_context(server)
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(directory.follow(FOLLOW_S)),
            asyncio.create_task(supervisor.run()),
            asyncio.create_task(lag.run()),
        ]
        if settings.self_test_interval_s:
            tasks.append(asyncio.create_task(test.run(settings.self_test_interval_s)))
        tasks.append(asyncio.create_task(ended.wait()))
        started.push_async_callback(cancel, *tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        raise StackError("the Triton server ended, hangs, or a load on it does; it is restarted with this process")


def _readiness(ready: Callable[[], bool]) -> Answer:
    async def answer(_accepted: str) -> Reply:
        return Reply(HTTPStatus.OK if ready() else HTTPStatus.SERVICE_UNAVAILABLE)

    return answer


def pointer_answer(cache: PointerCache) -> Answer:
    """Return what answers `POINTER_PATH`: the pointer, 404 where nothing was ever published, 503 while the store does not answer."""

    async def answer(_accepted: str) -> Reply:
        try:
            found = await cache.reply()
        except StoreError:
            return Reply(HTTPStatus.SERVICE_UNAVAILABLE)
        if found is None:
            return Reply(HTTPStatus.NOT_FOUND)
        return Reply(media_type="application/json", body=found[0], headers=found[1])

    return answer


class AgentMetrics:
    """`GET /metrics` of an agent. The server is asked for its statistics with each scrape."""

    def __init__(
        self, shard: str, supervisor: Supervisor, healer: Healer, ready: Callable[[], bool], lag: LoopLag
    ) -> None:
        self._shard = shard
        self._supervisor = supervisor
        self._healer = healer
        self._ready = ready
        self._lag = lag
        self._renderer = Renderer()

    async def answer(self, accepted: str) -> Reply:
        """Return the metrics in a format of the header `Accept`."""
        figures = process_figures(os.getpid())
        restarts = self._supervisor.restarts
        reloads = {(each.endpoint, each.model): each.count for each in self._healer.reloads()}
        families = chain(
            agent_families(self._shard, self._ready(), 0 if restarts is None else restarts.count, reloads),
            step_families(await self._times()),
            process_families({} if figures is None else {"agent": figures}, {"agent": self._lag.seconds}),
        )
        form = negotiated(accepted)
        return Reply(media_type=form.value, body=self._renderer.render(families, form))

    async def _times(self) -> Times:
        endpoint = self._supervisor.serving
        repository = None if endpoint is None else self._supervisor.repository_of(endpoint)
        if endpoint is None or repository is None:
            return {}
        with contextlib.suppress(EndpointError, StackError, TimeoutError):
            async with asyncio.timeout(MOST_S):
                return {endpoint: await repository.times()}
        return {}
