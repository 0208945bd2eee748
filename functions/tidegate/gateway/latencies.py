"""Percentiles of a target's recent latencies, by which its requests are hedged."""

from __future__ import annotations

import math
from typing import Final

WINDOW: Final = 1000
"""Latencies in a window. Percentiles are of the last full window and the one under way: of the last 1000 to 2000 latencies."""

ENOUGH: Final = 100
"""Latencies before the first percentile: of fewer, the largest ones are chance."""

_LEAST_S: Final = 1e-4
_GROWTH: Final = 1.04
_BUCKETS: Final = 354
"""From 0.1 ms to 100 s; both outermost buckets are open."""

_PER_LOG: Final = 1.0 / math.log(_GROWTH)
_FRESH: Final = 20
"""Latencies after which a percentile is computed again."""


class Latencies:
    """Counts latencies in buckets, each 4 % wider than the one before, so that any percentile is exact to 4 %.

    This is the sketch of Masson et al., "DDSketch" (VLDB 2019), https://arxiv.org/abs/1908.10693, over two windows instead
    of all time, since models and load change. Its size is fixed: two lists of 354 counts.
    """

    __slots__ = ("_before", "_computed", "_counted", "_counts", "_total")

    def __init__(self) -> None:
        self._before = [0] * _BUCKETS
        self._counts = [0] * _BUCKETS
        self._counted = 0
        self._total = 0
        self._computed: dict[float, float] = {}

    def record(self, took_s: float) -> None:
        """Count a latency, or the time after which a request was given up, if that is above the percentile of interest."""
        if self._counted >= WINDOW:
            self._before, self._counts = self._counts, [0] * _BUCKETS
            self._total, self._counted = self._counted, 0
        index = math.ceil(math.log(took_s / _LEAST_S) * _PER_LOG) if took_s > _LEAST_S else 0
        self._counts[min(index, _BUCKETS - 1)] += 1
        self._counted += 1
        self._total += 1
        if self._counted % _FRESH == 0:
            self._computed.clear()

    def percentile_s(self, share: float) -> float | None:
        """Return the latency that `share` (0–1) of the requests do not exceed, in seconds; None before there are enough."""
        if self._total < ENOUGH:
            return None
        found = self._computed.get(share)
        if found is None:
            found = self._computed[share] = self._compute(share)
        return found

    def _compute(self, share: float) -> float:
        left = share * self._total
        for index in range(_BUCKETS):
            left -= self._before[index] + self._counts[index]
            if left <= 0.0:
                return _LEAST_S * _GROWTH**index
        return _LEAST_S * _GROWTH ** (_BUCKETS - 1)
