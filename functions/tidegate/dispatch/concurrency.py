"""How many requests a place takes at one time: an adaptive limit, so that what waits, waits where it can be refused.

Triton works on everything that it was sent, also when nobody waits any more. So the requests under way are held near what
the model sustains. The limit follows the ratio of the latency of an idle model to the present one, as Envoy's gradient
controller does: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/adaptive_concurrency_filter.
"""

from __future__ import annotations

import math

LEAST = 4
"""The lowest limit: one request is computed, others are on their way to the model and from it."""

TOLERANCE = 2.0
SLACK_S = 0.010
"""Latency may reach `TOLERANCE` times the idle one, and `SLACK_S` more than it for fast models: batches take longer than
single requests, and a busy event loop sees answers late."""

WINDOW_S = 0.1
WINDOW_SAMPLES = 5
MOST_SAMPLES = 64
MEASURE_EVERY_S = 30.0
MEASURE_SAMPLES = 3
_EWMA = 0.125
_EWMA_DOWN = 0.25
"""The idle latency falls faster than it rises: the first requests of a model are often its slowest."""


class ConcurrencyLimit:
    """The limit of one place.

    Args:
        initial: the limit before anything was measured (at least 1).
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
        """How many requests may be under way now (at least 1).

        A measurement holds the others back for a bounded time, also when the one request that is under way never ends.
        """
        is_measuring = self._measuring_until_s is not None and now_s < self._measuring_until_s
        return 1 if is_measuring else int(self._limit)

    @property
    def sustained(self) -> int:
        """How many requests the place takes when it is not being measured."""
        return int(self._limit)

    @property
    def usual_s(self) -> float | None:
        """The latency of late, a moving average in seconds; None: no request has been answered yet."""
        return self._usual_s

    def sample(self, took_s: float, in_flight: int, now_s: float) -> None:
        """A request was answered after `took_s` seconds; `in_flight` were under way when it was sent, itself included."""
        usual_s = self._usual_s
        self._usual_s = took_s if usual_s is None else usual_s + _EWMA * (took_s - usual_s)
        if in_flight <= 1 or self._base_s is None:
            self._base_s = took_s if self._base_s is None else _toward(took_s, self._base_s)
        if self._measuring_until_s is not None:
            self._measure(took_s, in_flight, now_s)
            return
        self._peak = max(self._peak, in_flight)
        self._samples.append(took_s)
        count = len(self._samples)
        if count >= MOST_SAMPLES or (count >= WINDOW_SAMPLES and now_s - self._window_at_s >= WINDOW_S):
            self._update(now_s)

    def shrink(self, now_s: float) -> None:
        """The place is overloaded (its queue is full, or it is late): lower the limit, once in the time of a request."""
        if now_s - self._shrunk_at_s >= max(WINDOW_S, self._base_s or 0.0):
            self._shrunk_at_s = now_s
            self._limit = max(min(LEAST, self._most), self._limit * 0.7)

    def _update(self, now_s: float) -> None:
        assert self._base_s is not None
        present_s = sorted(self._samples)[len(self._samples) // 2]
        gradient = max(0.5, min(1.0, max(TOLERANCE * self._base_s, self._base_s + SLACK_S) / max(present_s, 1e-9)))
        limit = self._limit * gradient + math.sqrt(self._limit)
        is_used = self._peak >= self._limit / 2
        if is_used or limit < self._limit:
            self._limit = max(float(min(LEAST, self._most)), min(limit, float(self._most)))
        self._samples.clear()
        self._peak, self._window_at_s = 0, now_s
        if not is_used:
            # The idle latency is seen without asking for it.
            self._measure_at_s = max(self._measure_at_s, now_s + MEASURE_EVERY_S / 2)
        elif now_s >= self._measure_at_s:
            self._measured.clear()
            self._measuring_until_s = now_s + max(1.0, 4 * self._base_s)

    def _measure(self, took_s: float, in_flight: int, now_s: float) -> None:
        """Measure the idle latency again while one request at a time is sent: under steady load nothing else shows it."""
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


def _toward(took_s: float, base_s: float) -> float:
    return base_s + (_EWMA_DOWN if took_s < base_s else _EWMA) * (took_s - base_s)
