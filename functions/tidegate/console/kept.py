"""What the console keeps between two questions, so that many viewers cost what one does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from tidegate.errors import StoreError
from tidegate.tasks import wait_at_most

_log = logging.getLogger(__name__)
T = TypeVar("T")

SOON_S = 0.3
"""The longest wait for what a child computes of an objective, where the rest of an answer is complete without."""

MOST_KEPT = 256

LEAD_S = 0.25
"""How long before it is expected to be asked for a value is there, by the longest of the last reads."""

LAST_READS = 4
"""What takes long is not in each of them, such as an inspection of what is live."""

PUNCTUAL_S = 0.5
"""How far two periods may differ."""

MOST_IN_TURN = 4
"""How many may ask with the same period, each at another time."""


class Kept(Generic[T]):
    """A value that is read at most once in `most_s` seconds, and by one reader at a time."""

    def __init__(self, read: Callable[[], Awaitable[T]], most_s: float) -> None:
        self._read = read
        self._most_s = most_s
        self._reading: asyncio.Task[T] | None = None
        self.until = 0.0
        """When the value must be read again, by the clock of the event loop."""

    async def get(self) -> T:
        """Return the value, or raise what reading it raised."""
        reading = self._reading
        if reading is None or (
            reading.done() and (asyncio.get_running_loop().time() >= self.until or _failed(reading))
        ):
            return await self.renew()
        return await asyncio.shield(reading)

    async def renew(self) -> T:
        """Read the value, or wait for the read under way. Raises what that raises."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._timed())
        return await asyncio.shield(self._reading)

    def drop(self) -> None:
        """Have the next reader read again, also where one reads now: it began before something changed."""
        self._reading = None

    async def _timed(self) -> T:
        value = await self._read()
        self.until = asyncio.get_running_loop().time() + self._most_s
        return value


class Expected(Generic[T]):
    """A value that is kept as by `Kept`, and is read shortly before it will be asked for where the questions have a period, as scrapes
    do: those that come when they are expected wait for no read. It is never older than `most_s` seconds, and a question that does not
    come costs one read. While `run` does not run, it is what `Kept` is."""

    def __init__(self, read: Callable[[], Awaitable[T]], most_s: float) -> None:
        self._kept = Kept(self._timed, most_s)
        self._read = read
        self._longest_lead_s = most_s * 0.75
        self._most_s = most_s
        self._took_s: deque[float] = deque(maxlen=LAST_READS)
        self._asked: deque[float] = deque(maxlen=2 * MOST_IN_TURN + 1)
        self._news = asyncio.Event()

    async def get(self) -> T:
        """Return the value, or raise what reading it raised."""
        self._asked.append(asyncio.get_running_loop().time())
        self._news.set()
        return await self._kept.get()

    async def run(self) -> None:
        """Read ahead, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            due = self._due()
            if due is not None and self._kept.until < due:
                lead_s = min(max(self._took_s, default=0.0) + LEAD_S, self._longest_lead_s)
                await wait_at_most(self._news, max(0.0, due - lead_s - loop.time()))
                if not self._news.is_set():
                    # The next reader reads it again, and raises what that raises.
                    with contextlib.suppress(Exception):
                        await self._kept.renew()
            await self._news.wait()

    def _due(self) -> float | None:
        """Return when the next question is expected: up to `MOST_IN_TURN` that ask in turn may have the same period."""
        asked = self._asked
        for turns in range(1, (len(asked) - 1) // 2 + 1):
            last, before, first = asked[-1], asked[-1 - turns], asked[-1 - 2 * turns]
            period_s = last - before
            if period_s > self._most_s and abs(period_s - (before - first)) <= PUNCTUAL_S:
                return asked[-turns] + period_s
        return None

    async def _timed(self) -> T:
        loop = asyncio.get_running_loop()
        began = loop.time()
        value = await self._read()
        self._took_s.append(loop.time() - began)
        return value


class Latest(Generic[T]):
    """A value that is read every `every_s` seconds while it is asked for, and is given as it was read last where a read takes long or
    fails. `value` is given before the first one."""

    def __init__(self, read: Callable[[], Awaitable[T]], every_s: float, value: T) -> None:
        self._read = read
        self._every_s = every_s
        self._value = value
        self._reading: asyncio.Task[None] | None = None
        self._due = 0.0

    async def get(self) -> T:
        """Return the value. Raises nothing."""
        if (self._reading is None or self._reading.done()) and time.monotonic() >= self._due:
            self._due = time.monotonic() + self._every_s
            self._reading = asyncio.create_task(self._take())
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=SOON_S)
        return self._value

    async def _take(self) -> None:
        try:
            self._value = await self._read()
        except StoreError as error:
            # The status of the fleet has the problem, too.
            _log.warning("what the console shows of the last time cannot be read again: %s", error)


class Computed(Generic[T]):
    """Values that children compute, each once, by a key that says all that they depend on."""

    def __init__(self) -> None:
        self._tasks: dict[Any, asyncio.Task[T]] = {}

    def task(self, key: Any, compute: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """Return the task that computes a value. One that failed is started again by the next call."""
        found = self._tasks.get(key)
        if found is None or (found.done() and _failed(found)):
            found = self._tasks[key] = asyncio.ensure_future(compute())
            # The caller may have left before it failed.
            found.add_done_callback(_failed)
            while len(self._tasks) > MOST_KEPT:
                self._tasks.pop(next(iter(self._tasks)))
        return found

    async def soon(self, key: Any, compute: Callable[[], Awaitable[T]]) -> T | None:
        """Return a value if it is there within `SOON_S`, else None; it is computed further."""
        task = self.task(key, compute)
        await asyncio.wait([task], timeout=SOON_S)
        return task.result() if task.done() and not _failed(task) else None

    async def get(self, key: Any, compute: Callable[[], Awaitable[T]]) -> T:
        """Return a value, or raise what computing it raised."""
        return await asyncio.shield(self.task(key, compute))


def _failed(task: asyncio.Future[Any]) -> bool:
    return task.cancelled() or task.exception() is not None
