"""What each resolver reports to its parent: a line of JSON each second, and at once when it serves other rules."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tidegate.gateway.follower import EngineFollower

LOOK_S = 0.1
"""How often the saved bundle is looked at."""

REPORT_S = 1.0
MOST_UNREAD = 256 * 1024
"""Bytes of reports that its parent has not read; beyond that none is added, and counts wait."""


class Reports:
    """Writes reports to the parent, which may not read for a while.

    Args:
        follower: the rules that are served.
        take_routes: returns what was counted since the last time; see `TrafficCounter.take_routes`.
        descriptor: where the parent reads them.
    """

    def __init__(self, follower: EngineFollower, take_routes: Callable[[], list[Any]], descriptor: int) -> None:
        self._follower = follower
        self._take_routes = take_routes
        self._descriptor = descriptor
        self._unsent = b""
        os.set_blocking(descriptor, False)

    async def run(self) -> None:
        """Report until cancelled.

        Raises:
            OSError: the parent reads no more.
        """
        loop = asyncio.get_running_loop()
        lag_s = 0.0
        while True:
            self._send(lag_s)
            due_s = loop.time() + (REPORT_S if self._follower.revision else LOOK_S)
            while loop.time() < due_s and not self._is_new():
                await asyncio.sleep(LOOK_S)
            lag_s = max(0.0, loop.time() - due_s)

    def _is_new(self) -> bool:
        return self._follower.revision != self._reported

    def _send(self, lag_s: float) -> None:
        self._reported = self._follower.revision
        if len(self._unsent) < MOST_UNREAD:
            report = {"revision": self._reported, "lag_s": lag_s, "routes": self._take_routes()}
            self._unsent += json.dumps(report, separators=(",", ":")).encode() + b"\n"
        with suppress(BlockingIOError):
            self._unsent = self._unsent[os.write(self._descriptor, self._unsent) :]
