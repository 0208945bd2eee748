"""The statistics of a replay agree with scipy's, and members are counted once."""

from __future__ import annotations

import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st
from tidegate.analysis.replay.races import Members, prefix_of
from tidegate.analysis.replay.shares import LEAST_EXPECTED, chi_square_tail, share_test, wilson


@given(st.integers(1, 10**7).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_the_interval_is_wilsons(counted: tuple[int, int]) -> None:
    count, total = counted
    expected = scipy.stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert wilson(count, total) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


def test_nothing_counted_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(st.floats(0, 2000), st.integers(1, 60))
def test_the_tail_is_that_of_chi_square(statistic: float, degrees: int) -> None:
    assert chi_square_tail(statistic, degrees) == pytest.approx(
        float(scipy.stats.chi2.sf(statistic, degrees)), rel=1e-8, abs=1e-300
    )


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 100)), min_size=2, max_size=8))
def test_the_test_of_shares_is_pearsons_and_is_left_out_where_it_is_not_valid(pairs: list[tuple[int, int]]) -> None:
    counts, weights = zip(*pairs, strict=True)
    test = share_test(counts, weights)
    weighed = [(count, weight) for count, weight in pairs if weight]
    total, whole = sum(count for count, _ in weighed), sum(weight for _, weight in weighed)
    if any(count and not weight for count, weight in pairs):
        assert test is not None
        assert test.p_value == 0.0
    elif len(weighed) < 2 or total * min(weight for _, weight in weighed) < LEAST_EXPECTED * whole:
        assert test is None
    else:
        expected = scipy.stats.chisquare(
            [count for count, _ in weighed], [total * weight / whole for _, weight in weighed]
        )
        assert test is not None
        assert test.degrees_of_freedom == len(weighed) - 1
        assert test.statistic == pytest.approx(expected.statistic, rel=1e-9, abs=1e-9)
        assert test.p_value == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-300)


def test_each_member_of_each_rule_is_counted_once() -> None:
    """Half a million keys, all of them twice, of which a filter of this size takes fewer than one for another."""
    members = Members()
    one, other = prefix_of("ranking", "canary"), prefix_of("ranking", "canary-2")
    keys = [b"%d" % number for number in range(250_000)]
    assert sum(members.is_new(one, key) for key in keys) == len(keys)
    assert sum(members.is_new(other, key) for key in keys) == len(keys)
    assert not any(members.is_new(prefix, key) for prefix in (one, other) for key in keys)
