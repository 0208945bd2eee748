"""Requests that a fallback answered, counted in the gateway's process and reported from there in bulk."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tidegate.ports import Served

MOST_OBJECTIVES = 1_000
"""Most objectives that are counted between two reports; others are left out."""


@dataclass(frozen=True, slots=True)
class FallbackCount:
    """Requests of one objective that a fallback answered since the last report, and the last of them: when (Unix seconds), what
    answered, what was decided and by which rule."""

    objective: str
    count: int
    last_at: float
    answered_by: str
    decided: str
    rule: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, members: Mapping[str, Any]) -> FallbackCount:
        """Decode the result of `as_dict`. Raises `ValueError`, `TypeError` or `KeyError` for anything else."""
        return cls(
            str(members["objective"]),
            int(members["count"]),
            float(members["last_at"]),
            str(members["answered_by"]),
            str(members["decided"]),
            str(members["rule"]),
        )


class FallbackCounter:
    """An observer of the gateway that counts what fallbacks answered."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._counts: dict[str, FallbackCount] = {}

    def observe(self, served: Served) -> None:
        if not served.is_fallback or served.target is None:
            return
        decision = served.decision
        known = self._counts.get(decision.objective)
        if known is None and len(self._counts) >= MOST_OBJECTIVES:
            return
        count = 1 if known is None else known.count + 1
        self._counts[decision.objective] = FallbackCount(
            decision.objective, count, self._clock(), served.target.name, decision.target.name, decision.rule
        )

    def take(self) -> list[FallbackCount]:
        taken, self._counts = list(self._counts.values()), {}
        return taken
