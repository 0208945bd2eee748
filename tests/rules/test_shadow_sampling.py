"""Which requests a shadow copies: the laws of its sampling, and frozen draws that analysts recompute."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .test_sticky import engine_of

KEYS = [f"member-{number}" for number in range(4_000)]


def sampled(rule: dict[str, Any], key: str | None) -> set[str]:
    """The shadows of the one rule of objective `o` that copy a request of a member."""
    engine = engine_of([rule])
    context = {} if key is None else {"member_id": key}
    found = engine.sampled(engine.decide("o", context, at=0.0), context, random.Random(7).random)
    return {shadow.target.name for shadow in found}


def rule(**percents: float) -> dict[str, Any]:
    return {"id": "canary", "serve": "ranker", "shadow": percents}


def by_hand(key: str, target: str) -> float:
    """The draw as docs/experiments.md says it."""
    first8 = hashlib.sha256(f"o/canary/shadow\x1f{target}\x1f{key}".encode()).digest()[:8]
    return (int.from_bytes(first8, "big") + 0.5) / 2**64


FROZEN = {
    "42": 0.9226482245154695,
    "member-1": 0.37847878339991914,
    "Zoë": 0.6511520793176996,
    "日本": 0.10723014391056994,
    "m7": 0.9950947804482664,
}
"""A change of any of them moves members into shadows, or out of them, in production."""


@pytest.mark.parametrize(("key", "u"), FROZEN.items())
def test_frozen_draws(key: str, u: float) -> None:
    draws = engine_of([rule(svd=10)]).explain("o", {"member_id": key}, at=0.0).shadows
    assert [(draw.target, draw.u, draw.sampled) for draw in draws] == [("svd", u, u <= 0.1)]
    assert by_hand(key, "svd") == u


@given(key=st.text(min_size=1, max_size=20), low=st.floats(0, 100), high=st.floats(0, 100))
def test_raising_the_rate_only_adds_members(key: str, low: float, high: float) -> None:
    low, high = sorted((low, high))
    assert sampled(rule(svd=low), key) <= sampled(rule(svd=high), key)


@given(key=st.text(min_size=1, max_size=20))
def test_all_and_nothing_are_exact(key: str) -> None:
    assert sampled(rule(svd=100, ease=0), key) == {"svd"}


def test_a_member_is_sampled_always_or_never_and_shares_are_as_written() -> None:
    engine = engine_of([rule(svd=25)])
    decision = engine.decide("o", {"member_id": "x"}, at=0.0)
    first = [bool(engine.sampled(decision, {"member_id": key}, random.random)) for key in KEYS]
    again = [bool(engine.sampled(decision, {"member_id": key}, random.random)) for key in KEYS]
    assert first == again == [by_hand(key, "svd") <= 0.25 for key in KEYS]
    assert abs(sum(first) / len(KEYS) - 0.25) < 0.03


def test_shadows_are_independent_of_each_other_and_of_the_split() -> None:
    """Each of the eight combinations of two shadows of a half and a split of halves has an eighth of the members."""
    engine = engine_of([{"id": "canary", "split": {"svd": 50, "ease": 50}, "shadow": {"svd": 50, "ease": 50}}])
    combinations: Counter[Any] = Counter()
    for key in KEYS:
        decision = engine.decide("o", {"member_id": key}, at=0.0)
        names = {shadow.target.name for shadow in engine.sampled(decision, {"member_id": key}, random.random)}
        combinations[decision.variant, *sorted(names)] += 1
    assert len(combinations) == 8
    assert all(abs(count / len(KEYS) - 0.125) < 0.02 for count in combinations.values())


def test_requests_without_a_sticky_key_are_sampled_by_chance() -> None:
    engine = engine_of([rule(svd=30)])
    decision = engine.decide("o", {}, at=0.0)
    chance = random.Random(3).random
    count = sum(bool(engine.sampled(decision, {"member_id": ""}, chance)) for _ in range(4_000))
    assert abs(count / 4_000 - 0.3) < 0.03
    assert [draw.sampled for draw in engine.explain("o", {}, at=0.0).shadows] == [None]
    assert sampled(rule(svd=0, ease=100), None) == {"ease"}
