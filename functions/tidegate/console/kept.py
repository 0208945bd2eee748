"""What the console keeps between two questions, so that many viewers cost what one does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from tidegate.errors import StoreError

_log = logging.getLogger(__name__)
T = TypeVar("T")

SOON_S = 0.3
"""The longest wait for what a child computes of an objective, where the rest of an answer is complete without."""

MOST_KEPT = 256


class Kept(Generic[T]):
    """A value that is read at most once in `most_s` seconds, and by one reader at a time."""

    def __init__(self, read: Callable[[], Awaitable[T]], most_s: float) -> None:
        self._read = read
        self._most_s = most_s
        self._reading: asyncio.Task[T] | None = None
        self._until = 0.0

    async def get(self) -> T:
        """Return the value, or raise what reading it raised."""
        if self._reading is None or (
            self._reading.done() and (time.monotonic() >= self._until or _failed(self._reading))
        ):
            self._reading = asyncio.create_task(self._timed())
        return await asyncio.shield(self._reading)

    def drop(self) -> None:
        """Have the next reader read anew, also where one reads now: it began before something changed."""
        self._reading = None

    async def _timed(self) -> T:
        value = await self._read()
        self._until = time.monotonic() + self._most_s
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
