"""Remembers which loads failed, so that they are tried more and more rarely."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from tidegate.control.plans import NOTHING, Plan
from tidegate.ports import ModelLoad

FIRST_BACKOFF_S = 1.0
FIRST_BACKOFF_HUNG_S = 30.0
"""A load that hangs costs a server, so it is not tried again as soon."""

LONGEST_BACKOFF_S = 600.0


@dataclass(frozen=True, slots=True)
class _Failure:
    versions: frozenset[int]
    reason: str
    wait_s: float
    retry_at: float


class Failures:
    """The loads that failed, by shard and model. One object serves a whole process; `clock` gives Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: dict[tuple[str, str], _Failure] = {}

    def remember(self, shard: str, load: ModelLoad, reason: str, *, hung: bool = False) -> None:
        """Leave a load alone for a while, twice as long as the last time. `hung`: it costs a server."""
        known, now = self._failures.get((shard, load.model)), self._clock()
        wait_s = FIRST_BACKOFF_S
        if known is not None:
            # Where it is not due yet, this is another endpoint of the same attempt.
            wait_s = known.wait_s if known.retry_at > now else 2 * known.wait_s
        wait_s = min(max(wait_s, FIRST_BACKOFF_HUNG_S if hung else 0.0), LONGEST_BACKOFF_S)
        self._failures[shard, load.model] = _Failure(frozenset(load.versions), reason, wait_s, now + wait_s)

    def forget(self, shard: str, model: str) -> None:
        """It has been loaded."""
        self._failures.pop((shard, model), None)

    def keep(self, plans: Mapping[str, Plan]) -> None:
        """Forget all but the models that shards must hold."""
        wanted = {(shard, load.model) for shard, _ in self._failures for load in plans.get(shard, NOTHING)}
        self._failures = {key: failure for key, failure in self._failures.items() if key in wanted}

    def reason(self, shard: str, load: ModelLoad) -> str:
        """Why a load is left alone now; empty where it may be tried. One for another version may."""
        known = self._failures.get((shard, load.model))
        if known is None or known.retry_at <= self._clock() or not known.versions.issuperset(load.versions):
            return ""
        return known.reason

    def known(self, shard: str, model: str) -> str:
        """Why the last load of a model failed; empty where it did not."""
        failure = self._failures.get((shard, model))
        return "" if failure is None else failure.reason

    def waiting(self, missing: Collection[tuple[str, str]]) -> tuple[str, ...]:
        """The failures of what is `missing`, by shard and model, in words."""
        now = self._clock()
        return tuple(
            f"model {model!r} on shard {shard!r} is tried again in {max(0.0, each.retry_at - now):.0f} s: {each.reason}"
            for (shard, model), each in sorted(self._failures.items(), key=lambda item: item[0])
            if (shard, model) in missing
        )
