"""Incidents of a stack since its start: requests that a fallback answered, and restarts of its servers and gateway."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.fleet.healing import UNDER_WAY, Reloads
from tidegate.fleet.slot import Restarts
from tidegate.ports.bundle_store import iso_time
from tidegate.ports.traffic import SeriesKey, Tally

logger = logging.getLogger(__name__)

RECENT_S = 300.0
"""How long an incident counts as degraded, in seconds."""

LOG_EVERY_S = 10.0


@dataclass(slots=True)
class Fallbacks:
    """The requests of one objective that a fallback answered: how many, and when the last was (Unix seconds)."""

    count: int = 0
    last_at: float = 0.0
    logged_at: float = 0.0


@dataclass(frozen=True, slots=True)
class GatewayRestarts:
    """How often the gateway's process was replaced since the start, when it was last (Unix seconds) and why."""

    count: int = 0
    last_at: float = 0.0
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {"count": self.count, "last_at": iso_time(self.last_at) if self.count else None, "reason": self.reason}


class Incidents:
    """Counts what fallbacks answered, and reports it with the restarts of servers and gateway."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._started_at = clock()
        self._fallbacks: dict[str, Fallbacks] = {}

    def count(self, key: SeriesKey, tally: Tally) -> None:
        """Count what a fallback answered in a part of a series."""
        if not tally.fallbacks:
            return
        found = self._fallbacks.setdefault(key.objective, Fallbacks())
        found.count, found.last_at = found.count + tally.fallbacks, tally.last_at
        if (now := self._clock()) - found.logged_at >= LOG_EVERY_S:
            found.logged_at = now
            version = "" if key.version is None else f" (version {key.version})"
            logger.warning(
                "objective %s: the fallback %s%s answered instead of %s (rule %s); %d such requests since the start",
                key.objective, key.model, version, tally.decided, key.rule, found.count,
            )  # fmt: skip

    def as_dict(
        self, restarts: Sequence[Restarts], reloads: Sequence[Reloads], gateway: GatewayRestarts
    ) -> dict[str, Any]:
        """Plain JSON values: see docs/control-plane.md, "Fleet status"."""
        return {
            "since_start": {
                "at": iso_time(self._started_at),
                "restarts": [each.as_dict() for each in restarts],
                "reloads": [each.as_dict() for each in reloads],
                "gateway_restarts": gateway.as_dict(),
                "fallbacks": [
                    {"objective": name, "count": found.count, "last_at": iso_time(found.last_at)}
                    for name, found in sorted(self._fallbacks.items())
                ],
            },
            "degraded": list(self._degraded(restarts, reloads, gateway)),
        }

    def _degraded(
        self, restarts: Sequence[Restarts], reloads: Sequence[Reloads], gateway: GatewayRestarts
    ) -> Iterator[str]:
        recent = self._clock() - RECENT_S
        for each in restarts:
            if each.last_at >= recent:
                yield (
                    f"a server of shard {each.shard} was replaced {_times(each.count)}, last at {iso_time(each.last_at)}: {each.reason}; "
                    "its log, in the output of `tidegate up`, says why"
                )
        for reload in reloads:
            if reload.last_at >= recent:
                place = f"{reload.endpoint.url} of shard {reload.endpoint.shard}"
                rarely = "" if reload.failing in (None, UNDER_WAY) else ", so that is done more and more rarely"
                now = (reload.failing or "it answers again") + rarely
                yield (
                    f"model {reload.model} on {place} was reloaded {_times(reload.count)}, last at {iso_time(reload.last_at)}, as "
                    f"{reload.reason}; {now}"
                )
        if gateway.count and gateway.last_at >= recent:
            yield f"the gateway was replaced {_times(gateway.count)}, last at {iso_time(gateway.last_at)}: its process {gateway.reason}"
        for name, found in sorted(self._fallbacks.items()):
            if found.last_at >= recent:
                requests = "1 request" if found.count == 1 else f"{found.count} requests"
                yield (
                    f"objective {name}: a fallback answered {requests}, last at {iso_time(found.last_at)}; see what its first "
                    "target's shards lack"
                )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
