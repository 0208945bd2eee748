"""Health requests to endpoints, sent beside callers' requests so that no caller has to test an unhealthy endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from tidegate.errors import EndpointError, EndpointRefusedError
from tidegate.gateway.config import DispatchConfig
from tidegate.gateway.places import Place, Places, Server
from tidegate.oip.paths import SERVER_LIVE, model_path
from tidegate.ports import EndpointDirectory, HttpRequest, Transport

logger = logging.getLogger(__name__)

# Not the readiness: a server is not ready while a model unloads, which waits for the requests under way on it.
_HEALTH: Final = HttpRequest("GET", SERVER_LIVE, send_once=True, apart=True)
_LATE_S: Final = 0.25
"""If the event loop was delayed for longer during a health request, a time-out says nothing about the endpoint."""


class Watch:
    """Watches suspected endpoints until they are healthy again.

    Args:
        transport: sends the health requests, each on a connection of its own.
        directory: lists the endpoints; one that it drops is not watched any longer.
        places: the state of the endpoints.
        config: see `DispatchConfig`.
        clock: seconds that never run backwards.
    """

    def __init__(
        self,
        transport: Transport,
        directory: EndpointDirectory,
        places: Places,
        config: DispatchConfig,
        clock: Callable[[], float],
    ) -> None:
        self._transport = transport
        self._directory = directory
        self._places = places
        self._config = config
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Start looking for endpoints that answer none of their requests, on this event loop, while requests are in flight."""
        if self._timer is None or self._loop is not asyncio.get_running_loop():
            self._loop = asyncio.get_running_loop()
            self._timer = self._loop.call_later(self._config.silent_ms / 2000.0, self._look)

    def refused(self, server: Server) -> None:
        """Take out an endpoint that refused a connection, until it is healthy."""
        if not server.is_down:
            self._take_out(server, "refuses connections")
        self.suspect(server)

    def suspect(self, server: Server) -> None:
        """Send an endpoint health requests until one succeeds, and take it out if it answers none."""
        if not server.is_watched:
            server.is_watched = True
            self._run(self._until_healthy(server), lambda: self._unwatch(server))

    def reopen(self, place: Place, after_s: float) -> None:
        """Admit requests to a place again after `after_s` seconds, once the model says that it is ready."""
        self._run(self._until_ready(place, after_s), place.try_again)

    async def is_alive(self, server: Server, within_s: float) -> bool:
        """Send one health request and return whether it succeeds, within `within_s` seconds or the usual time-out."""
        timeout_s = min(within_s, self._config.probe_timeout_ms / 1000.0)
        try:
            return (await self._transport.send(server.endpoint, _HEALTH, timeout_s)).status == 200
        except EndpointError:
            return False

    def close(self) -> None:
        """Stop all health requests."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._tasks:
            task.cancel()

    def _run(self, work: Coroutine[Any, Any, None], at_end: Callable[[], None]) -> None:
        """Run `work` in a task. `at_end` is called even if the event loop ends before the task has started, since the work
        does not continue on the next loop."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            at_end()

        task.add_done_callback(ended)

    def _unwatch(self, server: Server) -> None:
        server.is_watched = False
        # Also if the directory has dropped the endpoint: another may appear at the same address.
        server.come_back(self._clock())

    def _look(self) -> None:
        """Suspect every endpoint that has requests and has answered none for `silent_ms`."""
        self._timer = None
        now_s, is_busy = self._clock(), False
        for server in self._places.servers.values():
            if server.quiet_since_s is not None:
                is_busy = True
                if now_s - server.quiet_since_s >= self._config.silent_ms / 1000.0:
                    self.suspect(server)
        if is_busy:
            self.begin()

    async def _until_healthy(self, server: Server) -> None:
        misses = 0
        while self._is_known(server):
            answers = await self._answers(server, _HEALTH)
            if answers:
                if server.is_down:
                    logger.warning(
                        "endpoint %s of shard %s is healthy again", server.endpoint.url, server.endpoint.shard
                    )
                return
            if answers is False:
                misses += 1
                if misses >= self._config.probe_misses and not server.is_down:
                    self._take_out(server, f"answered none of {misses} health requests")
                    self._transport.hang_up(server.endpoint)
            await asyncio.sleep(self._config.probe_interval_ms / 1000.0)

    async def _until_ready(self, place: Place, after_s: float) -> None:
        request = HttpRequest("GET", model_path(place.model, suffix="/ready"), send_once=True, apart=True)
        await asyncio.sleep(after_s)
        while self._is_known(place.server) and not await self._answers(place.server, request):
            await asyncio.sleep(max(after_s, self._config.probe_interval_ms / 1000.0))

    def _is_known(self, server: Server) -> bool:
        return server.endpoint in self._directory.endpoints(server.endpoint.shard)

    async def _answers(self, server: Server, request: HttpRequest) -> bool | None:
        """Return whether an endpoint answers with 200; None if it timed out while this process was delayed."""
        timeout_s = self._config.probe_timeout_ms / 1000.0
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        try:
            response = await self._transport.send(server.endpoint, request, timeout_s)
        except EndpointRefusedError:
            return False
        except EndpointError:
            return None if loop.time() - began_s > timeout_s + _LATE_S else False
        return response.status == 200

    def _take_out(self, server: Server, why: str) -> None:
        server.go_down()
        logger.warning("endpoint %s of shard %s %s", server.endpoint.url, server.endpoint.shard, why)
