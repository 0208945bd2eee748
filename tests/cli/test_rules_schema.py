"""`tidegate rules schema`: the schemas are current, accept the project's files, and refuse broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator

from tests.cli.rules_runner import RULES, rules, rules_json
from tests.rules.oracle import Directory
from tests.rules.strategies import directories
from tests.support.examples import OBJECTIVES

NAMES = ("callers", "cases", "fleet", "layers", "objective")
FILES = {
    "callers": [],
    "cases": [RULES / "cases" / f"{name}.yaml" for name in OBJECTIVES],
    "fleet": [RULES / "fleet.yaml"],
    "layers": [RULES / "layers.yaml"],
    "objective": [RULES / "objectives" / f"{name}.yaml" for name in OBJECTIVES],
}


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((RULES / "schema" / f"{name}.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def as_json(value: Any) -> Any:
    """YAML values as JSON has them: every key is text."""
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list) else value


def document(text: str) -> Any:
    return as_json(yaml.safe_load(text))


def test_the_schemas_of_the_project_are_current() -> None:
    told = rules_json("schema", "--out", RULES / "schema", "--check")
    assert sorted(Path(each["file"]).stem for each in told["files"]) == sorted(NAMES)
    assert {each["state"] for each in told["files"]} == {"current"}


def test_drift_is_a_finding_and_writing_heals_it(tmp_path: Path) -> None:
    out = tmp_path / "schema"
    assert rules("schema", "--out", out, "--check").exit_code == 1
    assert not out.exists()
    assert rules("schema", "--out", out).exit_code == 0
    assert rules("schema", "--out", out, "--check").exit_code == 0
    (out / "fleet.json").write_text("{}", encoding="utf-8")
    drift = rules("schema", "--out", out, "--check")
    assert drift.exit_code == 1
    assert "fleet.json: differs" in drift.stdout
    assert rules("schema", "--out", tmp_path / "no" / "where").exit_code == 2


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_the_project_is_valid_and_names_its_schema(name: str) -> None:
    for file in FILES[name]:
        text = file.read_text(encoding="utf-8")
        told = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
        assert (file.parent / told).resolve() == RULES / "schema" / f"{name}.json", file
        assert list(validator(name).iter_errors(document(text))) == [], file


RULE = "objective: o\nrules: [{%s}]"
BROKEN = [
    ("objective", RULE % "id: a"),
    ("objective", RULE % "id: a, serve: b, split: {b: 1}"),
    ("objective", RULE % "id: a, serve: b, wen: {}"),
    ("objective", RULE % "id: a, serve: b/0"),
    ("objective", RULE % "id: a, serve: b, when: {country: {gtt: 1}}"),
    ("objective", RULE % "id: a, serve: b, when: {country: []}"),
    ("objective", RULE % "id: a, serve: b, when: null"),
    ("objective", RULE % "id: a, serve: b, when: {any_of: {}}"),
    ("objective", RULE % "id: a, split: {b: 0.5}"),
    ("objective", RULE % "id: a, serve: b, shadow: {b: 101}"),
    ("objective", RULE % "id: a, serve: b, parameters: {1x: 1}"),
    ("objective", RULE % "id: a, experiment: {id: 1, cells: {1: {weight: 1}}}"),
    ("objective", "objective: o\ncontext: {'a b': {type: string}}\nrules: [{id: a, serve: b}]"),
    ("objective", "objective: o\ncontext: {a: {type: text}}\nrules: [{id: a, serve: b}]"),
    ("fleet", "shards: {a: {}}"),
    ("fleet", "shards: {a: {replicas: 0}}\nmodels: {m: {shards: [a]}}"),
    ("fleet", "shards: {a: {}}\nmodels: {m: {shards: [a]}}\naliases: {plain: m}"),
    ("layers", "home: {holdout: [0, 1]}"),
    ("layers", "home: {key: k, experiments: {a: [0, 10000]}}"),
    ("layers", "home: {key: k, experiments: {a: [0]}}"),
    ("cases", "cases: [{name: n}]"),
    ("cases", "[{name: n, expect: {modell: b}}]"),
    ("cases", "[{name: n, expect: {reason: because}}]"),
    ("cases", "[{name: n, expect: {model: null}}]"),
    ("callers", "callers: {app: {traffic: fake, objectives: [a]}}"),
]


@pytest.mark.parametrize(("name", "text"), BROKEN)
def test_a_broken_file_is_refused(name: str, text: str) -> None:
    assert list(validator(name).iter_errors(document(text)))


SOUND = [
    ("objective", RULE % "id: a, serve: b, when: {country: [SE, 1], age: {gte: 18}, any_of: [{x: true}]}"),
    ("objective", RULE % "id: a, experiment: {id: 1, layer: home, cells: {1: b, x: {serve: c, weight: 2}}}"),
    ("layers", "home: {key: [a, b], experiments: {1: [[0, 9], [20, 29]], b: [40, 49]}}"),
    ("cases", "[{name: n, allocations: {1: x}, expect: {rule: null}}]"),
    ("cases", "objective: o\ncases: [{name: n, context: {a: null}, expect: {error: a}}]"),
]


@pytest.mark.parametrize(("name", "text"), SOUND)
def test_what_the_parser_accepts_is_valid(name: str, text: str) -> None:
    assert list(validator(name).iter_errors(document(text))) == []


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(directories())
def test_random_sound_directories_are_valid(directory: Directory) -> None:
    for name, value in (("fleet", directory.fleet), ("layers", directory.layers)):
        assert list(validator(name).iter_errors(as_json(value))) == []
    for objective in directory.objectives.values():
        assert list(validator("objective").iter_errors(as_json(objective))) == []
