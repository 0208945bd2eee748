"""`GET /metrics` of a local stack. It is rendered in the control plane's process: no request of a caller waits for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from itertools import chain
from typing import Any

from tidegate.bootstrap.local_stack import LocalStack
from tidegate.console.kept import Expected
from tidegate.console.metrics import (
    process_families,
    route_families,
    shadow_families,
    status_families,
    step_families,
    traffic_families,
)
from tidegate.console.processes import LoopLag, process_figures
from tidegate.console.server_times import read_times
from tidegate.control.endpoints import Times
from tidegate.metrics.exposition import Renderer, negotiated

READ_S = 2.0
"""How long what was read of the stores and servers is given to further scrapes."""


class StackMetrics:
    """Reads and renders the metrics of a stack.

    The counts of requests are those that the gateway reported last, a second ago at most. The fleet's status is read as for
    `GET /v1/fleet`, and the servers are asked for their statistics, both in bounded time; where scrapes are regular, shortly before
    the next one.
    """

    def __init__(self, stack: LocalStack) -> None:
        self._stack = stack
        self._lag = LoopLag()
        self._renderer = Renderer()
        self._seen = Expected(self._read, READ_S)

    async def run(self) -> None:
        """Measure how late the event loop is, and read ahead of regular scrapes, until cancelled."""
        await asyncio.gather(self._lag.run(), self._seen.run())

    async def answer(self, accepted: str) -> tuple[str, bytes]:
        """Return the media type and the text, in a format of the header `Accept`."""
        status, times = await self._seen.get()
        gateway = self._stack.gateway
        pids = {"control": os.getpid(), "gateway": status["gateway"]["pid"]}
        processes = {name: found for name, pid in pids.items() if pid and (found := process_figures(pid)) is not None}
        families = chain(
            route_families(gateway.traffic.routes()),
            traffic_families(gateway.traffic.sums()),
            status_families(status),
            shadow_families(gateway.shadows),
            step_families(times),
            process_families(processes, {"control": self._lag.seconds, "gateway": gateway.lag_s}),
        )
        form = negotiated(accepted)
        return form.value, self._renderer.render(families, form)

    async def _read(self) -> tuple[Mapping[str, Any], Times]:
        status = await self._stack.status()
        times = self._stack.times
        # Where a store or a server does not answer, the other servers are asked alone.
        return status, await read_times(self._stack.plane) if times is None else times
