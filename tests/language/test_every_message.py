"""Every message for a wrong value: plain, with the value as it was read, its place and the fix, whatever is wrong where."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from tidegate.analysis.cases.reading import read_cases
from tidegate.errors import Finding
from tidegate.language.case_documents import CaseFile
from tidegate.language.directory import read_directory
from tidegate.language.documents import CallersFile, FleetFile, LayerSpec, ObjectiveFile
from tidegate.language.shape import Report, check_shape
from tidegate.language.source import Source

from tests.support.effort import is_full

FLEET = {
    "shards": {"cpu": {"replicas": 2, "memory_mb": 900, "traffic_per_s": 10.5, "instance_type": "g5", "min_replicas": 0,
                       "max_replicas": 3, "spot_percent": 5, "scale_to_zero": True}},
    "models": {"base": {"shards": ["cpu"], "memory_mb": 1, "traffic_per_s": 1, "tenant": "acme"},
               "auto": {"shards": "auto", "replicas": 1}},
    "steps": {"step": {"memory_mb": 1}},
    "tenants": {"acme": {"apart_from": ["other"]}, "other": {"apart_from": "*"}},
    "aliases": {"base@champion": "base/3"},
}  # fmt: skip
LAYERS = {
    "home": {"key": ["member_id"], "holdout": [0, 9], "experiments": {"12": [10, 20], "13": [[30, 40], [50, 60]]}}
}
CALLERS = {"callers": {"home": {"objectives": ["o"], "rate_per_s": 1, "concurrency": 2, "overrides": ["base"],
                                "traffic": "real", "priority": "low", "marks": ["replay"], "burst": 3,
                                "limits": {"o": {"rate_per_s": 1, "burst": 2, "concurrency": 1}}}}}  # fmt: skip
OBJECTIVE = {
    "objective": "o",
    "summary": "s",
    "owner": "t",
    "context": {
        "member_id": {"type": "string", "required": True},
        "country": {"type": "string", "values": ["SE", "US"], "default": "SE", "from": "header:X-Country"},
        "age": {"type": "integer"},
        "tags": {"type": "set"},
    },
    "sticky_key": ["member_id"],
    "timeout_ms": 80,
    "limits": {"rate_per_s": 1, "burst": 2, "concurrency": 1},
    "loggable": ["country"],
    "fallback": ["base"],
    "rules": [
        {"id": "a", "when": {"country": "SE", "age": {"gte": 3, "not": [5]}, "tags": {"contains_any": ["x"]},
                             "any_of": [{"age": [1, 2]}, {"member_id": {"prefix": "t", "present": True}}]},
         "active": {"from": "2026-01-01", "until": "2027-01-01"}, "split": {"base": 5, "auto": 1},
         "shadow": {"auto": 10}, "fallback": "base", "parameters": {"top_k": 20, "mode": "deep", "flag": True},
         "timeout_ms": 9, "hedge_after_ms": 3, "fault": {"delay_ms": 5, "abort_status": 503, "percent": 0.5}},
        {"id": "b", "experiment": {"id": 12, "layer": "home", "cells": {1: {"serve": "base", "weight": 2}, "x": "base"}}},
        {"id": "c", "serve": "base@champion", "hedge_at": "p95"},
    ],
}  # fmt: skip
CASES = {
    "objective": "o",
    "cases": [
        {"name": "n", "context": {"member_id": "1"}, "at": "2026-02-01", "allocations": {"e": 1},
         "expect": {"rule": "a", "model": "base", "version": 3, "target": "base", "variant": "x", "experiment": "12",
                    "cell": 1, "reason": "split", "parameters": {"top_k": 1}, "fallbacks": ["base"],
                    "shadows": {"base": 1}, "timeout_ms": 5, "hedge_after_ms": 5, "hedge_at": "p95",
                    "shards": ["cpu"]}},
    ],
}  # fmt: skip
FILES: Mapping[str, Any] = {
    "fleet.yaml": FLEET,
    "layers.yaml": LAYERS,
    "callers.yaml": CALLERS,
    "objectives/o.yaml": OBJECTIVE,
    "cases/o.yaml": CASES,
}
VALUES: list[Any] = [
    None, True, 0, -1, 5, 10**12, 0.5, -0.5, float("inf"), float("nan"), "", "x y", "1_000", "1,000", "5", "yes", "é\n",
    "a" * 9000, [], [None], ["x", 5], [[1]], [1, 2, 3], {}, {5: 1}, {"x y": 1}, {"unheard_of": 1}, {"a" * 300: 1},
]  # fmt: skip


def values(place: int) -> list[Any]:
    """What is put at a place: every fourth value, the next place has those beside, or all of them."""
    return VALUES if is_full() else VALUES[place % 4 :: 4]


VAGUE = re.compile(
    r"None|\bnothing\b|another value|may stand|\bwrite a value\b|<class|pydantic|\btold\b|anew", re.IGNORECASE
)


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*at, key))


def replaced(document: Any, at: tuple[Any, ...], value: Any) -> Any:
    if not at:
        return value
    changed = copy.deepcopy(document)
    here = changed
    for step in at[:-1]:
        here = here[step]
    here[at[-1]] = value
    return changed


def written(root: Path) -> Path:
    for name, document in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(yaml.safe_dump(document, sort_keys=False))
    return root


def check_message(finding: Finding, file: str, text: str) -> None:
    told = str(finding)
    assert not VAGUE.search(told), told
    assert finding.message and finding.hint, told
    assert len(told) < 700, told
    lines = text.splitlines() or [""]
    if finding.file == file:
        assert 1 <= finding.line <= len(lines), told
        assert 1 <= finding.column <= len(lines[finding.line - 1]) + 1, told


@pytest.mark.parametrize("file", FILES)
def test_no_value_anywhere_gets_a_vague_message(tmp_path: Path, file: str) -> None:
    root = written(tmp_path)
    assert read_directory(root)[1] == []
    for number, at in enumerate(places(FILES[file])):
        for value in values(number):
            text = yaml.dump(replaced(FILES[file], at, value), sort_keys=False, allow_unicode=True)
            (root / file).write_text(text, encoding="utf-8")
            findings = [*read_directory(root)[1], *read_cases(root, {"o"})[1]]
            for finding in findings:
                check_message(finding, file, text)


KINDS = {
    "bool_type", "dict_type", "extra_forbidden", "finite_number", "float_type", "greater_than_equal", "int_type",
    "invalid_key", "less_than_equal", "list_type", "literal_error", "missing", "model_type", "none_required",
    "string_pattern_mismatch", "string_too_long", "string_too_short", "string_type", "too_long", "too_short",
}  # fmt: skip
"""Every kind of error that pydantic raises for the models of the language."""


def test_every_kind_of_error_of_the_models_has_its_words() -> None:
    seen: set[str] = set()
    shapes: list[tuple[Any, Any]] = [
        (FleetFile, FLEET), (LayerSpec, LAYERS["home"]), (CallersFile, CALLERS), (ObjectiveFile, OBJECTIVE), (CaseFile, CASES),
    ]  # fmt: skip
    for model, sound in shapes:
        for at in places(sound):
            for value in VALUES:
                document = replaced(sound, at, value)
                try:
                    model.model_validate(document)
                except ValidationError as error:
                    seen |= {detail["type"] for detail in error.errors()}
                told: list[tuple[str, str]] = []
                source = Source("file", document)
                check_shape(model, document, Report(source, lambda _, message, hint: told.append((message, hint))))  # noqa: B023
                for message, hint in told:
                    assert not VAGUE.search(f"{message} {hint}"), (at, json.dumps(str(value))[:80], message, hint)
    assert seen == KINDS


@pytest.mark.parametrize(
    ("line", "place", "words"),
    [
        ('summary: "never closed', (2, 10), ("quote", "closed")),
        ("summary: 'never closed", (2, 10), ("quote", "closed")),
        ("summary: this: that", (2, 14), ("quotes", '"this: that"')),
        ("fallback: *", (2, 11), ("'*'", "quotes")),
        ("fallback: *base", (2, 11), ("alias", "quotes")),
        ("owner: @team", (2, 8), ("'@'", "quotes")),
        ("owner: %team", (2, 8), ("'%'", "quotes")),
        ("owner: `team`", (2, 8), ("'`'", "quotes")),
        ("owner: |team", (2, 9), ("'|'", "quotes")),
        ('owner: "a\\qb"', (2, 10), ("'\\\\q'", "backslash")),
        ('owner: "a" b', (2, 12), ("quotes",)),
        ("owner: - b", (2, 8), ("list item",)),
        ("owner: ]", (2, 8), ("']'", "quotes")),
        ("fallback: [base", (2, 11), ("'['", "closed")),
        ("fallback: [base popularity, {a b c]", (2, 35), ("'}'", "missing")),
        ("context: {a: {type: string}, b: {type: string}", (2, 10), ("'{'", "closed")),
        ("context: {country:US}", (2, 11), ("country: US", "space")),
        ("owner:team", (2, 1), ("space after the colon",)),
        ("  owner: team", (2, 8), ("indent",)),
    ],
)
def test_what_is_no_yaml_is_located_where_it_begins(
    tmp_path: Path, line: str, place: tuple[int, int], words: tuple[str, ...]
) -> None:
    root = written(tmp_path)
    text = f"objective: o\n{line}\nrules:\n  - id: a\n    serve: base\n  - id: b\n    serve: base\n"
    (root / "objectives/o.yaml").write_text(text)
    found = [each for each in read_directory(root)[1] if each.file == "objectives/o.yaml"]
    assert (found[0].line, found[0].column) == place, str(found[0])
    assert all(word in str(found[0]) for word in words), str(found[0])


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("- {id: a, serve: base, parameters: {mode: " + "x" * 9000 + "}}", ("'mode'", "9000 characters", "1024")),
        ("- {id: a, when: {5: x}, serve: base}", ("key '5'",)),
        ("- [a]", ("item 1 of 'rules'", "a list", "mapping")),
        ("- {id: a, split: {base: 5000000000}}", ("'base'", "5000000000", "1000000000")),
        ("- {id: a, split: {base: 1_000}}", ("'base'", "'1_000'", "1000")),
        ("- {id: a, when: {age: 1_000}, serve: base}", ("'age'", "'1_000'", "1000")),
        ('- {id: a, split: {base: "5"}}', ("'base'", "without the quotes")),
        ("- {id: a, experiment: {id: x, allocate: caller, cells: [base]}}", ("'cells'", "a list", "mapping")),
        ('- {id: a, experiment: {id: x, allocate: caller, cells: {"a b": base}}}', ("'a b'", "name")),
        ("- {id: a, experiment: {id: 12, layer: home, cells: {2: 7}}}", ("'2'", "the integer 7")),
    ],
)
def test_a_message_names_the_value_as_it_was_read_and_the_limits(
    tmp_path: Path, rules: str, words: tuple[str, ...]
) -> None:
    root = written(tmp_path)
    document = dict(OBJECTIVE) | {"rules": [{"id": "z", "serve": "base"}]}
    text = yaml.safe_dump(document, sort_keys=False).partition("rules:")[0]
    (root / "objectives/o.yaml").write_text(f"{text}rules:\n{rules}\n")
    (found,) = [each for each in read_directory(root)[1] if each.file == "objectives/o.yaml"]
    assert all(word in str(found) for word in words), str(found)
