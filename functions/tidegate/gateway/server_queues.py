"""How long the queues inside the servers are, from their own statistics: beside this gateway's requests they hold others'."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from tidegate.errors import EndpointError
from tidegate.gateway.places import Places, Server
from tidegate.oip.paths import STATISTICS
from tidegate.ports import EndpointDirectory, HttpRequest, Transport

_REQUEST = HttpRequest("GET", STATISTICS, send_once=True)
_TIMEOUT_S = 1.0
_MOST_BYTES = 524_288
"""Statistics of some hundreds of models. Parsing more would hold up requests for milliseconds."""

_MOST_NS = (1 << 64) - 1
"""Triton counts in unsigned integers of 64 bits."""


class ServerQueues:
    """Asks the endpoints in use for their statistics, beside the requests.

    The time that requests spent in a server's queues, divided by the time between two looks, is the mean number of requests that
    waited there (Little's law).

    Args:
        transport: sends the requests.
        directory: lists the endpoints of each shard.
        places: the endpoints in use; the results are stored there.
        clock: seconds that never run backwards.
    """

    def __init__(
        self, transport: Transport, directory: EndpointDirectory, places: Places, clock: Callable[[], float]
    ) -> None:
        self._transport = transport
        self._directory = directory
        self._places = places
        self._clock = clock
        self._seen: dict[Server, tuple[float, int]] = {}

    async def run(self, every_s: float) -> None:
        """Ask every `every_s` seconds, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            servers = [
                server
                for server in self._places.servers.values()
                if not server.is_down and server.endpoint in self._directory.endpoints(server.endpoint.shard)
            ]
            asked = set(servers)
            self._seen = {server: seen for server, seen in self._seen.items() if server in asked}
            await asyncio.gather(*map(self._ask, servers))

    async def _ask(self, server: Server) -> None:
        queued_ns = await self._queued_ns(server)
        now_s = self._clock()
        before = self._seen.pop(server, None)
        if queued_ns is None:
            server.queue = None
            return
        self._seen[server] = now_s, queued_ns
        # Unloading a model takes its time out of the sum.
        if before is not None and now_s > before[0] and queued_ns >= before[1]:
            server.queue = (queued_ns - before[1]) / 1e9 / (now_s - before[0])

    async def _queued_ns(self, server: Server) -> int | None:
        """Return the time that requests have spent in the queues of all models; None if the server does not say."""
        try:
            answer = await self._transport.send(server.endpoint, _REQUEST, _TIMEOUT_S)
            if len(answer.body) > _MOST_BYTES:
                return None
            found = json.loads(answer.body)["model_stats"]
            queued_ns = sum(int(each["inference_stats"]["queue"]["ns"]) for each in found)
        except (EndpointError, ValueError, OverflowError, KeyError, TypeError, RecursionError):
            return None
        return queued_ns if 0 <= queued_ns <= _MOST_NS else None
