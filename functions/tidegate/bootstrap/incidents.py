"""What went wrong in a stack since its start: requests that a fallback answered, beside the restarts of its servers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tidegate.control.supervisor import Restarts
from tidegate.ports import Served

logger = logging.getLogger(__name__)

RECENT_S = 300.0
"""For so long what happened counts as degraded."""

LOG_EVERY_S = 10.0


@dataclass(slots=True)
class Fallbacks:
    """The requests of one objective that a fallback answered: how many, and when the last was (Unix seconds)."""

    count: int = 0
    last_at: float = 0.0
    logged_at: float = 0.0


class Incidents:
    """Counts fallbacks as an observer of the gateway, and reports them with the restarts of servers."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._started_at = clock()
        self._fallbacks: dict[str, Fallbacks] = {}

    def observe(self, served: Served) -> None:
        """Count a request, where a fallback answered it."""
        if not served.is_fallback or served.target is None:
            return
        now, decision = self._clock(), served.decision
        found = self._fallbacks.setdefault(decision.objective, Fallbacks())
        found.count, found.last_at = found.count + 1, now
        if now - found.logged_at >= LOG_EVERY_S:
            found.logged_at = now
            logger.warning(
                "objective %s: the fallback %s answered instead of %s (rule %s); %d such requests since the start",
                decision.objective, served.target.name, decision.target.name, decision.rule, found.count,
            )  # fmt: skip

    def as_dict(self, restarts: Sequence[Restarts]) -> dict[str, Any]:
        """Plain JSON values: see docs/control-plane.md, "Fleet status"."""
        return {
            "since_start": {
                "at": _iso(self._started_at),
                "restarts": [each.as_dict() for each in restarts],
                "fallbacks": [
                    {"objective": name, "count": found.count, "last_at": _iso(found.last_at)}
                    for name, found in sorted(self._fallbacks.items())
                ],
            },
            "degraded": list(self._degraded(restarts)),
        }

    def _degraded(self, restarts: Sequence[Restarts]) -> Iterator[str]:
        """What happened lately, in words."""
        recent = self._clock() - RECENT_S
        for each in restarts:
            if each.last_at >= recent:
                times = "once" if each.count == 1 else f"{each.count} times"
                yield (
                    f"a server of shard {each.shard} was replaced {times}, last at {_iso(each.last_at)}: {each.reason}; "
                    "its log above that says why"
                )
        for name, found in sorted(self._fallbacks.items()):
            if found.last_at >= recent:
                requests = "1 request" if found.count == 1 else f"{found.count} requests"
                yield (
                    f"objective {name}: a fallback answered {requests}, last at {_iso(found.last_at)}; see what its first "
                    "target's shards lack"
                )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
