"""Faults of the stores in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tidegate.errors import StoreError


@dataclass(slots=True)
class StoreFaults:
    """Faults from the next call on, by the name of the method; `*` is every method.

    Attributes:
        failing: methods that do nothing and raise `StoreError`, with the reason.
        lost: methods that do their work and then raise `StoreError`, as when the answer was lost.
        held: methods that wait until the event is set, and then go their way.
        damaged: revisions whose bundle and assignment, and `model/path`s of model files, that come back damaged.
    """

    failing: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def around(self, method: str) -> AsyncIterator[None]:
        await asyncio.sleep(0)
        for name in (method, "*"):
            if name in self.held:
                await self.held[name].wait()
            if name in self.failing:
                raise StoreError(f"{method}: {self.failing[name]}")
        yield
        for name in (method, "*"):
            if name in self.lost:
                raise StoreError(f"{method}: {self.lost[name]}")
