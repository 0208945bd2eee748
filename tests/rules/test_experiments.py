"""The statistical truths of experiments, seen from the engine: shares, independence, ramps.

Each states its statistic. The keys are fixed, so that a test passes always or never; the bounds are far tails.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import scipy
from tidegate.rules import Engine, compile_directory, load_bundle

from .oracle import Directory, Yaml
from .strategies import small_fleet, write_directory

MANY, ENOUGH = 200_000, 50_000
MEMBERS = [f"member-{number}" for number in range(MANY)]
P_BOUND = 1e-5
"""The tests fail below this p-value: by chance once in 100 000 choices of the salts."""


def engine_of(layers: Yaml, **rules: list[Yaml]) -> Engine:
    """One objective per name, with these rules over a fallthrough rule."""
    objectives = {
        name: {
            "objective": name,
            "summary": "s",
            "owner": "t",
            "context": {"member_id": {"type": "string"}},
            "sticky_key": "member_id",
            "rules": [*given, {"id": "default", "serve": "base"}],
        }
        for name, given in rules.items()
    }
    with tempfile.TemporaryDirectory() as root:
        directory = Directory(objectives, small_fleet("base", "one", "two", "three"), layers)
        return load_bundle(compile_directory(write_directory(directory, Path(root))))


def experiment(name: str, layer: str, *weights: int) -> Yaml:
    """An experiment whose cells 1, 2, … have these weights."""
    models = ["base", "one", "two", "three"]
    cells = {number: {"serve": models[number - 1], "weight": weight} for number, weight in enumerate(weights, 1)}
    return {"id": f"ab-{name}", "experiment": {"id": name, "layer": layer, "cells": cells}}


def layer(*experiments: tuple[str, list[int]]) -> Yaml:
    return {"key": "member_id", "experiments": dict(experiments)}


def arms(engine: Engine, objective: str, count: int = ENOUGH) -> list[str]:
    """What each of the first members is allocated to: an experiment's cell, a split's variant, or nothing."""
    decide = engine.decide
    return [decide(objective, {"member_id": member}, at=0.0).variant or "-" for member in MEMBERS[:count]]


def dependence(one: Iterable[str], other: Iterable[str]) -> float:
    """The p-value of Pearson's chi-square test of independence of two allocations of the same members."""
    counted = Counter(zip(one, other, strict=True))
    rows, columns = sorted({row for row, _ in counted}), sorted({column for _, column in counted})
    table = [[counted[row, column] for column in columns] for row in rows]
    return float(scipy.stats.chi2_contingency(table, correction=False).pvalue)


def mismatch(arms: Iterable[str], weights: Mapping[str, int]) -> float:
    """The p-value of the chi-square goodness of fit of counted arms to their weights."""
    counted = Counter(arms)
    total = sum(counted.values())
    expected = [total * weight / sum(weights.values()) for weight in weights.values()]
    assert set(counted) <= set(weights)
    return float(scipy.stats.chisquare([counted[arm] for arm in weights], expected).pvalue)


@cache
def two_layers() -> Engine:
    layers = {"home": layer(("a", [0, 4999])), "search": layer(("b", [0, 4999]))}
    return engine_of(layers, first=[experiment("a", "home", 1, 1, 2)], second=[experiment("b", "search", 3, 2, 1)])


@cache
def arms_of_two_layers(objective: str) -> list[str]:
    return arms(two_layers(), objective, MANY)


def test_the_cells_of_an_experiment_have_the_shares_of_their_weights_over_200_000_members() -> None:
    """Chi-square, 3 degrees: half the members are outside, the rest in cells 1 : 1 : 2."""
    assert mismatch(arms_of_two_layers("first"), {"-": 4, "1": 1, "2": 1, "3": 2}) > P_BOUND


def test_two_experiments_in_two_layers_are_allocated_independently() -> None:
    """Pearson's chi-square of the 4 by 4 table of both allocations of 200 000 members: 9 degrees."""
    assert dependence(arms_of_two_layers("first"), arms_of_two_layers("second")) > P_BOUND


def test_an_experiment_is_independent_of_a_split_of_the_same_members() -> None:
    """Pearson's chi-square, 4 by 3: 6 degrees."""
    engine = engine_of({}, first=[{"id": "canary", "split": {"one": 5, "two": 3, "base": 2}}])
    assert dependence(arms_of_two_layers("first")[:ENOUGH], arms(engine, "first")) > P_BOUND


def test_the_same_rule_in_two_objectives_splits_independently() -> None:
    """Pearson's chi-square, 2 by 2: 1 degree. The objective's name is part of the salt."""
    rule: Yaml = {"id": "canary", "split": {"one": 1, "two": 1}}
    engine = engine_of({}, first=[rule], second=[rule])
    assert dependence(arms(engine, "first"), arms(engine, "second")) > P_BOUND


def test_two_experiments_that_follow_each_other_on_the_same_buckets_are_independent() -> None:
    """Pearson's chi-square, 3 by 3: 4 degrees. A carry-over effect of the old one's cells falls on all of the new ones'."""
    old = engine_of({"home": layer(("old", [0, 9999]))}, first=[experiment("old", "home", 1, 1, 1)])
    new = engine_of({"home": layer(("new", [0, 9999]))}, first=[experiment("new", "home", 1, 1, 1)])
    assert dependence(arms(old, "first"), arms(new, "first")) > P_BOUND


def test_the_statistics_find_what_they_look_for() -> None:
    """The same experiment in two objectives is allocated alike on purpose; wrong weights by one percent are found."""
    layers = {"home": layer(("a", [0, 9999]))}
    rule = experiment("a", "home", 1, 1)
    engine = engine_of(layers, first=[rule], second=[rule])
    one = arms(engine, "first")
    assert one == arms(engine, "second")
    assert dependence(one, arms(engine, "second")) < 1e-300
    assert mismatch(one, {"1": 1, "2": 1}) > P_BOUND
    assert mismatch(one, {"1": 101, "2": 99}) < scipy.stats.chi2.sf(10, 1)


RAMPS = {
    "two": [[99, 1], [95, 5], [50, 50], [1, 99]],
    "three": [[70, 29, 1], [67, 28, 5], [35, 15, 50]],
    "four": [[40, 40, 19, 1], [38, 38, 19, 5], [20, 20, 10, 50]],
}


@pytest.mark.parametrize("ramp", RAMPS.values(), ids=RAMPS)
def test_ramping_an_experiments_cell_never_moves_a_member_back(ramp: list[list[int]]) -> None:
    """The last cell goes from 1 % over 5 % to 50 %: whoever got it keeps it, and its share is as configured each time."""
    before: set[int] = set()
    for weights in ramp:
        engine = engine_of({"home": layer(("a", [0, 9999]))}, first=[experiment("a", "home", *weights)])
        given = arms(engine, "first")
        now = {place for place, arm in enumerate(given) if arm == str(len(weights))}
        assert before <= now
        assert mismatch(given, {str(cell): weight for cell, weight in enumerate(weights, 1)}) > P_BOUND
        before = now


@pytest.mark.parametrize("ranges", [[[0, 99], [0, 499], [0, 4999]], [[500, 599], [[500, 599], [7000, 7399]]]])
def test_giving_an_experiment_more_buckets_moves_nobody_out_of_their_cell(ranges: list[Any]) -> None:
    """Ramping the exposure: members come in from outside, and nobody inside changes the cell."""
    before: dict[int, str] = {}
    for owned in ranges:
        engine = engine_of({"home": layer(("a", owned))}, first=[experiment("a", "home", 1, 1, 1)])
        now = {place: arm for place, arm in enumerate(arms(engine, "first")) if arm != "-"}
        assert len(now) > len(before)
        assert before.items() <= now.items()
        before = now


def test_an_experiment_and_a_ramp_of_it_keep_a_layers_other_experiments_as_they_were() -> None:
    alone = engine_of({"home": layer(("a", [0, 1999]))}, first=[experiment("a", "home", 1, 1)])
    joined = engine_of(
        {"home": layer(("a", [0, 1999]), ("b", [2000, 5999]))},
        first=[experiment("b", "home", 1, 9), experiment("a", "home", 1, 1)],
    )
    inside = {place: arm for place, arm in enumerate(arms(alone, "first")) if arm != "-"}
    decisions = {place: joined.decide("first", {"member_id": MEMBERS[place]}, at=0.0) for place in inside}
    assert {decision.experiment for decision in decisions.values()} == {"a"}
    assert {place: decision.variant for place, decision in decisions.items()} == inside
