"""The analysis of small random rules agrees with trying every context on the engine, one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from random import Random

import pytest
from tidegate.analysis.reach.report import Analysis, analyse
from tidegate.errors import NoRuleError
from tidegate.language.compiler import emit
from tidegate.language.directory import places, read_directory
from tidegate.language.program import Program
from tidegate.rules import Engine, load_bundle

from tests.analysis.reach.small_rules import MOMENTS, contexts, directory
from tests.rules.oracle import Directory, Yaml
from tests.rules.strategies import write_directory
from tests.support.effort import is_full

SEEDS = 1200 if is_full() else 300
BATCH = 100
NO_RULE = "(no rule)"
REACH = ("unreachable-rule", "never-matches", "window-over", "undecided")


def compiled(made: Directory, root: Path) -> tuple[Program, Engine]:
    program, findings = read_directory(write_directory(made, root))
    assert not findings, findings
    return program, load_bundle(emit(program))


def with_rules(made: Directory, ids: Collection[str]) -> Directory:
    document = made.objectives["small"]
    kept = [rule for rule in document["rules"] if rule["id"] in ids]
    return dataclasses.replace(made, objectives={"small": document | {"rules": kept}})


def served(engine: Engine, context: Yaml, at: float) -> str:
    try:
        return engine.decide("small", context, at=at).rule
    except NoRuleError:
        return NO_RULE


def reached(made: Directory, engine: Engine, moments: Collection[float]) -> set[str]:
    """The rules that any context reaches at some moments; NO_RULE among them where one is not served."""
    return {served(engine, context, at) for context in contexts(made) for at in moments}


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_reach_and_coverage_are_what_trying_every_context_gives(first: int, tmp_path: Path) -> None:
    kinds = set()
    for seed in range(first, first + BATCH):
        made = directory(seed)
        at = Random(seed).choice(MOMENTS)
        root = tmp_path / str(seed)
        program, engine = compiled(made, root)
        analysis = analyse(program, engine, at=at, places=places(root))
        told = {finding.rule: finding for finding in analysis.findings if finding.rule and finding.kind in REACH}
        present = {at, *(moment for moment in MOMENTS if moment > at)}
        uses_time = any("active" in rule for rule in made.objectives["small"]["rules"])
        now = reached(made, engine, present if uses_time else [at])
        ever = now | reached(made, engine, [moment for moment in MOMENTS if moment < at]) if uses_time else now
        for rule in (rule["id"] for rule in made.objectives["small"]["rules"]):
            kind = told[rule].kind if rule in told else "reached"
            kinds.add(kind)
            assert (kind == "reached") == (rule in now), (seed, rule, kind)
            assert (kind == "window-over") == (rule in ever - now), (seed, rule, kind)
            if kind in ("unreachable-rule", "never-matches") and seed % 4 == 0:
                check_cover(made, rule, told[rule].covered_by, root / rule)
        check_coverage(analysis, engine, NO_RULE in now, seed)
    assert kinds >= {"reached", "unreachable-rule", "never-matches"}


def check_cover(made: Directory, rule: str, covering: tuple[str, ...], root: Path) -> None:
    """The rules that are named cover the rule together, and none of them can be left out."""
    for left_out in (None, *covering):
        part = with_rules(made, {*covering, rule} - {left_out})
        found = reached(part, compiled(part, root / str(left_out))[1], MOMENTS)
        assert (rule in found) == (left_out is not None), (rule, covering, left_out)


def check_coverage(analysis: Analysis, engine: Engine, has_hole: bool, seed: int) -> None:
    coverage = analysis.coverage["small"]
    assert coverage.served is not has_hole, seed
    if coverage.example is not None:
        assert served(engine, dict(coverage.example.context), coverage.example.at) == NO_RULE
        assert coverage.example.at >= analysis.at
