"""The counted shares of splits and experiments: Wilson's interval, and the chi-square test against the configured shares.

It uses only the standard library, since scipy has 100 MB for two formulas; tests compare the results with scipy's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from math import ceil, erfc, exp, lgamma, log, sqrt
from typing import Any

from tidegate.analysis.replay.races import Race, RaceKind
from tidegate.analysis.replay.tally import Counted

Z_95 = 1.959963984540054
"""The 97.5 % point of the standard normal distribution."""

LEAST_EXPECTED = 5.0
"""Below this expected count in any variant the chi-square approximation is not trusted, and no test is made."""

MISMATCH_BELOW = 0.001
"""A p-value below this is called a mismatch (the customary bound: Kohavi, Tang, Xu, "Trustworthy Online Controlled
Experiments", 2020, chapter 21)."""


class Unit(StrEnum):
    """Members, or requests if members cannot be distinguished."""

    MEMBERS = "members"
    REQUESTS = "requests"


class Verdict(StrEnum):
    """Result of a test of shares. `SUSPECT` is a mismatch of requests: those of one member are not independent of each
    other, so they prove nothing."""

    MATCH = "match"
    MISMATCH = "mismatch"
    SUSPECT = "suspect"
    UNTESTED = "untested"


@dataclass(frozen=True, slots=True)
class ShareTest:
    """A chi-square test of observed counts against configured shares; `p_value` is 0–1. `statistic` is None where it is
    infinite: a variant of weight 0 was counted."""

    statistic: float | None
    degrees_of_freedom: int
    p_value: float


@dataclass(frozen=True, slots=True)
class VariantShare:
    """A variant's configured and counted share (0–1), with the 95 % interval of the latter. `count` is in the unit of its
    `Shares`."""

    variant: str
    weight: int
    requests: int
    count: int
    configured: float
    actual: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Shares:
    """The shares of one split or experiment. `untested` says why there is no test."""

    race: Race
    unit: Unit
    variants: tuple[VariantShare, ...]
    test: ShareTest | None
    untested: str | None

    @property
    def total(self) -> int:
        return sum(variant.count for variant in self.variants)

    @property
    def verdict(self) -> Verdict:
        if self.test is None:
            return Verdict.UNTESTED
        if self.test.p_value >= MISMATCH_BELOW:
            return Verdict.MATCH
        return Verdict.MISMATCH if self.unit is Unit.MEMBERS else Verdict.SUSPECT

    def words(self) -> str:
        """Return the counts, the test, and its verdict in one line."""
        counted = f"{self.race.words}, {self.total:,} {self.unit}: "
        test = self.test
        if test is None:
            return f"{counted}no test: {self.untested}"
        statistic = "infinite" if test.statistic is None else f"{test.statistic:.2f}"
        degrees = "1 degree" if test.degrees_of_freedom == 1 else f"{test.degrees_of_freedom} degrees"
        figures = f"chi-square {statistic}, {degrees} of freedom, p = {test.p_value:.3g}"
        match self.verdict:
            case Verdict.MISMATCH:
                return f"{counted}SAMPLE RATIO MISMATCH, {figures}"
            case Verdict.SUSPECT:
                return f"{counted}suspect, {figures}, but of requests, which are not independent of each other"
            case _:
                return f"{counted}as configured, {figures}"

    def as_dict(self) -> dict[str, Any]:
        race, is_split = self.race, self.race.kind is RaceKind.SPLIT
        return {
            "objective": race.objective,
            "rule": race.rule,
            "kind": "split" if is_split else "experiment",
            "experiment": race.experiment,
            "allocate": None if is_split else race.kind,
            "unit": self.unit,
            "count": self.total,
            "variants": [asdict(variant) for variant in self.variants],
            "verdict": self.verdict,
            "untested": self.untested,
            "test": None if self.test is None else asdict(self.test),
        }


def shares_of(race: Race, counted: Iterable[Counted]) -> Shares:
    found = {each.decision.variant: each for each in counted}
    unit = Unit.MEMBERS if race.sources else Unit.REQUESTS
    requests = [found[variant].requests if variant in found else 0 for variant in race.weights]
    counts = requests
    if unit is Unit.MEMBERS:
        counts = [found[variant].members if variant in found else 0 for variant in race.weights]
    weights, total = list(race.weights.values()), sum(counts)
    variants = []
    for variant, weight, seen, count in zip(race.weights, weights, requests, counts, strict=True):
        share = count / total if total else 0.0
        variants.append(VariantShare(variant, weight, seen, count, weight / sum(weights), share, *wilson(count, total)))
    test = share_test(counts, weights)
    return Shares(race, unit, tuple(variants), test, None if test is not None else _untested(weights, unit))


def _untested(weights: list[int], unit: Unit) -> str:
    positive = [weight for weight in weights if weight]
    if len(positive) < 2:
        return "a single variant has weight"
    needed = ceil(LEAST_EXPECTED * sum(positive) / min(positive))
    return f"too few {unit}: {needed} are needed"


def wilson(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share; (0, 1) where there is nothing to count.

    E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22, 1927,
    https://doi.org/10.1080/01621459.1927.10502953.
    """
    if total == 0:
        return 0.0, 1.0
    share, square = count / total, Z_95 * Z_95
    middle = share + square / (2 * total)
    half = Z_95 * sqrt(share * (1 - share) / total + square / (4 * total * total))
    scale = 1 + square / total
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def chi_square_tail(statistic: float, degrees: int) -> float:
    """Return the probability that a chi-square variable of 1 or more degrees is at least `statistic` (0 or more).

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
        return ShareTest(None, max(1, len(pairs) - 1), 0.0)
    total, whole = sum(count for count, _ in pairs), sum(weight for _, weight in pairs)
    expected = [total * weight / whole for _, weight in pairs]
    if min(expected) < LEAST_EXPECTED:
        return None
    statistic = sum((count - mean) ** 2 / mean for (count, _), mean in zip(pairs, expected, strict=True))
    return ShareTest(statistic, len(pairs) - 1, chi_square_tail(statistic, len(pairs) - 1))
