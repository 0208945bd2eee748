"""The loads that failed, each tried again more and more rarely."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from tidegate.control.plans import NOTHING, Plan
from tidegate.errors import EndpointError, ModelHangsError, ModelLoadError
from tidegate.ports import ModelLoad

FIRST_BACKOFF_S = 1.0
FIRST_BACKOFF_HUNG_S = 30.0
"""A load that hangs, or ends its server, costs a server, so it is not tried again as soon."""

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

    def remember(self, shard: str, load: ModelLoad, reason: str, error: ModelLoadError | EndpointError) -> None:
        """Do not try a load for a while, twice as long as the last time."""
        known, now = self._failures.get((shard, load.model)), self._clock()
        wait_s = FIRST_BACKOFF_S
        if known is not None:
            # Where it is not due yet, this is another endpoint of the same attempt.
            wait_s = known.wait_s if known.retry_at > now else 2 * known.wait_s
        if isinstance(error, ModelHangsError | EndpointError):
            wait_s = max(wait_s, FIRST_BACKOFF_HUNG_S)
        wait_s = min(wait_s, LONGEST_BACKOFF_S)
        self._failures[shard, load.model] = _Failure(frozenset(load.versions), reason, wait_s, now + wait_s)

    def forget(self, shard: str, model: str) -> None:
        self._failures.pop((shard, model), None)

    def keep(self, plans: Mapping[str, Plan]) -> None:
        wanted = {(shard, load.model) for shard, _ in self._failures for load in plans.get(shard, NOTHING)}
        self._failures = {key: failure for key, failure in self._failures.items() if key in wanted}

    def reason(self, shard: str, load: ModelLoad) -> str | None:
        """Return why a load must not be tried now; None where it may be, such as one of another version."""
        known = self._failures.get((shard, load.model))
        if known is None or known.retry_at <= self._clock() or not known.versions.issuperset(load.versions):
            return None
        return known.reason

    def known(self, shard: str, model: str) -> str | None:
        failure = self._failures.get((shard, model))
        return None if failure is None else failure.reason

    def waiting(self, missing: Collection[tuple[str, str]]) -> tuple[str, ...]:
        """Return the failures of what is `missing`, by shard and model, in words."""
        now = self._clock()
        return tuple(
            f"model {model!r} on shard {shard!r} is tried again in {max(0.0, each.retry_at - now):.0f} s: {each.reason}"
            for (shard, model), each in sorted(self._failures.items(), key=lambda item: item[0])
            if (shard, model) in missing
        )
