"""The statistics of a replay: Wilson's interval and the chi-square test of shares.

By the standard library alone, as scipy weighs 100 MB for two formulas; tests hold them against scipy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import erfc, exp, lgamma, log, sqrt

Z_95 = 1.959963984540054
"""The 97.5 % point of the standard normal distribution."""

LEAST_EXPECTED = 5.0
"""Below this expected count in any variant the chi-square approximation is not trusted, and no test is made."""


@dataclass(frozen=True, slots=True)
class ShareTest:
    """A chi-square test of observed counts against configured shares; `p_value` is 0–1."""

    statistic: float
    degrees: int
    p_value: float


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share (E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical
    Inference", JASA 22, 1927, https://doi.org/10.1080/01621459.1927.10502953); (0, 1) where there is nothing to count."""
    if total == 0:
        return 0.0, 1.0
    share, square = count / total, Z_95 * Z_95
    middle = share + square / (2 * total)
    half = Z_95 * sqrt(share * (1 - share) / total + square / (4 * total * total))
    scale = 1 + square / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def chi_square_tail(statistic: float, degrees: int) -> float:
    """The probability that a chi-square variable is at least `statistic` (0 or more), for 1 or more degrees of freedom.

    For whole degrees the upper incomplete gamma function is a finite sum
    (https://dlmf.nist.gov/8.4#E10, https://dlmf.nist.gov/8.8#E2).
    """
    half = statistic / 2
    if half <= 0:
        return 1.0
    total, start = (erfc(sqrt(half)), 0.5) if degrees % 2 else (0.0, 0.0)
    for step in range(degrees // 2):
        order = start + step
        total += exp(-half + order * log(half) - lgamma(order + 1))
    return min(1.0, total)


def share_test(counts: Sequence[int], weights: Sequence[int]) -> ShareTest | None:
    """Test counts against weights; None where there is too little to test, or a single variant.

    A variant of weight 0 expects nothing and is left out, unless it was counted: then the shares cannot be right, and
    the p-value is 0.
    """
    pairs = [(count, weight) for count, weight in zip(counts, weights, strict=True) if weight]
    stray = sum(counts) - sum(count for count, _ in pairs)
    if len(pairs) < 2 and not stray:
        return None
    if stray:
        return ShareTest(float("inf"), max(1, len(pairs) - 1), 0.0)
    total, whole = sum(count for count, _ in pairs), sum(weight for _, weight in pairs)
    expected = [total * weight / whole for _, weight in pairs]
    if min(expected) < LEAST_EXPECTED:
        return None
    statistic = sum((count - mean) ** 2 / mean for (count, _), mean in zip(pairs, expected, strict=True))
    return ShareTest(statistic, len(pairs) - 1, chi_square_tail(statistic, len(pairs) - 1))
