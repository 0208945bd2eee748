"""The tallies of shadows in S3: an object per hour and writer, which only that writer replaces, so that no two ever conflict.

A writer is one process that compares: a local stack, or an execution environment of the function. Readers merge the objects.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from tidegate.aws.layout import SHADOW_TALLIES
from tidegate.aws.objects import Objects
from tidegate.errors import StoreError
from tidegate.shadows.tallies import Tallies
from tidegate.tasks import run_all

_log = logging.getLogger(__name__)

HOUR_S = 3600.0
MOST_HOURS = 3
"""Hours whose tallies a process holds while S3 does not answer."""


MOST_READ = 16
"""Objects that are read at a time."""


def hour_of(at: float) -> str:
    """Return the hour of a time in Unix seconds, as keys have it: `2026-11-29T16`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H")


class StoredTallies(NamedTuple):
    """The tallies of all writers, and messages about those that could not be read."""

    tallies: Tallies
    unreadable: Sequence[str]


class S3ShadowTallies:
    """Stores `tidegate.shadows.tallies.Tallies` in their JSON. Every method may raise `StoreError`."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def write(self, hour: str, writer: str, tallies: bytes) -> None:
        """Replace what a writer stored for an hour: all that it counted in that hour so far."""
        await self._objects.put(f"{SHADOW_TALLIES}{hour}/{quote(writer, safe='')}.json", tallies)

    async def read(self, since: float) -> StoredTallies:
        """Return what every writer stored for the hour of `since` (Unix seconds) and for each later one, merged."""
        # Before every key of the hour, and after those of the hours before.
        listed = await self._objects.list(SHADOW_TALLIES, start_after=f"{SHADOW_TALLIES}{hour_of(since)}")
        merged, unreadable = Tallies(), []
        for start in range(0, len(listed), MOST_READ):
            # A few at a time: there may be one for each hour of months and each environment.
            for found in await run_all(self._objects.get(each.key) for each in listed[start : start + MOST_READ]):
                try:
                    if found is not None:
                        merged.merge(Tallies.from_json(found.data))
                except StoreError as error:
                    unreadable.append(str(error))
        return StoredTallies(merged, unreadable)


class TallyWriter:
    """Adds up the tallies of this process by the hour, and stores those that changed.

    Args:
        writer: the name of this process, which no other one has.
        clock: Unix time in seconds.
    """

    def __init__(self, store: S3ShadowTallies, writer: str, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._hours: dict[str, Tallies] = {}
        self._changed: set[str] = set()
        self._latest = ""

    def _hour(self) -> str:
        """Return the present hour. A clock that was set back does not return to an earlier one, whose object, which is no longer
        held here, would be replaced."""
        self._latest = max(self._latest, hour_of(self._clock()))
        return self._latest

    def count(self, records: Any) -> None:
        """Add what a gateway counted of each pair; see `Tallies.count`. Raises `StoreError`: it is something else."""
        counted = Tallies()
        counted.count(records)
        self.add(counted)

    def add(self, tallies: Tallies) -> None:
        hour = self._hour()
        self._hours.setdefault(hour, Tallies()).merge(tallies)
        self._changed.add(hour)

    async def store(self) -> None:
        """Store what has changed. Where S3 does not answer, that is logged, and the next call tries again."""
        try:
            for hour in sorted(self._changed):
                self._changed.discard(hour)
                try:
                    await self._store.write(hour, self._writer, self._hours[hour].to_json())
                except StoreError:
                    self._changed.add(hour)
                    raise
        except StoreError as error:
            _log.warning("the tallies of shadows could not be stored: %s", error)
        now = self._hour()
        # Of the hours that could not be stored, the last few.
        kept = sorted(hour for hour in self._hours if hour == now or hour in self._changed)[-MOST_HOURS:]
        self._hours = {hour: self._hours[hour] for hour in kept}
        self._changed &= set(kept)
