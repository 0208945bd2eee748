"""A resolved bundle decides as the rules say, and leaves no version and no shard to anything outside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tidegate.analysis.compare.report import compare
from tidegate.analysis.compare.revision import open_revision
from tidegate.errors import BundleError
from tidegate.rules import compile_directory, load_bundle
from tidegate.rules.bundle import begins_revision, pack, revision_of, short_revision, unpack
from tidegate.rules.resolved import resolve_bundle, rules_bundle

from tests.support.stack import write_rules

SPLIT = "[{id: halves, split: {scorer: 50, pipeline: 50}}, {id: pinned, serve: scorer/1}]"
VERSIONS = {"scorer": 3, "pipeline": 1}
STEPS = {"pipeline": {"features": 2}}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    rules = write_rules(
        tmp_path_factory.mktemp("rules"), {"a": 1, "b": 1}, {"scorer": ["a"], "pipeline": ["a", "b"]}, main=SPLIT
    )
    return compile_directory(rules)


def test_every_target_gets_its_version_and_the_decisions_stay(compiled: bytes) -> None:
    resolved = load_bundle(resolve_bundle(compiled, VERSIONS, STEPS))
    assert {target.name: (target.model, target.version) for target in resolved.targets()} == {
        "pipeline": ("pipeline", 1),
        "scorer": ("scorer", 3),
        "scorer/1": ("scorer", 1),
    }
    before = load_bundle(compiled).decide("main", {"country": "US"})
    after = resolved.decide("main", {"country": "US"})
    assert (after.rule, after.target.name, after.shards) == (before.rule, before.target.name, before.shards)
    assert after.revision == before.revision, "the same files, whatever their models resolve to"


def test_resolving_again_changes_nothing(compiled: bytes) -> None:
    once = resolve_bundle(compiled, VERSIONS, STEPS)
    assert resolve_bundle(once, VERSIONS, STEPS) == once


def test_steps_are_part_of_the_revision(compiled: bytes) -> None:
    first, second = (resolve_bundle(compiled, VERSIONS, {"pipeline": {"features": version}}) for version in (2, 3))
    assert load_bundle(first).revision != load_bundle(second).revision
    assert load_bundle(first).rules == load_bundle(second).rules == load_bundle(compiled).revision
    assert unpack(first).manifest.steps == STEPS
    assert unpack(compiled).manifest.steps is None


def test_a_placement_moves_models_and_no_others(compiled: bytes) -> None:
    engine = load_bundle(resolve_bundle(compiled, VERSIONS, {}, {"pipeline": ["b"]}))
    assert {target.name: target.shards for target in engine.targets()} == {
        "pipeline": ("b",),
        "scorer": ("a",),
        "scorer/1": ("a",),
    }


def test_a_target_without_a_version_is_refused_by_name(compiled: bytes) -> None:
    with pytest.raises(BundleError, match="no version was found for the targets pipeline"):
        resolve_bundle(compiled, {"scorer": 3}, {})


def test_a_pin_without_a_version_gets_the_highest_that_the_bundle_names(compiled: bytes) -> None:
    engine = load_bundle(resolve_bundle(compiled, VERSIONS, {}))
    pins = [engine.pin("scorer"), engine.pin("scorer", 1), engine.pin("absent")]
    assert [pin and (pin.name, pin.version) for pin in pins] == [("scorer", 3), ("scorer/1", 1), None]
    unresolved = load_bundle(compiled).pin("scorer")
    assert unresolved is not None
    assert unresolved.version is None


def test_what_is_no_bundle_is_refused(compiled: bytes, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        resolve_bundle(compiled[:-1], VERSIONS, {})


@pytest.mark.parametrize("placement", [{}, {"pipeline": ["b"], "scorer": ["b", "a"]}])
def test_a_resolved_bundle_gives_back_the_rules_byte_by_byte(compiled: bytes, placement: dict[str, list[str]]) -> None:
    resolved = resolve_bundle(compiled, VERSIONS, STEPS, placement)
    assert rules_bundle(resolved) == compiled == rules_bundle(compiled)
    assert revision_of(resolved).startswith(revision_of(compiled))


def test_a_bundle_that_claims_other_rules_gives_none(compiled: bytes) -> None:
    claimed = unpack(resolve_bundle(compiled, VERSIONS, STEPS))
    with pytest.raises(BundleError, match="not resolved from the rules that it names"):
        rules_bundle(pack(claimed.manifest, claimed.lines[2:], "0" * 64))


def test_a_person_sees_the_rules_digits_and_more_only_where_they_are_ambiguous(compiled: bytes) -> None:
    one, two = (revision_of(resolve_bundle(compiled, {**VERSIONS, "scorer": version}, {})) for version in (2, 3))
    rules, resolution = revision_of(compiled)[:12], one.partition(".")[2]
    assert short_revision(one) == short_revision(one, [one, "f" * 64]) == rules
    assert short_revision(one, [one, two]) == f"{rules}.{resolution[:6]}"
    assert begins_revision(rules, one)
    assert begins_revision(rules, two)
    assert [begins_revision(f"{rules}.{resolution[:6]}", each) for each in (one, two)] == [True, False]


def test_the_same_rules_with_another_version_move_what_it_serves(compiled: bytes) -> None:
    revisions = [open_revision(resolve_bundle(compiled, {**VERSIONS, "scorer": version}, STEPS)) for version in (2, 3)]
    assert compare(revisions[0], revisions[0], 0.0).is_empty
    found = compare(*revisions, 0.0)
    assert (found.is_empty, found.changes) == (False, ())
    moved = {(flow.old_target, flow.new_target) for each in found.shares for flow in each.flows if flow.moved}
    assert moved == {("scorer/2", "scorer/3")}
