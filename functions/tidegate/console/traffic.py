"""The figures of a gateway's requests: sums since the start of the stack, and the last 15 minutes in steps of five seconds.

`TrafficHistory` is in the control plane's process, so it outlives the gateway's, which reports once a second what it counted
(`gateway/traffic.py`). What a gateway counted in its last second before it was killed is lost.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from tidegate.ports.traffic import OTHER, Durations, RouteKey, SeriesKey, Tally, route_from, series_from

STEP_S = 5
KEPT_S = 900
"""Width of a step, and length of the history, in seconds."""

STEPS = KEPT_S // STEP_S

MOST_SERIES = 4_000
"""Series with sums of their own. Beyond, those without a request for `IDLE_S` are added to `OTHER`, and so are new ones, if there are
none such: the total never falls."""

MOST_ROUTES = 2_000
"""Most combinations of a method, a route and a status; a gateway that is sound has some hundred."""

IDLE_S = 3_600.0
MOST_TALLIES = 25_000
"""Tallies in the history, one for each series with a request in a step: 15 minutes of 138 series that all get requests in each step.
With more of them the history is shorter. One of 50 requests takes 1.9 KB, so the history takes about 50 MB at most, and as a rule a few.
Sums have more distinct latencies and take up to 10 KB, the most series 40 MB."""

Kind = TypeVar("Kind", bound=Hashable)
Where = Callable[[SeriesKey], bool]


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of requests in a window. What cannot be said is None: shares and times without a request, rates without a report of the
    gateway, which is silent or being replaced.

    Attributes:
        requests: how many there were, as far as the gateway has reported.
        errors: answers with a 5xx status, the model's own included.
        client_errors: answers with a 4xx status.
        fallbacks: requests that a fallback answered with a status below 400.
        covered_s: the seconds that the gateway's reports cover.
        p50_ms, p99_ms: from the start of deciding to the last byte of the answer, exact to 5 %.
        last_at: when the last request was, in Unix seconds to a second.
    """

    requests: int = 0
    errors: int = 0
    client_errors: int = 0
    fallbacks: int = 0
    covered_s: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    last_at: float | None = None

    @property
    def requests_per_s(self) -> float | None:
        """By the time that the reports cover: a gateway that was silent, and then reports all at once, shows no peak."""
        return self.requests / self.covered_s if self.covered_s else None

    @property
    def error_share(self) -> float | None:
        return self.errors / self.requests if self.requests else None

    @property
    def fallback_share(self) -> float | None:
        return self.fallbacks / self.requests if self.requests else None


class TrafficSeries(NamedTuple):
    """Figures of consecutive steps of `step_s` seconds, the oldest first; the last step ends at `end` (Unix seconds). A step that the
    gateway reported nothing of has None."""

    step_s: int
    end: int
    requests_per_s: list[float | None]
    error_share: list[float | None]
    p50_ms: list[float | None]
    p99_ms: list[float | None]


@dataclass(slots=True)
class _Step:
    """The reports that came in one step: the series, and the seconds that the reports cover."""

    number: int
    covered_s: float = 0.0
    series: dict[SeriesKey, Tally] = field(default_factory=dict)
    # Sums by objective, and of all (None), for the views that are asked for each second.
    sums: dict[str | None, Tally] = field(default_factory=dict)
    figures: dict[str | None, Figures] = field(default_factory=dict)

    def sum_of(self, objective: str | None) -> Tally:
        if not self.sums and self.series:
            self.sums = {None: Tally()}
            for key, tally in self.series.items():
                self.sums[None].add(tally)
                self.sums.setdefault(key.objective, Tally()).add(tally)
        return self.sums.get(objective) or Tally()

    def figures_of(self, objective: str | None) -> Figures:
        found = self.figures.get(objective)
        if found is None:
            found = self.figures[objective] = _figures(self.sum_of(objective), self.covered_s)
        return found


class TrafficHistory:
    """Adds up what gateways report. All times are Unix seconds; a clock that is set back changes nothing but the times shown.

    A window is of whole steps: `window_s` rounded up to steps, the present one included, which has only begun.
    """

    def __init__(self) -> None:
        self._sums: dict[SeriesKey, Tally] = {}
        # The key of each series once, as those of a report are objects of their own.
        self._keys: dict[SeriesKey, SeriesKey] = {}
        self._steps: deque[_Step] = deque()
        self._tallies = 0
        self._routes: dict[RouteKey, Durations] = {}
        self._looked_for_idle_at = -math.inf

    def add(self, deltas: Any, covered_s: float, now: float) -> list[tuple[SeriesKey, Tally]]:
        """Add a report, which need not be trusted, and return what it holds.

        Args:
            deltas: what `TrafficCounter.take` returned, read from JSON.
            covered_s: the seconds in which this was counted: since the report before, or since the gateway's process started.
            now: the time.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: the report is malformed; then nothing of it is counted.
        """
        if not 0.0 <= covered_s < math.inf or len(deltas) > MOST_SERIES + 1:
            raise ValueError("a report has too many series, or covers no time")
        found = [(series_from(key), Tally.from_dict(tally)) for key, tally in deltas]
        step = self._step(now)
        step.covered_s += covered_s
        step.sums.clear()
        step.figures.clear()
        for reported, tally in found:
            key = self._keys.get(reported) or self._key_of_new(reported, now)
            self._sums[key].add(tally)
            in_step = step.series.get(key)
            if in_step is None:
                step.series[key] = in_step = Tally()
                self._tallies += 1
            in_step.add(tally)
        while self._tallies > MOST_TALLIES and len(self._steps) > 1:
            self._forget_oldest()
        return found

    def add_routes(self, found: Any) -> None:
        """Add what `TrafficCounter.take_routes` returned, read from JSON. Raises `ValueError` or `TypeError`: it is malformed."""
        for key, durations in [(route_from(key), Durations.from_list(value)) for key, value in found]:
            if key in self._routes or len(self._routes) < MOST_ROUTES:
                self._routes.setdefault(key, Durations()).add(durations)

    def routes(self) -> Mapping[RouteKey, Durations]:
        """Return the requests of callers since the start of the stack, decided or not."""
        return self._routes

    def sums(self) -> Mapping[SeriesKey, Tally]:
        """Return the sums of each series since the start of the stack. They do not fall when the gateway is replaced."""
        return self._sums

    def figures(self, window_s: float, now: float, objective: str | None = None) -> Figures:
        """Return the figures of one objective, or of all."""
        total, covered_s = Tally(), 0.0
        for step in self._window(window_s, now):
            covered_s += step.covered_s
            total.add(step.sum_of(objective))
        return _figures(total, covered_s)

    def by_objective(self, window_s: float, now: float) -> dict[str, Figures]:
        """Return the figures of each objective with a request in the window."""
        totals: dict[str, Tally] = {}
        covered_s = 0.0
        for step in self._window(window_s, now):
            covered_s += step.covered_s
            step.sum_of(None)
            for objective, tally in step.sums.items():
                if objective is not None:
                    totals.setdefault(objective, Tally()).add(tally)
        return {objective: _figures(tally, covered_s) for objective, tally in totals.items()}

    def by(
        self,
        kind_of: Callable[[SeriesKey], Kind],
        window_s: float,
        now: float,
        where: Where = lambda _: True,
        since: float = 0.0,
    ) -> dict[Kind, Figures]:
        """Return the figures of each kind of series with a request in the window, in steps that began at `since` or later::

        history.by(lambda key: (key.rule, key.variant), 900, now, lambda key: key.objective == "title_ranking")
        history.by(lambda key: (key.model, key.version), 60, now)
        """
        totals: dict[Kind, Tally] = {}
        covered_s = 0.0
        for step in self._window(window_s, now):
            if step.number * STEP_S < since:
                continue
            covered_s += step.covered_s
            for key, tally in step.series.items():
                if where(key):
                    totals.setdefault(kind_of(key), Tally()).add(tally)
        return {kind: _figures(tally, covered_s) for kind, tally in totals.items()}

    def series(self, now: float, objective: str | None = None, window_s: float = KEPT_S) -> TrafficSeries:
        """Return the figures of each step of one objective, or of all, for a chart; the present step, which has only begun, is left
        out."""
        last = self._number(now) - 1
        first = last - math.ceil(window_s / STEP_S) + 1
        steps = {step.number: step for step in self._steps if first <= step.number <= last}
        found = [
            None if step is None or not step.covered_s else step.figures_of(objective)
            for step in map(steps.get, range(first, last + 1))
        ]
        return TrafficSeries(
            STEP_S,
            (last + 1) * STEP_S,
            [None if each is None else each.requests_per_s for each in found],
            [None if each is None else each.error_share for each in found],
            [None if each is None else each.p50_ms for each in found],
            [None if each is None else each.p99_ms for each in found],
        )

    def last_at(self, kind_of: Callable[[SeriesKey], Kind]) -> dict[Kind, float]:
        """Return when the last request of each kind of series was, in Unix seconds, since the start of the stack."""
        found: dict[Kind, float] = {}
        for key, tally in self._sums.items():
            kind = kind_of(key)
            found[kind] = max(found.get(kind, 0.0), tally.last_at)
        return found

    def _number(self, now: float) -> int:
        number = int(now // STEP_S)
        return max(number, self._steps[-1].number) if self._steps else number

    def _step(self, now: float) -> _Step:
        number = self._number(now)
        if not self._steps or self._steps[-1].number < number:
            self._steps.append(_Step(number))
        while self._steps[0].number <= number - STEPS - 1:
            self._forget_oldest()
        return self._steps[-1]

    def _window(self, window_s: float, now: float) -> Iterator[_Step]:
        first = self._number(now) - math.ceil(window_s / STEP_S) + 1
        return (step for step in self._steps if step.number >= first)

    def _forget_oldest(self) -> None:
        self._tallies -= len(self._steps.popleft().series)

    def _key_of_new(self, key: SeriesKey, now: float) -> SeriesKey:
        if len(self._sums) >= MOST_SERIES and now - self._looked_for_idle_at >= STEP_S:
            self._looked_for_idle_at = now
            for idle in [each for each, tally in self._sums.items() if tally.last_at < now - IDLE_S and each != OTHER]:
                self._sums.setdefault(OTHER, Tally()).add(self._sums.pop(idle))
                del self._keys[idle]
        if len(self._sums) >= MOST_SERIES:
            key = OTHER
        self._sums.setdefault(key, Tally())
        return self._keys.setdefault(key, key)


def _figures(tally: Tally, covered_s: float) -> Figures:
    p50_s, p99_s = tally.took.percentile_s(0.5), tally.took.percentile_s(0.99)
    return Figures(
        tally.requests,
        tally.server_errors,
        tally.client_errors,
        tally.fallbacks,
        covered_s,
        None if p50_s is None else p50_s * 1000.0,
        None if p99_s is None else p99_s * 1000.0,
        tally.last_at or None,
    )
