"""The laws of sticky choices and of layers, seen from the engine: shares, moves, independence, frozen vectors.

Statistical bounds are far tails over fixed keys, so that each test is deterministic: it passes always or never.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tidegate.rules import Engine, compile_directory, load_bundle

from .oracle import Directory, Yaml
from .strategies import small_fleet, write_directory

CELLS: Yaml = {1: "ranker", 2: "popularity"}
MODELS = ["ranker", "popularity", "svd", "ease", "hybrid"]
HOME: Yaml = {
    "home": {
        "key": "member_id",
        "holdout": [0, 499],
        "experiments": {"e1": [500, 2499], "e2": [[2500, 3999], [9000, 9999]], "e3": [4000, 4000]},
    }
}


def engine_of(rules: list[Yaml], layers: Yaml | None = None, **extra: Any) -> Engine:
    context = {
        "member_id": {"type": "string"},
        "account": {"type": "integer"},
        "app": {"type": "version"},
        "country": {"type": "string"},
    }
    objective = {"objective": "o", "summary": "s", "owner": "t", "context": context, "rules": rules}
    objectives = {"o": {"sticky_key": "member_id"} | objective | extra}
    directory = Directory(objectives, small_fleet(*MODELS), layers or {})
    with tempfile.TemporaryDirectory() as root:
        return load_bundle(compile_directory(write_directory(directory, Path(root))))


def chooser(weights: Mapping[str, int], rule: str = "canary") -> Callable[[str], str | None]:
    """Key to variant, by a split rule of the objective `o`."""
    decide = engine_of([{"id": rule, "split": dict(weights)}]).decide
    return lambda key: decide("o", {"member_id": key}, at=0.0).variant


def choices(weights: Mapping[str, int], count: int, rule: str = "canary") -> list[str | None]:
    choose = chooser(weights, rule)
    return [choose(f"member-{number}") for number in range(count)]


def by_hand(salt: str, weights: Mapping[str, int], key: str) -> str:
    """What an analyst would recompute in a warehouse."""

    def score(variant: str) -> float:
        first8 = hashlib.sha256(f"{salt}\x1f{variant}\x1f{key}".encode()).digest()[:8]
        return -math.log((int.from_bytes(first8, "big") + 0.5) / 2**64) / weights[variant]

    return min((variant for variant in weights if weights[variant]), key=score)


def chi_square_bound(degrees: int) -> float:
    """The 0.99999 quantile of chi-square by Wilson and Hilferty's approximation."""
    return degrees * (1 - 2 / (9 * degrees) + 4.265 * math.sqrt(2 / (9 * degrees))) ** 3


def chi_square(observed: Mapping[Any, int], expected: Mapping[Any, float]) -> float:
    return sum((observed.get(cell, 0) - mean) ** 2 / mean for cell, mean in expected.items())


# Frozen: hash version 1. A change of any number below moves members between variants in production.

WEIGHTS = {"ranker": 50, "popularity": 30, "svd": 20}
FROZEN_VARIANTS = {
    "42": "ranker",
    "member-1": "popularity",
    "Zoë": "ranker",
    "日本": "ranker",
    "a\x1fb": "ranker",
    "k1": "ranker",
    "k2": "ranker",
    "k3": "popularity",
    "k4": "ranker",
}
FROZEN_DRAWS = {
    "ranker": (0.5629215869383914, 0.011492298754777577),
    "popularity": (0.6365556132416741, 0.015056116376249947),
    "svd": (0.2697626700632099, 0.06551063531482393),
}
FROZEN_BUCKETS = {"42": 1646, "member-1": 9420, "Zoë": 4482, "日本": 3779, "m229303": 0, "m54235": 9999}
FROZEN_CELLS = {"m0": 3, "m3": 3, "m6": 2, "m7": 1, "m16": 3, "m20": 1}


@pytest.mark.parametrize(("key", "variant"), FROZEN_VARIANTS.items())
def test_frozen_variants(key: str, variant: str) -> None:
    assert by_hand("o/canary", WEIGHTS, key) == variant
    assert chooser(WEIGHTS)(key) == variant


def test_frozen_draws() -> None:
    explanation = engine_of([{"id": "canary", "split": WEIGHTS}]).explain("o", {"member_id": "42"}, at=0.0)
    assert {draw.variant: (draw.u, draw.score) for draw in explanation.draws} == {
        variant: pytest.approx(draw, rel=1e-15) for variant, draw in FROZEN_DRAWS.items()
    }


@pytest.mark.parametrize(("key", "bucket"), FROZEN_BUCKETS.items())
def test_frozen_buckets(key: str, bucket: int) -> None:
    explanation = engine_of([experiment_rule("e1"), DEFAULT], HOME).explain("o", {"member_id": key}, at=0.0)
    assert explanation.buckets == {"home": bucket}


@pytest.mark.parametrize(("key", "cell"), FROZEN_CELLS.items())
def test_frozen_cells(key: str, cell: int) -> None:
    decision = engine_of([experiment_rule("e1"), DEFAULT], HOME).decide("o", {"member_id": key}, at=0.0)
    assert (decision.rule, decision.experiment, decision.cell, decision.variant) == ("exp-e1", "e1", cell, str(cell))


DEFAULT: Yaml = {"id": "default", "serve": "hybrid"}


def experiment_rule(experiment: str) -> Yaml:
    cells = {1: "ranker", 2: "svd", 3: {"serve": "ease", "weight": 2}}
    return {"id": f"exp-{experiment}", "experiment": {"id": experiment, "layer": "home", "cells": cells}}


# Which text is hashed.


@pytest.mark.parametrize(("attribute", "value"), [("account", -7), ("account", 2**70), ("app", "8.2.0+b1")])
def test_integers_are_hashed_in_decimal_and_versions_as_given(attribute: str, value: Any) -> None:
    engine = engine_of([{"id": "canary", "split": WEIGHTS}], sticky_key=["member_id", attribute])
    assert engine.decide("o", {attribute: value}, at=0.0).variant == by_hand("o/canary", WEIGHTS, str(value))
    both = {attribute: value, "member_id": "42"}
    assert engine.decide("o", both, at=0.0).variant == FROZEN_VARIANTS["42"]


def test_without_a_sticky_key_the_first_variant_serves_and_says_so() -> None:
    decision = engine_of([{"id": "canary", "split": {"svd": 1, "ranker": 99}}]).decide("o", {}, at=0.0)
    assert (decision.target.name, decision.reason) == ("svd", "no_sticky_key")


@pytest.mark.parametrize("keys", [["member_id"], ["member_id", "account"], ["account", "member_id"]])
def test_an_empty_text_is_no_key(keys: list[str]) -> None:
    """Neither of a split nor of a layer: the context decides as it does without it."""
    everywhere: Yaml = {"home": {"key": keys, "experiments": {"e1": [0, 9999]}}}
    inside = {"id": "inside", "when": {"country": "US"}, "experiment": {"id": "e1", "layer": "home", "cells": CELLS}}
    engine = engine_of([inside, {"id": "canary", "split": WEIGHTS}], everywhere, sticky_key=keys)
    for account in ({}, {"account": 0}, {"account": 7}):
        for country in ({}, {"country": "US"}):
            without, empty = {**account, **country}, {**account, **country, "member_id": ""}
            assert engine.decide("o", empty, at=0.0) is engine.decide("o", without, at=0.0)
            explained = engine.explain("o", empty, at=0.0)
            assert explained.decision is engine.decide("o", empty, at=0.0)
            assert explained == engine.explain("o", without, at=0.0)
    assert engine.decide("o", {"member_id": ""}, at=0.0).reason == "no_sticky_key"


@pytest.mark.parametrize("default", ["m0", ""])
def test_a_default_stands_in_for_an_empty_key_too(default: str) -> None:
    context = {"member_id": {"type": "string", "default": default}}
    engine = engine_of([{"id": "canary", "split": WEIGHTS}], context=context)
    decision = engine.decide("o", {"member_id": ""}, at=0.0)
    assert decision is engine.decide("o", {}, at=0.0)
    assert (decision.reason == "no_sticky_key") == (default == "")


def test_zero_is_a_key_like_any_other_integer() -> None:
    for default in ({}, {"default": 0}):
        context = {"account": {"type": "integer", **default}}
        engine = engine_of([{"id": "canary", "split": WEIGHTS}], sticky_key="account", context=context)
        for given in ({"account": 0}, {}) if default else ({"account": 0},):
            decision = engine.decide("o", given, at=0.0)
            assert (decision.reason, decision.variant) == ("split", by_hand("o/canary", WEIGHTS, "0"))


@pytest.mark.parametrize(
    ("attribute", "one", "other"), [("app", "8.2", "8.2.0"), ("member_id", "caf\u00e9", "cafe\u0301")]
)
def test_each_spelling_of_a_key_is_hashed_as_it_was_sent(attribute: str, one: str, other: str) -> None:
    weights = dict.fromkeys(MODELS, 1)
    engine = engine_of([{"id": "canary", "split": weights}], sticky_key=attribute)
    for text in (one, other):
        assert engine.decide("o", {attribute: text}, at=0.0).variant == by_hand("o/canary", weights, text)
    assert by_hand("o/canary", weights, one) != by_hand("o/canary", weights, other)


def test_the_choice_depends_on_no_position() -> None:
    alone = engine_of([{"id": "canary", "split": WEIGHTS}])
    backwards = dict(reversed(WEIGHTS.items()))
    below = engine_of([{"id": "first", "when": {"account": 1}, "serve": "ease"}, {"id": "canary", "split": backwards}])
    for number in range(500):
        context = {"member_id": f"k{number}"}
        assert alone.decide("o", context, at=0.0).variant == below.decide("o", context, at=0.0).variant


# Shares.


@cache
def many_choices() -> tuple[str | None, ...]:
    return tuple(choices(WEIGHTS | {"ease": 0, "hybrid": 1}, 200_000))


def test_shares_over_200_000_keys_are_the_weights() -> None:
    counts = Counter(many_choices())
    assert counts["ease"] == 0
    expected = {name: 200_000 * weight / 101 for name, weight in (WEIGHTS | {"hybrid": 1}).items()}
    assert chi_square(counts, expected) < chi_square_bound(3)


def test_two_salts_choose_independently() -> None:
    """Pearson's chi-square of the 4 by 4 table of two rules' choices over the same 60 000 keys: 9 degrees."""
    weights = {"ranker": 4, "popularity": 3, "svd": 2, "ease": 1}
    count = 60_000
    one, other = choices(weights, count, "one"), choices(weights, count, "other")
    expected = {(a, b): count * weights[a] * weights[b] / 100 for a in weights for b in weights}
    assert chi_square(Counter(zip(one, other, strict=True)), expected) < chi_square_bound(9)


def test_a_bucket_says_nothing_about_the_cell() -> None:
    """Cells within one experiment's buckets, by halves of its range: 2 degrees."""
    engine = engine_of([experiment_rule("e1"), DEFAULT], HOME)
    table: Counter[tuple[bool, int | str | None]] = Counter()
    for key, bucket in key_per_bucket().items():
        if 500 <= bucket <= 2499:
            table[bucket < 1500, engine.decide("o", {"member_id": key}, at=0.0).cell] += 1
    expected = {
        (half, cell): 1000 * share for half in (True, False) for cell, share in ((1, 0.25), (2, 0.25), (3, 0.5))
    }
    assert sum(table.values()) == 2000
    assert chi_square(table, expected) < chi_square_bound(4)


# Moves.

RAMPS = [
    [{"ranker": 99, "svd": 1}, {"ranker": 95, "svd": 5}, {"ranker": 50, "svd": 50}, {"ranker": 0, "svd": 100}],
    [{"ranker": 60, "ease": 39, "svd": 1}, {"ranker": 60, "ease": 39, "svd": 5}, {"ranker": 60, "ease": 39, "svd": 50}],
    [{"ranker": 70, "ease": 29, "svd": 1}, {"ranker": 67, "ease": 28, "svd": 5}, {"ranker": 35, "ease": 15, "svd": 50}],
    [
        {"ranker": 30, "popularity": 30, "ease": 20, "hybrid": 19, "svd": 1},
        {"ranker": 29, "popularity": 29, "ease": 19, "hybrid": 18, "svd": 5},
        {"ranker": 15, "popularity": 15, "ease": 10, "hybrid": 9, "svd": 51},
    ],
]


@pytest.mark.parametrize("ramp", RAMPS, ids=["two", "three, one raised", "three", "five"])
def test_a_ramp_never_takes_a_member_back(ramp: list[dict[str, int]]) -> None:
    """Whoever has the ramped variant keeps it while its weight relative to every other grows."""
    before: set[int] = set()
    for weights in ramp:
        now = {number for number, variant in enumerate(choices(weights, 20_000)) if variant == "svd"}
        assert before <= now
        before = now


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"ranker": 95, "svd": 5}, {"ranker": 95, "svd": 20}),
        ({"ranker": 50, "ease": 30, "svd": 20}, {"ranker": 50, "ease": 30, "svd": 45}),
        ({"ranker": 5, "ease": 5, "svd": 0, "hybrid": 5}, {"ranker": 5, "ease": 5, "svd": 5, "hybrid": 5}),
        ({"ranker": 5, "ease": 5}, {"ranker": 5, "ease": 5, "svd": 1}),
    ],
)
def test_raising_one_weight_moves_members_into_it_only(before: dict[str, int], after: dict[str, int]) -> None:
    moves = {pair for pair in zip(choices(before, 20_000), choices(after, 20_000), strict=True) if pair[0] != pair[1]}
    assert moves
    assert {into for _, into in moves} == {"svd"}


ONE_AGAINST_THE_REST = [
    ({"ranker": 95, "svd": 5}, {"ranker": 50, "svd": 50}),
    ({"ranker": 40, "ease": 30, "svd": 20, "hybrid": 10}, {"ranker": 40, "ease": 30, "svd": 20, "hybrid": 110}),
    ({"ranker": 50, "ease": 30, "svd": 20}, {"ranker": 50, "ease": 30, "svd": 0}),
    ({"ranker": 1, "ease": 1, "svd": 1}, {"ranker": 7, "ease": 7, "svd": 7}),
]
SEVERAL_AT_ONCE = [
    ({"ranker": 50, "ease": 30, "svd": 20}, {"ranker": 50, "ease": 20, "svd": 30}),
    ({"ranker": 1, "ease": 1, "svd": 1}, {"ranker": 1, "ease": 2, "svd": 4}),
    ({"ranker": 80, "ease": 10, "svd": 5, "hybrid": 5}, {"ranker": 10, "ease": 20, "svd": 30, "hybrid": 40}),
]


def moved_share(before: Mapping[str, int], after: Mapping[str, int], count: int) -> float:
    return sum(a != b for a, b in zip(choices(before, count), choices(after, count), strict=True)) / count


def half_of_differences(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    old, new = sum(before.values()), sum(after.values())
    return sum(abs(after[name] / new - before[name] / old) for name in before) / 2


def standard_error(share: float, count: int) -> float:
    return math.sqrt(share * (1 - share) / count)


@pytest.mark.parametrize(("before", "after"), ONE_AGAINST_THE_REST)
def test_one_weight_against_the_rest_moves_the_least_possible(before: dict[str, int], after: dict[str, int]) -> None:
    """The share that moves is half the sum of |difference of shares|, within 4.5 standard errors over 50 000 keys."""
    least = half_of_differences(before, after)
    assert abs(moved_share(before, after, 50_000) - least) <= 4.5 * standard_error(least, 50_000)


@pytest.mark.parametrize(("before", "after"), SEVERAL_AT_ONCE)
def test_the_share_that_moves_when_several_weights_change(before: dict[str, int], after: dict[str, int]) -> None:
    """A race moves 1 - sum over i of 1 / sum over j of max(w_j / w_i, v_j / v_i) from weights w to v.

    That is the complement of the Jaccard index of probability distributions (Moulton & Jiang 2018,
    https://arxiv.org/abs/1809.04052), and more than half the sum of |difference of shares| where three or more weights
    change by different ratios: then a variant both takes members in and gives members away.
    """
    stays = sum(1 / sum(max(before[j] / before[i], after[j] / after[i]) for j in before) for i in before)
    moved = moved_share(before, after, 50_000)
    assert abs(moved - (1 - stays)) <= 4.5 * standard_error(stays, 50_000)
    assert moved > half_of_differences(before, after)


# Layers.


@cache
def key_per_bucket() -> dict[str, int]:
    """One key for each of the layer's 10 000 buckets."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < 10_000:
        key = f"m{number}"
        first8 = hashlib.sha256(f"home\x1f{key}".encode()).digest()[:8]
        found.setdefault(int.from_bytes(first8, "big") * 10_000 >> 64, key)
        number += 1
    return {key: bucket for bucket, key in found.items()}


def test_experiments_of_a_layer_exclude_each_other_over_all_buckets() -> None:
    engine = engine_of([*map(experiment_rule, ["e3", "e1", "e2"]), DEFAULT], HOME)
    owned: dict[str | None, list[int]] = {}
    for key, bucket in key_per_bucket().items():
        owned.setdefault(engine.decide("o", {"member_id": key}, at=0.0).experiment, []).append(bucket)
    assert sorted(owned["e1"]) == list(range(500, 2500))
    assert sorted(owned["e2"]) == [*range(2500, 4000), *range(9000, 10_000)]
    assert owned["e3"] == [4000]
    assert sorted(owned[None]) == [*range(500), *range(4001, 9000)]


def test_a_layer_key_that_is_absent_falls_through() -> None:
    engine = engine_of([experiment_rule("e1"), DEFAULT], HOME)
    assert engine.decide("o", {"account": 7}, at=0.0).rule == "default"


def test_a_new_experiment_reshuffles_nobody() -> None:
    keys = [key for key, bucket in key_per_bucket().items() if bucket < 4001]
    alone = engine_of([experiment_rule("e1"), DEFAULT], HOME)
    joined = engine_of([experiment_rule("e2"), experiment_rule("e1"), DEFAULT], HOME)
    for key in keys:
        context = {"member_id": key}
        first, second = alone.decide("o", context, at=0.0), joined.decide("o", context, at=0.0)
        if first.experiment == "e1" or second.experiment == "e1":
            assert (first.experiment, first.cell) == (second.experiment, second.cell)
