"""The traffic of a deployment, from the metrics that its gateway's function emits with `TIDEGATE_RULE_METRICS`."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from tidegate.aws.metric_reads import MetricReads, Statistic, Values, Wanted
from tidegate.aws.telemetry import NO_VARIANT
from tidegate.console.traffic import Figures, TrafficSeries
from tidegate.console.traffic_reads import RuleFigures
from tidegate.metrics import BY_OBJECTIVE, BY_RULE, Dimension, Metric

FUNCTION = "gateway"
MINUTE_S = 60
HISTORY_MINUTES = 15
LONGEST_MINUTES = 180
"""A longer window is cut to this: CloudWatch lists which series there are of three hours alone."""

DELAY_S = 60
"""The newest minute that is shown ended so long ago: a line of the log is counted some seconds after it was written."""

_WHOLE = (Dimension.SERVICE,)

_STATISTICS = (
    (Metric.DISPATCH_TIME, Statistic.COUNT),
    (Metric.SERVER_ERRORS, Statistic.SUM),
    (Metric.FALLBACKS, Statistic.SUM),
    (Metric.DISPATCH_TIME, Statistic.P50),
    (Metric.DISPATCH_TIME, Statistic.P99),
)


class CloudWatchTraffic:
    """A `TrafficReads`. Each window is read once a minute, however many viewers there are. Times are from the decision to the answer.

    The percentiles of several series cannot be known from those of each: a rule whose requests went to several variants or models has
    none. Client errors, and when the last request was, are not known either.
    """

    def __init__(self, reads: MetricReads, clock: Callable[[], float] = time.time) -> None:
        self._reads = reads
        self._clock = clock
        self._kept: dict[Any, asyncio.Task[Any]] = {}
        self._kept_until = 0

    async def whole(self, window_s: float) -> Figures:
        """See `TrafficReads.whole`. An error before a rule was decided is in no figure."""
        found = await self.objectives(window_s)
        times = (await self._figures(_WHOLE, window_s)).get((), Figures())
        return replace(_together(found.values()), p50_ms=times.p50_ms, p99_ms=times.p99_ms)

    async def objectives(self, window_s: float) -> Mapping[str, Figures]:
        """See `TrafficReads.objectives`."""
        return {name: figures for (name,), figures in (await self._figures(BY_OBJECTIVE, window_s)).items()}

    async def rules(self, objective: str, window_s: float, since: float = 0.0) -> Mapping[str, RuleFigures]:
        """See `TrafficReads.rules`."""
        minutes = (self._end_s() - since) // MINUTE_S
        if minutes < 1:
            return {}
        window_s = min(window_s, minutes * MINUTE_S)
        by_rule: dict[str, dict[str, list[Figures]]] = defaultdict(lambda: defaultdict(list))
        for (name, rule, variant, _model), figures in (await self._figures(BY_RULE, window_s)).items():
            if name == objective:
                by_rule[rule][variant].append(figures)
        return {
            rule: RuleFigures(
                _together(each for found in variants.values() for each in found),
                {name: _together(found) for name, found in variants.items() if name != NO_VARIANT},
            )
            for rule, variants in by_rule.items()
        }

    async def models(self, window_s: float) -> Mapping[str, Figures]:
        """See `TrafficReads.models`."""
        by_model: dict[str, list[Figures]] = defaultdict(list)
        for (_objective, _rule, _variant, model), figures in (await self._figures(BY_RULE, window_s)).items():
            by_model[model].append(figures)
        return {model: _together(found) for model, found in by_model.items()}

    async def history(self, objective: str | None = None) -> TrafficSeries:
        """See `TrafficReads.history`. Its steps are minutes."""
        end_s = self._end_s()
        minutes: Mapping[tuple[Metric, Statistic, str | None], Mapping[int, float]]
        minutes = await self._once(("history", end_s), lambda: self._minutes(end_s))
        starts = range(end_s - HISTORY_MINUTES * MINUTE_S, end_s, MINUTE_S)

        def one(metric: Metric, statistic: Statistic, minute: int) -> float | None:
            return minutes.get((metric, statistic, objective), {}).get(minute)

        def summed(metric: Metric, statistic: Statistic, minute: int) -> float:
            return sum(
                values.get(minute, 0.0)
                for (other, of_it, name), values in minutes.items()
                if (other, of_it) == (metric, statistic) and (name == objective if objective else name is not None)
            )

        counts = [summed(Metric.DISPATCH_TIME, Statistic.COUNT, minute) for minute in starts]
        errors = [summed(Metric.SERVER_ERRORS, Statistic.SUM, minute) for minute in starts]
        return TrafficSeries(
            MINUTE_S,
            end_s,
            [count / MINUTE_S for count in counts],
            [error / count if count else None for error, count in zip(errors, counts, strict=True)],
            [one(Metric.DISPATCH_TIME, Statistic.P50, minute) for minute in starts],
            [one(Metric.DISPATCH_TIME, Statistic.P99, minute) for minute in starts],
        )

    async def last_at(self) -> None:
        """See `TrafficReads.last_at`: unknown."""

    async def _figures(self, dimensions: tuple[Dimension, ...], window_s: float) -> Mapping[tuple[str, ...], Figures]:
        """Return the figures of each series with these dimensions, by their values without the function's."""
        minutes = min(max(math.ceil(window_s / MINUTE_S), 1), LONGEST_MINUTES)
        end_s = self._end_s()
        found: Mapping[tuple[str, ...], Figures] = await self._once(
            (dimensions, minutes, end_s), lambda: self._read(dimensions, minutes * MINUTE_S, end_s)
        )
        return found

    async def _read(
        self, dimensions: tuple[Dimension, ...], window_s: int, end_s: int
    ) -> Mapping[tuple[str, ...], Figures]:
        series = await self._series_of(dimensions, end_s)
        wanted = [Wanted(metric, each, statistic) for each in series for metric, statistic in _STATISTICS]
        values = await self._reads.read(wanted, end_s - window_s, end_s, window_s)

        def figures(of: Values) -> Figures:
            requests, errors, fallbacks, p50_ms, p99_ms = (
                values[Wanted(metric, of, statistic)] for metric, statistic in _STATISTICS
            )
            return Figures(
                requests=int(sum(requests.values())),
                errors=int(sum(errors.values())),
                fallbacks=int(sum(fallbacks.values())),
                covered_s=float(window_s),
                p50_ms=max(p50_ms.values(), default=None),
                p99_ms=max(p99_ms.values(), default=None),
            )

        found = {_named(dimensions, each): figures(each) for each in series}
        return {name: each for name, each in found.items() if each.requests}

    async def _minutes(self, end_s: int) -> Mapping[tuple[Metric, Statistic, str | None], Mapping[int, float]]:
        """Return the statistics by minute of each objective, and of all requests (None)."""
        whole, objectives = await self._series_of(_WHOLE, end_s), await self._series_of(BY_OBJECTIVE, end_s)
        statistics = [each for each in _STATISTICS if each[0] is not Metric.FALLBACKS]
        wanted = [Wanted(metric, each, statistic) for each in (*whole, *objectives) for metric, statistic in statistics]
        start_s = end_s - HISTORY_MINUTES * MINUTE_S
        values = await self._reads.read(wanted, start_s, end_s, MINUTE_S)
        return {
            (each.metric, each.statistic, dict(each.series).get(Dimension.OBJECTIVE)): found
            for each, found in values.items()
        }

    async def _series_of(self, dimensions: tuple[Dimension, ...], end_s: int) -> list[Values]:
        listed: list[Values] = await self._once(
            ("series", end_s), lambda: self._reads.series(Metric.DISPATCH_TIME, FUNCTION)
        )
        return [each for each in listed if {name for name, _ in each} == set(dimensions)]

    def _end_s(self) -> int:
        return int((self._clock() - DELAY_S) // MINUTE_S) * MINUTE_S

    async def _once(self, key: Any, read: Callable[[], Awaitable[Any]]) -> Any:
        """Return what was read in this minute, or read it; callers that ask meanwhile wait for the same."""
        end_s = self._end_s()
        if end_s != self._kept_until:
            self._kept_until = end_s
            self._kept.clear()
        task = self._kept.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._kept[key] = asyncio.ensure_future(read())
        return await asyncio.shield(task)


def _named(dimensions: tuple[Dimension, ...], series: Values) -> tuple[str, ...]:
    values = dict(series)
    return tuple(values[each] for each in dimensions if each is not Dimension.SERVICE)


def _together(parts: Iterable[Figures]) -> Figures:
    """Add figures up."""
    found = [each for each in parts if each.requests]
    if len(found) == 1:
        return found[0]
    if not found:
        return Figures()
    return Figures(
        requests=sum(each.requests for each in found),
        errors=sum(each.errors for each in found),
        fallbacks=sum(each.fallbacks for each in found),
        covered_s=found[0].covered_s,
    )
