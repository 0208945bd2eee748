"""An adaptive limit on the requests in flight at a place, so that requests queue in the gateway, which can refuse them.

Triton computes nearly every request that it was sent, even after its caller has left (docs/triton.md). So the limit keeps the
requests in flight near what the model sustains. It follows the ratio of the model's idle latency to its current one, as
Envoy's gradient controller does:
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/adaptive_concurrency_filter.
"""

from __future__ import annotations

import math
from typing import Final

LEAST: Final = 4
"""The lowest limit: while one request is computed, others are on their way to the model and back."""

TOLERANCE: Final = 2.0
SLACK_S: Final = 0.010
"""Latency may reach `TOLERANCE` times the idle latency, or `SLACK_S` above it for fast models: batches take longer than
single requests, and a busy event loop sees answers late."""

WINDOW_S: Final = 0.1
WINDOW_SAMPLES: Final = 5
MOST_SAMPLES: Final = 64
MEASURE_EVERY_S: Final = 30.0
MEASURE_SAMPLES: Final = 3
_EWMA: Final = 0.125
_EWMA_CUT_OFF: Final = 0.03
_EWMA_DOWN: Final = 0.25
"""The estimate of the idle latency falls faster than it rises: a model's first requests are often its slowest."""


class ConcurrencyLimit:
    """The limit of one place.

    Args:
        initial: the limit before any measurement (at least 1).
        most: the highest limit (at least 1).
        now_s: the time, in seconds of a clock that never runs backwards.
    """

    __slots__ = (
        "_base_s", "_limit", "_measure_at_s", "_measured", "_measuring_until_s", "_most", "_peak", "_samples",
        "_shrunk_at_s", "_usual_s", "_window_at_s",
    )  # fmt: skip

    def __init__(self, initial: int, most: int, now_s: float) -> None:
        self._most = most
        self._limit = float(min(initial, most))
        self._base_s: float | None = None
        self._usual_s: float | None = None
        self._samples: list[float] = []
        self._window_at_s = now_s
        self._peak = 0
        self._shrunk_at_s = now_s
        self._measure_at_s = now_s + MEASURE_EVERY_S
        self._measuring_until_s: float | None = None
        self._measured: list[float] = []

    def at(self, now_s: float) -> int:
        """Return how many requests may be in flight now (at least 1).

        While the idle latency is measured, the limit is 1. That time is bounded, in case the one request never ends.
        """
        is_measuring = self._measuring_until_s is not None and now_s < self._measuring_until_s
        return 1 if is_measuring else int(self._limit)

    @property
    def sustained(self) -> int:
        """The limit while the idle latency is not being measured."""
        return int(self._limit)

    @property
    def usual_s(self) -> float | None:
        """The recent latency, a moving average in seconds; None before the first answer."""
        return self._usual_s

    @property
    def idle_s(self) -> float | None:
        """The latency of the idle model, in seconds; None before the first answer."""
        return self._base_s

    def sample(self, took_s: float, in_flight: int, now_s: float) -> None:
        """Record a request that took `took_s` seconds. `in_flight` counts those in flight when it was sent, itself included."""
        usual_s = self._usual_s
        self._usual_s = took_s if usual_s is None else usual_s + _EWMA * (took_s - usual_s)
        if in_flight <= 1 or self._base_s is None:
            self._base_s = took_s if self._base_s is None else _toward(took_s, self._base_s)
        if self._measuring_until_s is not None:
            self._measure(took_s, in_flight, now_s)
            return
        self._peak = max(self._peak, in_flight)
        self._sampled(took_s, now_s)

    def _sampled(self, took_s: float, now_s: float) -> None:
        self._samples.append(took_s)
        count = len(self._samples)
        if count >= MOST_SAMPLES or (count >= WINDOW_SAMPLES and now_s - self._window_at_s >= WINDOW_S):
            self._update(now_s)

    def took_longer(self, waited_s: float, now_s: float) -> None:
        """Record a request that was cut off after `waited_s`. That says something if it is longer than usual; the usual time
        rises slowly by it, so that a model that hangs keeps its usual time until its breaker opens."""
        usual_s = self._usual_s
        if usual_s is None or waited_s <= usual_s:
            return
        self._usual_s = usual_s + _EWMA_CUT_OFF * (waited_s - usual_s)
        if self._measuring_until_s is None:
            self._sampled(waited_s, now_s)

    def shrink(self, now_s: float) -> None:
        """Lower the limit, as the place is overloaded: its queue is full, or it is late. At most once per idle latency."""
        if now_s - self._shrunk_at_s >= max(WINDOW_S, self._base_s or 0.0):
            self._shrunk_at_s = now_s
            self._limit = max(min(LEAST, self._most), self._limit * 0.7)

    def _update(self, now_s: float) -> None:
        assert self._base_s is not None
        present_s = sorted(self._samples)[len(self._samples) // 2]
        limit = next_limit(self._limit, max(TOLERANCE * self._base_s, self._base_s + SLACK_S), present_s)
        is_used = self._peak >= self._limit / 2
        if is_used or limit < self._limit:
            self._limit = max(float(min(LEAST, self._most)), min(limit, float(self._most)))
        self._samples.clear()
        self._peak, self._window_at_s = 0, now_s
        if not is_used:
            # At low load the samples show the idle latency without a measurement.
            self._measure_at_s = max(self._measure_at_s, now_s + MEASURE_EVERY_S / 2)
        elif now_s >= self._measure_at_s:
            self._measured.clear()
            self._measuring_until_s = now_s + max(1.0, 4 * self._base_s)

    def _measure(self, took_s: float, in_flight: int, now_s: float) -> None:
        """Measure the idle latency with one request in flight at a time: under steady load nothing else shows it."""
        assert self._base_s is not None
        assert self._measuring_until_s is not None
        if in_flight <= 1:
            self._measured.append(took_s)
        if len(self._measured) >= MEASURE_SAMPLES or now_s >= self._measuring_until_s:
            if self._measured:
                self._base_s = sorted(self._measured)[len(self._measured) // 2]
            self._measuring_until_s = None
            self._samples.clear()
            self._peak, self._window_at_s = 0, now_s
            self._measure_at_s = now_s + max(MEASURE_EVERY_S, 100 * self._base_s)


def next_limit(limit: float, allowed_s: float, present_s: float) -> float:
    """Return the limit after a window whose latency was `present_s`: lower if that was above `allowed_s`, with room to grow."""
    gradient = max(0.5, min(1.0, allowed_s / max(present_s, 1e-9)))
    return limit * gradient + math.sqrt(limit)


def _toward(took_s: float, base_s: float) -> float:
    return base_s + (_EWMA_DOWN if took_s < base_s else _EWMA) * (took_s - base_s)
