"""Processes that end, and stores that fail, at a call of one's choice."""

from __future__ import annotations

import asyncio
import functools
import inspect
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from tidegate.control.config import ControlPorts
from tidegate.errors import StoreError

STORES = ("bundles", "registry")


class Killed(BaseException):
    """The process has ended: nothing that it meant to do afterwards happens."""


class Interference:
    """Is asked about every call of a port by one process: may wait, raise, and let it happen or not. `came` tells whether
    it has done so."""

    @property
    def came(self) -> bool:
        return False

    async def around(self, port: str, method: str, call: Callable[[], Awaitable[Any]]) -> Any:
        return await call()


class Death(Interference):
    """Ends the process at its `nth` call (from 1): before it happens, or `after` it, before the process hears of it."""

    def __init__(self, nth: int, *, after: bool) -> None:
        self.left, self.after = nth, after

    @property
    def came(self) -> bool:
        return self.left <= 0

    async def around(self, port: str, method: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if self.came:
            raise Killed
        self.left -= 1
        if self.came and not self.after:
            raise Killed
        result = await call()
        if self.came:
            raise Killed
        return result


class Outage(Interference):
    """The stores fail at their `nth` call and the `length - 1` next: they do nothing, or do it and their answer is `lost`."""

    def __init__(self, nth: int, length: int, *, lost: bool) -> None:
        self.nth, self.length, self.lost = nth, length, lost
        self.calls = 0

    @property
    def came(self) -> bool:
        return self.calls >= self.nth

    async def around(self, port: str, method: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if port not in STORES:
            return await call()
        self.calls += 1
        fails = self.nth <= self.calls < self.nth + self.length
        if fails and not self.lost:
            raise StoreError("the store is down")
        result = await call()
        if fails:
            raise StoreError("the answer was lost")
        return result


class Hold(Interference):
    """Holds every call of one method before it happens: `held` is set while one is, and it goes on once `go` is set."""

    def __init__(self, port: str, method: str) -> None:
        self.place = (port, method)
        self.held, self.go = asyncio.Event(), asyncio.Event()

    async def around(self, port: str, method: str, call: Callable[[], Awaitable[Any]]) -> Any:
        if (port, method) == self.place:
            self.held.set()
            await self.go.wait()
        return await call()


class Delays(Interference):
    """Every call takes some time before and after it happens; the process may be killed at any moment."""

    WAITS_S = (0.0, 0.0, 0.0, 0.02, 0.3, 2.0)

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.dead = False

    async def around(self, port: str, method: str, call: Callable[[], Awaitable[Any]]) -> Any:
        await self._wait()
        result = await call()
        await self._wait()
        return result

    async def _wait(self) -> None:
        if self.dead:
            raise Killed
        await asyncio.sleep(self._chance.choice(self.WAITS_S))
        if self.dead:
            raise Killed


class _Interfered:
    """A port whose calls an interference is asked about."""

    def __init__(self, name: str, port: Any, interference: Interference) -> None:
        self._name, self._port, self._interference = name, port, interference

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._port, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        @functools.wraps(attribute)
        async def call(*arguments: Any, **options: Any) -> Any:
            return await self._interference.around(self._name, name, lambda: attribute(*arguments, **options))

        return call


def interfered(ports: ControlPorts, interference: Interference) -> ControlPorts:
    """The ports of a process that an interference is asked about."""
    names = ("bundles", "models", "registry", "catalog", "golden")
    wrapped: Any = {name: _Interfered(name, getattr(ports, name), interference) for name in names}
    of = ports.repository_of
    return replace(
        ports,
        **wrapped,
        repository_of=lambda entry: _Interfered("endpoint", of(entry), interference),  # type: ignore[arg-type, return-value]
    )
