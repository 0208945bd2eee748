"""What the console asks of whatever counted the requests: a stack's own history, or the metrics of a deployment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tidegate.console.traffic import Figures, TrafficHistory, TrafficSeries
from tidegate.ports.traffic import SeriesKey


@dataclass(frozen=True, slots=True)
class RuleFigures:
    """The requests that a rule decided, and those of each variant of its split or cell of its experiment, by its name."""

    whole: Figures = Figures()  # noqa: RUF009  # immutable
    variants: Mapping[str, Figures] = field(default_factory=dict)


class TrafficReads(Protocol):
    """Reads what was counted. Each method may raise `StoreError`."""

    async def whole(self, window_s: float) -> Figures:
        """Return the figures of all requests of the last `window_s` seconds."""

    async def objectives(self, window_s: float) -> Mapping[str, Figures]:
        """Return the figures of each objective that had a request."""

    async def rules(self, objective: str, window_s: float, since: float = 0.0) -> Mapping[str, RuleFigures]:
        """Return the figures of each rule of an objective that decided a request, none of which was before `since` (Unix seconds)."""

    async def models(self, window_s: float) -> Mapping[str, Figures]:
        """Return the figures of each model that answered a request itself, and not as the step of an ensemble."""

    async def history(self, objective: str | None = None) -> TrafficSeries:
        """Return the history of an objective, or of all requests."""

    async def last_at(self) -> Mapping[tuple[str, str], float] | None:
        """Return when each rule decided a request last, in Unix seconds, by objective and rule; None: unknown."""


class HistoryReads:
    """A `TrafficReads` of the history in this process, which `history` returns."""

    def __init__(self, history: Callable[[], TrafficHistory], clock: Callable[[], float] = time.time) -> None:
        self._history = history
        self._clock = clock

    async def whole(self, window_s: float) -> Figures:
        return self._history().figures(window_s, self._clock())

    async def objectives(self, window_s: float) -> Mapping[str, Figures]:
        return self._history().by_objective(window_s, self._clock())

    async def rules(self, objective: str, window_s: float, since: float = 0.0) -> Mapping[str, RuleFigures]:
        history, now = self._history(), self._clock()

        def is_own(key: SeriesKey) -> bool:
            return key.objective == objective

        wholes = history.by(lambda key: key.rule, window_s, now, is_own, since)
        variants: dict[str, dict[str, Figures]] = {}
        by_variant = history.by(lambda key: (key.rule, key.variant), window_s, now, is_own, since)
        for (rule, variant), figures in by_variant.items():
            variants.setdefault(rule, {})[variant] = figures
        return {rule: RuleFigures(whole, variants.get(rule, {})) for rule, whole in wholes.items()}

    async def models(self, window_s: float) -> Mapping[str, Figures]:
        return self._history().by(lambda key: key.model, window_s, self._clock())

    async def history(self, objective: str | None = None) -> TrafficSeries:
        return self._history().series(self._clock(), objective)

    async def last_at(self) -> Mapping[tuple[str, str], float]:
        return self._history().last_at(lambda key: (key.objective, key.rule))


def figures_json(figures: Figures) -> dict[str, Any]:
    """Return the shares and the latencies, as each answer with figures has them."""
    return {
        "error_share": figures.error_share,
        "fallback_share": figures.fallback_share,
        "p50_ms": figures.p50_ms,
        "p99_ms": figures.p99_ms,
    }
