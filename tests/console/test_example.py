"""A context that meets a rule's conditions, for the command beside a rule without requests."""

from __future__ import annotations

from pathlib import Path

import pytest
from tidegate.console.example import example
from tidegate.console.live_rules import open_rules
from tidegate.rules import compile_directory

from tests.support.stack import write_rules

OBJECTIVE = """objective: main
summary: A test.
owner: tests
context:
  member: {type: string, required: true}
  region: {type: string, values: [eu, us], required: true}
  country: {type: string}
  device: {type: string, values: [tv, mobile, web]}
  kids: {type: boolean}
  version: {type: version}
  tier: {type: integer}
  weight: {type: number}
  tags: {type: set}
sticky_key: member
rules:
  - {id: asked, when: WHEN, serve: scorer}
  - {id: rest, serve: scorer}
"""
CONDITIONS = (
    "{country: [NO, SE]}", "{country: {not: [NO, x]}}", "{country: {prefix: N}}", "{country: {suffix: N}}", "{country: {present: true}}",
    "{country: {present: false}}", "{device: {not: [tv, web]}}", "{kids: true}", "{kids: {not: false}}", '{version: {gt: "8.2"}}',
    '{version: {gte: "8.2"}}', '{version: {lt: "8.2"}}', "{tier: {gt: 3}}", "{tier: {lt: -3}}", "{tier: {lte: 4}}", "{weight: {gt: 1.5}}",
    "{tags: {contains_all: [a, b]}}", "{tags: {contains_any: [a, b]}}", "{tags: {present: true}}",
    "{any_of: [{country: NO, tier: 1}, {country: SE}]}", "{country: NO, device: tv, region: us}",
)  # fmt: skip


@pytest.mark.parametrize("when", CONDITIONS)
def test_it_gets_the_rule(when: str, tmp_path: Path) -> None:
    rules = write_rules(tmp_path, {"a": 1}, {"scorer": ["a"]})
    (rules / "objectives" / "main.yaml").write_text(OBJECTIVE.replace("WHEN", when))
    opened = open_rules(compile_directory(rules))
    engine = opened.revision.engine
    found = example(engine.objectives["main"], opened.rules["main"][0])
    assert "member" not in found, "the command tries members"
    assert engine.decide("main", {**found, "member": "m1"}).rule == "asked"
