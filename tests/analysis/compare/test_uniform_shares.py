"""Uniform shares are what counting every case gives, for random revisions over the whole language."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from math import log, sqrt
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from tidegate.analysis.compare.axes import build_axes
from tidegate.analysis.compare.boxes import TooMuchError
from tidegate.analysis.compare.changes import Change
from tidegate.analysis.compare.report import Diff, compare
from tidegate.analysis.compare.revision import Revision, open_revision
from tidegate.analysis.compare.space import Leaf
from tidegate.analysis.compare.volumes import Volumes
from tidegate.rules import compile_directory

from tests.analysis.compare.brute_force import moved_by_counting, too_many
from tests.analysis.compare.strategies import OBJECTIVE, Revisions, revisions
from tests.rules.oracle import Directory, instant
from tests.rules.strategies import write_directory
from tests.support.effort import examples

AT = instant("2026-03-01T11:00:00Z")
MOST_CONTEXTS = 400
thorough = settings(
    max_examples=examples(250),
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
brief = settings(thorough, max_examples=examples(100))

Shares = dict[tuple[str, str], float]


def opened(directory: Directory) -> Revision:
    with tempfile.TemporaryDirectory() as root:
        return open_revision(compile_directory(write_directory(directory, Path(root))))


def by_target(diff: Diff) -> Shares:
    (shares,) = diff.shares
    return {(old, new): share for old, new, share, _ in shares.by_target()}


@thorough
@given(revisions())
def test_shares_are_what_counting_gives(pair: Revisions) -> None:
    old, new = pair
    assume(not too_many(old, new, OBJECTIVE, MOST_CONTEXTS))
    diff = compare(opened(old), opened(new), AT)
    (shares,) = diff.shares
    counted = {pair: share for pair, share in moved_by_counting(old, new, OBJECTIVE, AT).items() if share > 1e-12}
    assert by_target(diff) == pytest.approx(counted, abs=1e-9)
    assert shares.moved == pytest.approx(sum(share for (was, now), share in counted.items() if was != now), abs=1e-9)
    assert shares.changing.drawn == shares.staying.drawn == 0


def by_decision(leaves: Mapping[Leaf, int]) -> Counter[Any]:
    """The weights of leaves by their rules and cells. The two ways tell keys apart that no rule of a leaf uses."""
    counts: Counter[Any] = Counter()
    for (was, now, _, cells), weight in leaves.items():
        counts[was, now, cells] += weight
    return counts


@thorough
@given(revisions())
def test_volumes_are_what_the_walk_counts(pair: Revisions) -> None:
    old, new = (opened(each).side(OBJECTIVE) for each in pair)
    axes = build_axes(old, new)
    start = axes.start(AT)
    try:
        counted = Volumes(axes, start, budget=1_000_000).count()
    except TooMuchError:
        assume(False)
    assert counted.staying is not None
    assert not counted.changing.keys() & counted.staying.keys()
    walked = axes.space.walk({start: 1}, into_alike=True).leaves
    assert by_decision({**counted.changing, **counted.staying}) == by_decision(walked)
    assert all(axes.is_changing(leaf) for leaf in counted.changing)
    assert not any(axes.is_changing(leaf) for leaf in counted.staying)


@brief
@given(revisions())
def test_contexts_drawn_of_changed_rows_are_within_the_bound(pair: Revisions) -> None:
    old, new = (opened(each).side(OBJECTIVE) for each in pair)
    axes = build_axes(old, new)
    start, size = axes.start(AT), 2_000
    try:
        drawn = Volumes(axes, start, budget=0).drawn(size, Random(1))
    except TooMuchError:
        assume(False)
    leaves = axes.space.walk({start: 1}, into_alike=True).leaves
    exact = sum(weight for leaf, weight in leaves.items() if axes.is_changing(leaf))
    assert all(axes.is_changing(leaf) for leaf in drawn.counts)
    assert exact <= drawn.whole
    estimate = drawn.whole * sum(drawn.counts.values()) / size
    # Hoeffding's bound at 1 in 10 million; the draws are fixed, so no test is flaky.
    assert abs(estimate - exact) <= drawn.whole * sqrt(log(2e7) / (2 * size))


@brief
@given(revisions())
def test_shares_add_up_and_are_mirrored(pair: Revisions) -> None:
    old, new = map(opened, pair)
    there, back = compare(old, new, AT), compare(new, old, AT)
    assert sum(by_target(there).values()) == pytest.approx(1, abs=1e-12)
    mirrored = {(now, was): share for (was, now), share in by_target(back).items()}
    assert by_target(there) == pytest.approx(mirrored, abs=1e-12)
    assert there.shares[0].moved == pytest.approx(back.shares[0].moved, abs=1e-12)
    assert there.shares[0].retuned == pytest.approx(back.shares[0].retuned, abs=1e-12)
    renamed = {change.old: change.new for change in there.changes if change.kind == "renamed"}
    assert {mirror(change, renamed) for change in back.changes} == {identity(change) for change in there.changes}


@brief
@given(revisions())
def test_nothing_changed_exactly_where_the_bundles_are_alike(pair: Revisions) -> None:
    old, new = map(opened, pair)
    assert compare(old, old, AT).is_empty
    assert compare(old, new, AT).is_empty == (old.bundle.revision == new.bundle.revision)
    (shares,) = compare(new, new, AT).shares
    assert shares.moved == shares.retuned == 0
    assert all(flow.old_target == flow.new_target and flow.old_rule == flow.new_rule for flow in shares.flows)


OPPOSITE = {"added": "removed", "removed": "added"}


def identity(change: Change) -> tuple[str, ...]:
    name = "" if change.kind == "renamed" else change.name
    return (change.kind, change.subject, change.objective, name, change.field, repr(change.old), repr(change.new))


def mirror(change: Change, renamed: Mapping[str, str]) -> tuple[str, ...]:
    kind, subject, objective, name, field, old, new = identity(change)
    return (OPPOSITE.get(kind, kind), subject, objective, renamed.get(name, name), field, new, old)
