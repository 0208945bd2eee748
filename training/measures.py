"""Offline metrics: what they are compared with, and intervals of differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

RELATIVE_TOLERANCE = 0.05
ABSOLUTE_TOLERANCE = 0.01
"""Room for other processors' arithmetic; on one machine, builds are equal to the byte."""

RESAMPLES = 1000


def rounded(value: Any) -> float:
    """A metric as it is written down."""
    return round(float(value), 4)


def interval(
    size: int, difference: Callable[[npt.NDArray[np.intp]], float], resamples: int = RESAMPLES
) -> dict[str, float]:
    """The 95 % bootstrap interval of a paired difference.

    Args:
        size: how many cases were measured.
        difference: the difference measured over the cases of given indices.
    """
    random = np.random.default_rng(5)
    draws = [difference(random.integers(0, size, size)) for _ in range(resamples)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"low": rounded(low), "mean": rounded(difference(np.arange(size))), "high": rounded(high)}


def differences(measured: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Return a line for each metric of two sets that differs by more than its tolerance."""
    got, want = dict(_flat(measured)), dict(_flat(expected))
    lines = [f"{name}: not measured any more (was {want[name]})" for name in want.keys() - got.keys()]
    for name, value in got.items():
        if name not in want:
            lines.append(f"{name}: {value}, not recorded yet")
        elif not math.isclose(value, want[name], rel_tol=RELATIVE_TOLERANCE, abs_tol=ABSOLUTE_TOLERANCE):
            lines.append(f"{name}: {value}, recorded as {want[name]}")
    return sorted(lines)


def _flat(metrics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", float(value)
