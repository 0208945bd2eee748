"""The exact law of two sticky choices over one key: pure arithmetic, and the real engine over 200 000 keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.analysis.compare.contests import coupled, independent, winners
from tidegate.rules.sticky import choose, prefix

from tests.analysis.compare.brute_force import same_draws

KEYS = [f"member-{number}" for number in range(200_000)]
STANDARD_DEVIATIONS = 4.5
"""A count of one pair is further from its mean than this with a probability of 7e-6; the keys are fixed, so this either
holds for good or never did."""

Weights = Mapping[str, int]
weights = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1000), min_size=1, max_size=5).filter(
    lambda drawn: any(drawn.values())
)


def moved(shares: Mapping[tuple[str, str], Fraction]) -> Fraction:
    return sum((share for (i, j), share in shares.items() if i != j), Fraction(0))


def difference(old: Weights, new: Weights) -> Fraction:
    """Half the sum of the differences of the shares: the least that can move."""
    before, after = winners(old), winners(new)
    names = before.keys() | after.keys()
    return sum((abs(before.get(name, Fraction(0)) - after.get(name, Fraction(0))) for name in names), Fraction(0)) / 2


@settings(deadline=None, derandomize=True)
@given(weights, weights)
def test_shares_add_up_on_both_sides_and_are_mirrored(old: Weights, new: Weights) -> None:
    shares = coupled(old, new)
    assert sum(shares.values()) == 1
    for side, expected in ((0, winners(old)), (1, winners(new))):
        summed: Counter[str] = Counter()
        for pair, share in shares.items():
            summed[pair[side]] += share  # type: ignore[assignment]
        assert summed == expected
    assert coupled(new, old) == {(j, i): share for (i, j), share in shares.items()}


@settings(deadline=None, derandomize=True)
@given(weights, weights)
def test_at_least_the_difference_moves_and_at_most_nearly_twice_as_much(old: Weights, new: Weights) -> None:
    least = difference(old, new)
    assert least <= moved(coupled(old, new)) <= 2 * least / (1 + least)


@settings(deadline=None, derandomize=True)
@given(weights, st.integers(2, 50))
def test_only_the_proportions_of_weights_count(old: Weights, factor: int) -> None:
    assert moved(coupled(old, {name: weight * factor for name, weight in old.items()})) == 0


@settings(deadline=None, derandomize=True)
@given(weights, weights)
def test_the_closed_form_is_the_integral(old: Weights, new: Weights) -> None:
    found = {pair: float(share) for pair, share in coupled(old, new).items()}
    assert found == pytest.approx(dict(same_draws(old, new)), abs=1e-9)


RAMPS: list[list[Weights]] = [
    [{"a": 99, "b": 1}, {"a": 95, "b": 5}, {"a": 50, "b": 50}],
    [{"a": 9900, "b": 100, "c": 0}, {"a": 9900, "b": 9900 * 5 // 95, "c": 0}, {"a": 9900, "b": 9900, "c": 0}],
    [{"a": 60, "b": 39, "c": 1}, {"a": 60, "b": 39, "c": 5}, {"a": 60, "b": 39, "c": 99}],
    [{"a": 98, "b": 1, "c": 1}, {"a": 90, "b": 5, "c": 5}, {"a": 2, "b": 49, "c": 49}],
    [{"a": 70, "b": 20, "c": 9, "d": 1}, {"a": 70, "b": 20, "c": 9, "d": 6}, {"a": 70, "b": 20, "c": 9, "d": 99}],
]


@pytest.mark.parametrize("steps", RAMPS)
def test_a_ramp_moves_exactly_the_difference_and_nobody_back(steps: list[Weights]) -> None:
    rising = {name for name in steps[0] if winners(steps[-1]).get(name, 0) > winners(steps[0]).get(name, 0)}
    for old, new in pairwise(steps):
        shares = coupled(old, new)
        assert moved(shares) == difference(old, new)
        assert {j for i, j in shares if i != j} <= rising
        assert not {i for i, j in shares if i != j} & rising


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"champion": 99, "canary": 1}, {"champion": 50, "canary": 50}),
        ({"a": 60, "b": 30, "c": 10}, {"a": 20, "b": 30, "c": 25, "d": 25}),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, {"a": 4, "b": 3, "c": 2, "d": 0}),
    ],
)
def test_counting_with_the_engines_choice_agrees(old: Weights, new: Weights) -> None:
    expected = coupled(old, new)
    counted = Counter((pick("s", old, key), pick("s", new, key)) for key in KEYS)
    check_counts(counted, expected)


def test_a_new_salt_makes_old_and_new_independent() -> None:
    old, new = {"a": 90, "b": 10}, {"a": 80, "b": 10, "c": 10}
    counted = Counter((pick("objective/rule", old, key), pick("objective/rule-2", new, key)) for key in KEYS)
    check_counts(counted, independent(old, new))


def pick(salt: str, variants: Weights, key: str) -> str:
    names = list(variants)
    return names[choose([(prefix(salt, name), variants[name]) for name in names], key.encode())]


def check_counts(counted: Counter[tuple[str, str]], expected: Mapping[tuple[str, str], Fraction]) -> None:
    assert counted.keys() <= expected.keys()
    for pair, share in expected.items():
        mean = float(share) * len(KEYS)
        assert abs(counted[pair] - mean) <= STANDARD_DEVIATIONS * sqrt(mean * (1 - float(share))), pair
