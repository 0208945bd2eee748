"""Counts every request by what it was, for the metrics and the console. Nothing is rendered here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from tidegate.ports.requests import Hedge, Served, StreamEnd
from tidegate.ports.traffic import OTHER, Durations, SeriesKey, Tally
from tidegate.rules.decision import Decision, Target

MOST_SERIES: Final = 4_000
"""Series that are counted between two reports; requests of further ones count as `OTHER`."""


class TrafficCounter:
    """Counts the decided inferences of each series, and all requests of callers by route and status, until they are taken."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._series: dict[Any, Tally] = {}
        self._seen: dict[Any, tuple[Decision, Target | None, Tally]] = {}
        self._routes: dict[tuple[str, str, int | str | None], Durations] = {}

    def observe(self, served: Served) -> None:
        """Count a request."""
        decision, target = served.decision, served.target
        # A decision is one object for all requests that get it, and so is a target.
        known = (id(decision), id(target), served.shard, served.traffic)
        seen = self._seen.get(known)
        if seen is not None and seen[0] is decision and seen[1] is target:
            tally = seen[2]
        else:
            tally = self._tally(served)
            if len(self._seen) >= MOST_SERIES:
                self._seen.clear()
            self._seen[known] = (decision, target, tally)
        status = served.status
        if status >= 500:
            tally.server_errors += 1
        elif status >= 400:
            tally.client_errors += 1
        elif target is not None and target is not decision.target and target != decision.target:
            tally.fallbacks += 1
        else:
            tally.answered += 1
        took_ms = served.decide_ms + served.dispatch_ms + served.stream_ms
        tally.took.record(took_ms)
        tally.decide_s += served.decide_ms / 1000.0
        tally.triton_s += served.triton_ms / 1000.0
        if served.failed_attempts:
            tally.failed_attempts += served.failed_attempts
        if served.hedge is not None:
            tally.hedges += 1
            tally.hedges_won += int(served.hedge is Hedge.WON)
        if served.stream_end is not None:
            tally.streams += 1
            tally.streams_left += int(served.stream_end is StreamEnd.CALLER_LEFT)
            tally.streams_broken += int(served.stream_end is StreamEnd.BROKEN)
        if served.trace_id is not None:
            tally.trace_id = served.trace_id
            tally.trace_took_s = took_ms / 1000.0

    def _tally(self, served: Served) -> Tally:
        decision, target = served.decision, served.target
        counted = decision.target if target is None else target
        key: Any = (
            decision.objective,
            decision.rule,
            decision.variant,
            served.traffic,
            counted.model,
            counted.version,
            served.shard,
        )
        tally = self._series.get(key)
        if tally is None and len(self._series) >= MOST_SERIES:
            key = (OTHER.objective, "", None, "", "", None, None)
            tally = self._series.get(key)
        if tally is None:
            tally = self._series[key] = Tally(decision.target.name)
        return tally

    def ended(self, method: str, route: str, status: int | str | None, took_s: float) -> None:
        """Count a request of a caller by what identifies it (`RouteKey`); its names must be of a few."""
        key = (method, route, status)
        durations = self._routes.get(key)
        if durations is None:
            durations = self._routes[key] = Durations()
        durations.record(took_s * 1000.0)

    def take_routes(self) -> list[Any]:
        """Return what `ended` counted since the last time, as JSON values that `TrafficHistory.add_routes` reads."""
        taken, self._routes = self._routes, {}
        return [
            [[method, route, "" if status is None else str(status)], durations.as_list()]
            for (method, route, status), durations in taken.items()
        ]

    def take(self) -> list[Any]:
        """Return what was counted since the last time, as JSON values that `TrafficHistory.add` reads: for each series that changed a
        list of its key (`SeriesKey`) and its tally (`Tally.as_dict`)."""
        taken, self._series = self._series, {}
        self._seen.clear()
        now = self._clock()
        for tally in taken.values():
            tally.last_at = now
        return [[_shown(key), tally.as_dict()] for key, tally in taken.items()]


def _shown(key: Any) -> list[Any]:
    objective, rule, variant, traffic, model, version, shard = key
    return list(SeriesKey(objective, rule, variant or "", str(traffic), model, version, shard or ""))
