"""Each flow of `tidegate rules diff` has a context that `tidegate rules explain` decides as the flow says, in both revisions."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.cli.diffed import EXPERIMENT, RANKING, diff, directory, ranking, with_rules
from tests.cli.rules_runner import rules

SETS: dict[str, Any] = {
    "context": {
        "member_id": {"type": "string", "required": True},
        "tags": {"type": "set"},
        "age": {"type": "integer"},
        "page": {"type": "string"},
        "score": {"type": "number"},
    },
    "rules": [
        {"id": "tagged", "when": {"tags": {"contains_all": ["a", "b"]}}, "serve": "best"},
        {"id": "paged", "when": {"page": {"prefix": "home"}, "age": {"gte": 18, "lt": 30}}, "serve": "best"},
        {"id": "scored", "when": {"any_of": [{"score": {"gt": 0.5}}, {"page": {"not": ["cart"]}}]}, "serve": "better"},
        {"id": "default", "serve": "base"},
    ],
}
TWO_KEYS: dict[str, Any] = {
    "context": {"version": {"type": "version"}, "name": {"type": "string"}},
    "sticky_key": ["version", "name"],
    "layers": {},
    "rules": [
        {
            "id": "new",
            "when": {"version": {"gt": "8.2"}, "name": {"not": "a"}},
            "split": {"base@champion": 1, "better": 1},
        },
        {"id": "default", "serve": "base"},
    ],
}
CALLERS = {"id": "asked", "experiment": {"id": "9", "allocate": "caller", "cells": {"a": "base", "b": "better"}}}
WINDOW = {"id": "june", "active": {"from": "2026-06-01T00:00:00Z", "until": "2026-07-01T00:00:00Z"}, "serve": "best"}
JUNE = "2026-06-15T12:00:00Z"


def edited(document: dict[str, Any], place: int, **keys: Any) -> dict[str, Any]:
    found = [dict(rule) for rule in document["rules"]]
    found[place] = {key: value for key, value in (found[place] | keys).items() if value is not None}
    return document | {"rules": found}


EDITS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("a ramp", {}, {"rules": with_rules({}, {"split": {"base@champion": 50, "better": 50}}, {})}),
    ("a rare variant", {}, {"rules": with_rules({}, {"split": {"base@champion": 899, "better": 100, "best": 1}}, {})}),
    ("parameters", {}, {"rules": with_rules({"parameters": {"top_k": 30}}, {}, {})}),
    ("a removed rule", {}, {"rules": with_rules(None, {}, {})}),
    ("no rule", {}, {"rules": with_rules({}, {}, None)}),
    ("a new experiment", {}, {"rules": [EXPERIMENT, *RANKING["rules"]]}),
    ("callers allocate", {"rules": [CALLERS, *RANKING["rules"]]}, {"rules": RANKING["rules"]}),
    ("a window", {}, {"rules": [WINDOW, *RANKING["rules"]]}),
    (
        "a narrower domain",
        {},
        {"context": RANKING["context"] | {"country": {"type": "string", "values": ["SE", "US"]}}},
    ),
    (
        "a key of another type",
        {},
        {"context": RANKING["context"] | {"member_id": {"type": "integer", "required": True}}},
    ),
    ("a set", SETS, edited(SETS, 0, when={"tags": {"contains_any": ["a", "c"]}})),
    ("a range and a prefix", SETS, edited(SETS, 1, when={"page": {"prefix": "home"}, "age": {"gte": 21, "lt": 30}})),
    ("alternatives", SETS, edited(SETS, 2, when={"score": {"gt": 0.25}})),
    ("a key after another", TWO_KEYS, edited(TWO_KEYS, 0, split=None, serve="best")),
]


@pytest.mark.parametrize(("before", "after"), [each[1:] for each in EDITS], ids=[each[0] for each in EDITS])
def test_explaining_an_example_gives_the_flow(before: dict[str, Any], after: dict[str, Any], tmp_path: Path) -> None:
    old, new = directory(tmp_path / "old", **before), directory(tmp_path / "new", **after)
    changing = [
        flow for flow in ranking(diff(old, new, "--at", JUNE))["rules"] if flow["from"] != flow["to"] or flow["retuned"]
    ]
    assert changing
    for flow in changing:
        assert flow["example"] is not None, flow
        context, at = json.dumps(flow["example"]["context"]), flow["example"]["at"] or "2030-01-01"
        for root, rule, target in ((old, flow["old_rule"], flow["from"]), (new, flow["new_rule"], flow["to"])):
            told = rules("explain", root, "--objective", "ranking", "--context", context, "--at", at, "--json")
            explained = json.loads(told.stdout)
            if target == "(refused)":
                assert "error" in explained
            elif target == "(no rule)":
                assert explained["decision"] is None
            else:
                assert (explained["decision"]["rule"], explained["decision"]["model"]) == (rule, target)


def test_the_command_that_is_printed_can_be_pasted(tmp_path: Path) -> None:
    old = directory(tmp_path / "old")
    new = directory(tmp_path / "it's new", rules=[WINDOW, *RANKING["rules"]])
    printed = rules("diff", old, new, "--at", JUNE).stdout
    commands = re.findall(r"^  (tidegate rules explain .*)$", printed, re.MULTILINE)
    assert commands
    for command in commands:
        done = rules(*shlex.split(command)[2:])
        assert done.exit_code == 0
        assert "rule june → best" in done.stdout
