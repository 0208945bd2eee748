"""The fleet's status in bounded time, for processes that are asked for it again and again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from tidegate.control.endpoints import Times
from tidegate.control.status import LATE, FleetReport, unread
from tidegate.errors import StoreError
from tidegate.ports.bundle_store import iso_time

STATUS_S = 2.0
"""The longest that a report of the fleet waits for the stores and the servers."""


class FleetReports:
    """Gives the fleet's status in bounded time: where the stores or servers do not answer in `wait_s`, what they said last."""

    def __init__(self, read: Callable[[], Coroutine[Any, Any, FleetReport]], wait_s: float = STATUS_S) -> None:
        self._read = read
        self._wait_s = wait_s
        self._reading: asyncio.Task[FleetReport] | None = None
        self._reading_since = 0.0
        self._last: Mapping[str, Any] | None = None
        self._last_times: Times = {}
        self.times: Times | None = None
        """What models took, where that is read, of the report that `latest` gave last; None: it gave an earlier one."""

    async def latest(self) -> Mapping[str, Any]:
        """Return the report, with its time as `as_of`."""
        loop = asyncio.get_running_loop()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
            # A report that is too late for the present request is cached too.
            self._reading.add_done_callback(self._keep)
            self._reading_since = loop.time()
        # A caller that asks while this waits may begin the next report.
        reading = self._reading
        left_s = self._wait_s - (loop.time() - self._reading_since)
        done, _ = await asyncio.wait([reading], timeout=max(left_s, 0.05))
        if not done:
            return self._remembered(f"{LATE} {self._wait_s:g} s")
        try:
            reading.result()
        except StoreError as error:
            # What is served goes on being served, and that is worth telling.
            return self._remembered(str(error))
        assert self._last is not None
        self.times = self._last_times
        return self._last

    def _keep(self, reading: asyncio.Task[FleetReport]) -> None:
        if not reading.cancelled() and reading.exception() is None:
            self._last = {**reading.result().as_dict(), "as_of": iso_time(time.time())}
            self._last_times = reading.result().times

    def _remembered(self, problem: str) -> Mapping[str, Any]:
        self.times = None
        if self._last is None:
            return {**unread(problem).as_dict(), "healthy": False, "problems": [problem], "as_of": None}
        problem = f"{problem}; all else here is as of {self._last['as_of']}"
        return {**self._last, "healthy": False, "problems": [problem, *self._last["problems"]]}
