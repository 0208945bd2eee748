"""A value strictly between two others of an ordered type, to stand for a piece of its number line."""

from __future__ import annotations

import math
from typing import Any

from tidegate.rules.conditions import comparable
from tidegate.rules.contract import AttributeType
from tidegate.rules.values import accepts, version_key


def value_between(kind: AttributeType, low: Any, high: Any) -> Any:
    """A value strictly between two bounds (None: no bound), or None where there is none.

    Args:
        kind: `integer`, `number` or `version`.
        low: the lower bound, of that type.
        high: the upper bound.
    """
    candidates: list[Any]
    match kind:
        case "integer":
            candidates = [low + 1 if low is not None else high - 1 if high is not None else 0]
        case "number":
            candidates = _numbers(low, high)
        case _:
            candidates = _versions(low, high)
    above, below = (None if bound is None else comparable(kind, bound) for bound in (low, high))
    for candidate in candidates:
        if accepts(kind, candidate):
            key = comparable(kind, candidate)
            if (above is None or key > above) and (below is None or key < below):
                return candidate
    return None


def _numbers(low: float | None, high: float | None) -> list[float]:
    if low is None:
        return [0] if high is None else [math.ceil(high) - 1, math.nextafter(float(high), -math.inf)]
    middle = [] if high is None else [low / 2 + high / 2]
    return [math.floor(low) + 1, *middle, math.nextafter(float(low), math.inf)]


def _versions(low: str | None, high: str | None) -> list[str]:
    # The lowest of all is 0-0, and next above a pre-release stands the same with `.0` appended. Above a release there is
    # always another before any later version, with enough zeros.
    if low is None:
        return ["0-0"]
    release, is_early, early = low.partition("+")[0].partition("-")
    if is_early:
        return [f"{release}-{early}.0"]
    zeros = 0 if high is None else len(version_key(high)[0])
    return [f"{release}{'.0' * zeros}.1-0"]
