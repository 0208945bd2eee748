"""What the console asks of whatever counted the requests: a stack's own history, or the metrics of a deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Figures:
    """Decided requests of a window. Latencies are in milliseconds, `last_at` in Unix seconds; None: unknown, or no request.

    `errors` are the requests that no target answered soundly, `fallbacks` those that another target than the decided one answered.
    """

    requests: int = 0
    errors: int = 0
    fallbacks: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    last_at: float | None = None

    @property
    def error_share(self) -> float | None:
        return self.errors / self.requests if self.requests else None

    @property
    def fallback_share(self) -> float | None:
        return self.fallbacks / self.requests if self.requests else None

    def as_dict(self) -> dict[str, Any]:
        """Return the shares and the latencies, as each answer with figures has them."""
        return {
            "error_share": self.error_share,
            "fallback_share": self.fallback_share,
            "p50_ms": self.p50_ms,
            "p99_ms": self.p99_ms,
        }


@dataclass(frozen=True, slots=True)
class RuleFigures:
    """The requests that a rule decided, and those of each variant of its split or cell of its experiment, by its name."""

    whole: Figures = Figures()
    variants: Mapping[str, Figures] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class History:
    """A figure for each step of `step_s` seconds, the oldest first; the last step ended at `end` (Unix seconds)."""

    step_s: float
    end: float
    requests_per_s: Sequence[float]
    error_share: Sequence[float | None]
    p50_ms: Sequence[float | None]
    p99_ms: Sequence[float | None]

    def as_dict(self) -> dict[str, Any]:
        return {
            "step_s": self.step_s,
            "end": self.end,
            "requests_per_s": list(self.requests_per_s),
            "error_share": list(self.error_share),
            "p50_ms": list(self.p50_ms),
            "p99_ms": list(self.p99_ms),
        }


class TrafficReads(Protocol):
    """Reads what was counted. Each method may raise `StoreError`."""

    @property
    def since(self) -> float | None:
        """Return when counting began, in Unix seconds; None: unknown."""

    async def whole(self, window_s: float) -> Figures:
        """Return the figures of all requests of the last `window_s` seconds."""

    async def objectives(self, window_s: float) -> Mapping[str, Figures]:
        """Return the figures of each objective that had a request."""

    async def rules(self, window_s: float) -> Mapping[tuple[str, str], RuleFigures]:
        """Return the figures of each rule that decided a request, by objective and rule."""

    async def models(self, window_s: float) -> Mapping[str, Figures]:
        """Return the figures of each model that answered a request itself, and not as the step of an ensemble."""

    async def history(self, objective: str | None = None) -> History:
        """Return the history of an objective, or of all requests."""
