"""What a gateway counts of the requests that it decided: series of counters, and the latencies of each.

The gateway's process adds up, and hands on what it counted since the last time; the control plane's process keeps sums.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

LATENCY_BUCKETS: Final = 551
"""Buckets of a latency, by `latency_bucket`: 10 µs wide below 1 ms, above that of two significant decimal digits (at most 10 % wide);
the last one is open, from 100 s. So the bounds of histograms that people read (1, 2.5, 5, 7.5 and 10 ms …) are bounds of buckets."""

_UNITS_PER_S: Final = 100_000.0
_LONGEST_NAME: Final = 256
_TRACE_ID: Final = re.compile("[0-9a-f]{32}")
_BUCKETS: Final = tuple(range(LATENCY_BUCKETS))
"""The numbers of the buckets once: a number above 256 that is read is an object of its own."""


def latency_bucket(took_ms: float) -> int:
    """Return the bucket of a latency in milliseconds, 0 to `LATENCY_BUCKETS` - 1."""
    if not 0.0 < took_ms < 100_000.0:
        return LATENCY_BUCKETS - 1 if took_ms > 0.0 else 0
    # A hundredth of a millisecond is the unit; the least addition makes 0.29 ms 29 units and not 28.
    digits = int(took_ms * 100.0 + 1e-6)
    index = 0
    while digits >= 100:
        digits //= 10
        index += 90
    return index + digits


def bucket_start_s(index: int) -> float:
    """Return the least latency of a bucket, in seconds."""
    if index < 100:
        return index / _UNITS_PER_S
    power, digits = divmod(index - 10, 90)
    return float((digits + 10) * 10**power) / _UNITS_PER_S


class Durations:
    """How many requests took how long.

    Attributes:
        total_s: the sum of their times, in seconds.
        counts: their number by `latency_bucket`.
    """

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.total_s = 0.0
        self.counts: dict[int, int] = {}

    @property
    def count(self) -> int:
        return sum(self.counts.values())

    def record(self, took_ms: float) -> None:
        """Count a request that took some milliseconds."""
        self.total_s += took_ms / 1000.0
        bucket = latency_bucket(took_ms)
        self.counts[bucket] = self.counts.get(bucket, 0) + 1

    def add(self, other: Durations) -> None:
        """Add the counts of another one."""
        self.total_s += other.total_s
        counts = self.counts
        for bucket, count in other.counts.items():
            counts[bucket] = counts.get(bucket, 0) + count

    def percentile_s(self, share: float) -> float | None:
        """Return the time that `share` (0–1) of the requests do not exceed, exact to 5 % from 0.1 ms; None without requests."""
        total = self.count
        left = share * total
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0.0 and bucket < LATENCY_BUCKETS - 1:
                return (bucket_start_s(bucket) + bucket_start_s(bucket + 1)) / 2.0
        return bucket_start_s(LATENCY_BUCKETS - 1) if total else None

    def cumulative(self, ends: Sequence[int]) -> list[int]:
        """Return how many requests are in the buckets below each of some ascending ones, and the number of all."""
        counts: list[int] = []
        below = 0
        for bucket in sorted(self.counts):
            while len(counts) < len(ends) and bucket >= ends[len(counts)]:
                counts.append(below)
            below += self.counts[bucket]
        return counts + [below] * (len(ends) + 1 - len(counts))

    def as_list(self) -> list[Any]:
        """Return the counts as JSON values; see `from_list`."""
        return [self.total_s, list(self.counts.items())]

    @classmethod
    def from_list(cls, value: Any) -> Durations:
        """Decode the result of `as_list`. Raises `ValueError` or `TypeError` for anything else."""
        durations = cls()
        total_s, counts = value
        durations.total_s = _seconds(total_s)
        for bucket, count in counts:
            if not 0 <= _count(bucket) < LATENCY_BUCKETS:
                raise ValueError("no bucket of times")
            durations.counts[_BUCKETS[bucket]] = _count(count)
        return durations


class RouteKey(NamedTuple):
    """What is counted of all requests of callers: an HTTP request's method, its route as a template, and its status ("" if its
    caller left before); of an RPC, "", its method, and the name of its code."""

    method: str
    route: str
    status: str


class SeriesKey(NamedTuple):
    """What a series counts.

    `variant` is "" for a rule that only serves. `model` and `version` are those that answered, else those that were decided; `shard`
    is "" if none answered. `traffic` is the class of the requests (`tidegate.rules.Traffic`).
    """

    objective: str
    rule: str
    variant: str
    traffic: str
    model: str
    version: int | None
    shard: str


OTHER: Final = SeriesKey("other", "", "", "", "", None, "")
"""Counts what is beyond the most series."""


class Tally:
    """Counts of requests, and their times as sums in seconds.

    Each request is one of `answered`, `fallbacks`, `client_errors` (4xx) and `server_errors` (5xx), the errors of models included.

    Attributes:
        answered: requests that the decided target answered with a status below 400.
        fallbacks: requests that a fallback answered with a status below 400.
        failed_attempts: attempts that failed before one answered, or before none did.
        hedges, hedges_won: requests with a second attempt at the same time, and those that it answered.
        streams, streams_left, streams_broken: answers that were passed on as they arrived: all, those whose caller left, and those that
            broke off.
        took: from the start of deciding to the last byte of the answer.
        decide_s: reading the context and deciding.
        triton_s: the answering attempts, until their first byte.
        last_at: when a request was counted last, in Unix seconds; 0.0: never.
        decided: the name of the target that was decided last.
        trace_id, trace_took_s: the trace of the last request whose trace is recorded ("": none), and what it took.
    """

    __slots__ = (
        "answered", "client_errors", "decide_s", "decided", "failed_attempts", "fallbacks", "hedges", "hedges_won", "last_at",
        "server_errors", "streams", "streams_broken", "streams_left", "took", "trace_id", "trace_took_s", "triton_s",
    )  # fmt: skip

    def __init__(self, decided: str = "") -> None:
        self.answered = 0
        self.fallbacks = 0
        self.client_errors = 0
        self.server_errors = 0
        self.failed_attempts = 0
        self.hedges = 0
        self.hedges_won = 0
        self.streams = 0
        self.streams_left = 0
        self.streams_broken = 0
        self.took = Durations()
        self.decide_s = 0.0
        self.triton_s = 0.0
        self.last_at = 0.0
        self.decided = decided
        self.trace_id = ""
        self.trace_took_s = 0.0

    @property
    def requests(self) -> int:
        return self.answered + self.fallbacks + self.client_errors + self.server_errors

    @property
    def errors(self) -> int:
        return self.client_errors + self.server_errors

    def add(self, other: Tally) -> None:
        """Add the counts of another one."""
        self.answered += other.answered
        self.fallbacks += other.fallbacks
        self.client_errors += other.client_errors
        self.server_errors += other.server_errors
        self.failed_attempts += other.failed_attempts
        self.hedges += other.hedges
        self.hedges_won += other.hedges_won
        self.streams += other.streams
        self.streams_left += other.streams_left
        self.streams_broken += other.streams_broken
        self.took.add(other.took)
        self.decide_s += other.decide_s
        self.triton_s += other.triton_s
        if other.last_at >= self.last_at:
            self.last_at, self.decided = other.last_at, other.decided
            if other.trace_id:
                self.trace_id, self.trace_took_s = other.trace_id, other.trace_took_s

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values, without those that are zero; see `from_dict`."""
        members: dict[str, Any] = {
            "answered": self.answered,
            "fallbacks": self.fallbacks,
            "client_errors": self.client_errors,
            "server_errors": self.server_errors,
            "failed_attempts": self.failed_attempts,
            "hedges": self.hedges,
            "hedges_won": self.hedges_won,
            "streams": self.streams,
            "streams_left": self.streams_left,
            "streams_broken": self.streams_broken,
            "took": self.took.as_list(),
            "decide_s": self.decide_s,
            "triton_s": self.triton_s,
            "last_at": self.last_at,
            "decided": self.decided,
            "trace_id": self.trace_id,
            "trace_took_s": self.trace_took_s,
        }
        return {name: value for name, value in members.items() if value}

    @classmethod
    def from_dict(cls, members: Mapping[str, Any]) -> Tally:
        """Decode the result of `as_dict`. Raises `ValueError`, `TypeError` or `KeyError` for anything else."""
        tally = cls(_name(members.get("decided", "")))
        tally.answered = _count(members.get("answered", 0))
        tally.fallbacks = _count(members.get("fallbacks", 0))
        tally.client_errors = _count(members.get("client_errors", 0))
        tally.server_errors = _count(members.get("server_errors", 0))
        tally.failed_attempts = _count(members.get("failed_attempts", 0))
        tally.hedges = _count(members.get("hedges", 0))
        tally.hedges_won = _count(members.get("hedges_won", 0))
        tally.streams = _count(members.get("streams", 0))
        tally.streams_left = _count(members.get("streams_left", 0))
        tally.streams_broken = _count(members.get("streams_broken", 0))
        tally.took = Durations.from_list(members["took"])
        tally.decide_s = _seconds(members.get("decide_s", 0.0))
        tally.triton_s = _seconds(members.get("triton_s", 0.0))
        tally.last_at = _seconds(members.get("last_at", 0.0))
        tally.trace_id = _trace_id(members.get("trace_id", ""))
        tally.trace_took_s = _seconds(members.get("trace_took_s", 0.0))
        return tally


def series_from(key: Iterable[Any]) -> SeriesKey:
    """Decode the key of a series from JSON values. Raises `ValueError` or `TypeError` for anything else."""
    objective, rule, variant, traffic, model, version, shard = key
    return SeriesKey(
        _name(objective),
        _name(rule),
        _name(variant),
        _name(traffic),
        _name(model),
        None if version is None else _count(version),
        _name(shard),
    )


def route_from(key: Iterable[Any]) -> RouteKey:
    """Decode a key from JSON values. Raises `ValueError` or `TypeError` for anything else."""
    method, route, status = key
    return RouteKey(_name(method), _name(route), _name(status))


def _name(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a name is no text")
    return value[:_LONGEST_NAME]


def _trace_id(value: Any) -> str:
    if value and not (isinstance(value, str) and _TRACE_ID.fullmatch(value)):
        raise ValueError("no id of a trace")
    return str(value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ValueError("a count is no count")
    return value


def _seconds(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value) or value < 0.0:
        raise ValueError("a time is no number of seconds")
    return float(value)
