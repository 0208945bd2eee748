"""The resolver in Envoy's own process: decides by the rules that the process beside Envoy saves.

Envoy's filter (`tidegate/envoy/in_process_filter.c`) runs Python in Envoy's process and calls `start` once, and then what that returned,
in whichever of Envoy's threads a request is. One more thread, of Python's alone, follows the saved rules and reports which are served. A
request is decided only by rules that were live recently: without that thread, resolvers are asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tidegate.bootstrap import build_gateway
from tidegate.bootstrap.balancers import shard_directory
from tidegate.bootstrap.gateway_process import GC_THRESHOLDS, listener_config
from tidegate.bootstrap.resolver_reports import LOOK_S, Reports
from tidegate.bootstrap.saved_bundle import SavedBundle
from tidegate.gateway.follower import EngineFollower, FollowerConfig
from tidegate.gateway.traffic import TrafficCounter
from tidegate.settings import Settings
from tidegate.tasks import first_failure
from tidegate.web.in_process import Headers, HeadLimits, InProcess, LiveEngine, Told

logger = logging.getLogger(__name__)

AGAIN_S = 1.0

Decide = Callable[[bytes, bytes, Headers, int], Told | None]


@dataclass(frozen=True, slots=True)
class _Follower:
    """Follows the saved rules, and tells the filter by `busy` when that takes Python's time."""

    saved: EngineFollower
    live: LiveEngine
    busy: bytearray

    async def run(self, parent: socket.socket) -> None:
        """Decide by the rules that are saved, as long as the parent hears which these are.

        Raises:
            ConnectionError: it does not any more.
        """
        is_first = True
        while True:
            failures = self.saved.failures
            await self.saved.poll()
            _check_heard(parent)
            if self.saved.failures == failures and self.saved.revision is not None:
                if is_first:
                    is_first = False
                    gc.collect()
                    gc.freeze()
                self.live.seen(self.saved.engine())
            self.busy[0] = 0
            await asyncio.sleep(LOOK_S)

    def run_again_and_again(self, reports: str, take_routes: Callable[[], list[object]]) -> None:
        """Decide by the saved rules, and nothing while the parent does not hear that, for ever."""
        while True:
            try:
                with socket.socket(socket.AF_UNIX) as parent:
                    try:
                        # Before the rules are read: from then on others wait until they are served here, too.
                        parent.connect(reports)
                        asyncio.run(self._run(parent, take_routes))
                    finally:
                        self.live.forget()
            except Exception as error:  # noqa: BLE001  # whatever it is, the next try may go well
                logger.warning("the rules are not followed in Envoy: %s; resolvers are asked meanwhile", error)
            time.sleep(AGAIN_S)

    async def _run(self, parent: socket.socket, take_routes: Callable[[], list[object]]) -> None:
        reports = Reports(self.saved, take_routes, parent.fileno())
        with first_failure():
            async with asyncio.TaskGroup() as group:
                group.create_task(self.run(parent))
                group.create_task(reports.run())


def _check_heard(parent: socket.socket) -> None:
    # The parent says nothing, so all that can be read is the end of the connection.
    with contextlib.suppress(BlockingIOError):
        if parent.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
            raise ConnectionError("the process beside Envoy has closed the connection")


class _Announced(SavedBundle):
    """The saved bundle, whose reader is busy from then on."""

    def __init__(self, folder: Path, busy: bytearray) -> None:
        super().__init__(folder)
        self._busy = busy

    async def bundle(self, revision: str) -> bytes:
        self._busy[0] = 1
        return await super().bundle(revision)


def start(configuration: str) -> tuple[Decide, bytearray]:
    """Follow the saved rules from now on.

    Args:
        configuration: JSON of the folder of the rules, the socket of the process beside Envoy, and the settings; see
            `tidegate.envoy.in_process.InProcessOptions`.

    Returns:
        What decides a request (see `InProcess.decide`), and a byte that is not 0 while a request would wait long for it.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    options = json.loads(configuration)
    settings = Settings.from_environment(options["settings"])
    busy = bytearray(1)
    saved = _Announced(Path(options["folder"]), busy)
    # As in a resolver's process: no request waits for the next look.
    config = FollowerConfig(poll_interval_s=LOOK_S, fresh_wait_s=0.0)
    live = LiveEngine()
    follower = _Follower(EngineFollower(saved, "envoy", config=config), live, busy)
    counter = TrafficCounter()
    directory = shard_directory(settings.shard_endpoints)
    gateway = build_gateway(settings, live, directory, authorizes=True, counts_limits=False)
    head = listener_config(settings)
    limits = HeadLimits(head.max_head_bytes, head.max_headers, head.max_target_bytes)
    decider = InProcess(gateway.app.authorization, live, limits, counter.ended)

    def take_routes() -> list[object]:
        with decider.lock:
            return counter.take_routes()

    gc.set_threshold(*GC_THRESHOLDS)
    follow = follower.run_again_and_again
    threading.Thread(target=follow, args=(options["reports"], take_routes), name="tidegate", daemon=True).start()
    return decider.decide, busy
