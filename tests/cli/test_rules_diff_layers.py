"""`tidegate rules diff` where layers and ramps are concerned: its shares are those that counting gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tidegate.rules.sticky import layer_bucket

from tests.cli.diffed import LAYERS, counted, diff, directory, flows, ranking

BUCKETS = 10_000
COUNTRIES = ("CA", "SE", "US")


def one_cell(experiment: str, serve: str) -> dict[str, Any]:
    """An experiment whose members are exactly those of its buckets, in the US alone."""
    action = {"id": experiment, "layer": "home", "cells": {1: serve}}
    return {"id": f"ab-{experiment}", "when": {"country": "US"}, "experiment": action}


RULES = [one_cell("12345", "better"), one_cell("12401", "best"), {"id": "default", "serve": "base"}]
BEFORE = {"12345": [0, 1999], "12401": [2000, 2499]}


@pytest.fixture(scope="module")
def member_by_bucket() -> dict[int, str]:
    """A member in each of the layer's buckets."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < BUCKETS:
        found.setdefault(layer_bucket("home", str(number)), str(number))
        number += 1
    return found


def layer(experiments: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"home": {**LAYERS["home"], "experiments": dict(experiments), **more}}


@pytest.mark.parametrize(
    ("after", "moved"),
    [
        (layer(BEFORE | {"12345": [[0, 1999], [2500, 4999]]}), 2500),
        (layer(BEFORE | {"12345": [7000, 8999]}), 4000),
        (layer({"12345": [0, 1499], "12401": [1500, 2499]}), 500),
        (layer({"12345": [2000, 2499], "12401": [0, 1999]}), 2500),
        (layer(BEFORE | {"12345": [100, 1999]}, holdout=[0, 99]), 100),
    ],
    ids=["widened", "moved", "handed-over", "swapped", "holdout"],
)
def test_a_layers_shares_are_those_of_all_10_000_buckets(
    after: dict[str, Any], moved: int, member_by_bucket: dict[int, str], tmp_path: Path
) -> None:
    old = directory(tmp_path / "old", layers=layer(BEFORE), rules=RULES)
    new = directory(tmp_path / "new", layers=after, rules=RULES)
    contexts = (
        {"member_id": member, "country": country, "version": "1"}
        for member in member_by_bucket.values()
        for country in COUNTRIES
    )
    found, told = counted(old, new, contexts), diff(old, new)
    total = BUCKETS * len(COUNTRIES)
    assert ranking(told)["exact"]
    assert ranking(told)["moved"] == pytest.approx(moved / total, abs=1e-12)
    assert flows(told) == pytest.approx({pair: count / total for pair, count in found.items()}, abs=1e-12)


def test_a_ramp_moves_what_it_adds_and_nobody_back(tmp_path: Path) -> None:
    """1 % → 5 % → 50 %, among three variants."""
    steps = [directory(tmp_path / f"{percent}", rules=[ramp(percent)]) for percent in (1, 5, 50)]
    for old, new, added in zip(steps, steps[1:], (0.04, 0.45), strict=False):
        told = diff(old, new)
        assert ranking(told)["moved"] == pytest.approx(added, abs=1e-12)
        assert all(to == "best" for (was, to), share in flows(told).items() if was != to and share)


def ramp(percent: int) -> dict[str, Any]:
    """`best` gets so many percent; the other two share the rest evenly."""
    rest = 100 - percent
    return {"id": "ramp", "split": {"base": rest, "better": rest, "best": 2 * percent}}


def test_an_added_rule_moves_what_it_matches(tmp_path: Path) -> None:
    default = {"id": "default", "serve": "base"}
    old = directory(tmp_path / "old", rules=[default])
    new = directory(tmp_path / "new", rules=[{"id": "us", "when": {"country": "US"}, "serve": "best"}, default])
    told = diff(old, new)
    assert flows(told) == pytest.approx({("base", "base"): 2 / 3, ("base", "best"): 1 / 3})
    assert [(each["kind"], each["subject"], each["name"]) for each in told["changes"]] == [("added", "rule", "us")]
