"""`tidegate rules find-member`: made-up members that the engine gives what was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tidegate.rules import compile_directory, load_bundle

from tests.cli.rules_runner import RULES, rules, rules_json

FILES = {
    "fleet.yaml": "shards: {a: {}}\nmodels: {one: {shards: [a]}, two: {shards: [a]}}\n",
    "layers.yaml": 'home: {key: [profile_id, member_id], experiments: {"7": [0, 999]}}\n',
    "objectives/picked.yaml": """\
objective: picked
context:
  member_id: {type: string}
  profile_id: {type: integer}
  country: {type: string}
  device: {type: string, values: [tv, mobile]}
  age: {type: integer, required: true}
sticky_key: [device, member_id]
rules:
  - {id: grown, when: {age: {gte: 18}}, serve: one}
  - id: ab
    when: {country: SE}
    experiment: {id: "7", layer: home, cells: {1: {serve: one, weight: 9}, 2: {serve: two, weight: 1}}}
  - id: asked
    experiment: {id: "8", allocate: caller, cells: {control: one, treatment: two}}
  - {id: halves, split: {one: 1, two: 1}}
""",
    "objectives/other.yaml": "objective: other\nrules: [{id: halved, serve: one}]\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "objectives").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def find(folder: Path, *arguments: str, exit_code: int = 0, **context: Any) -> Any:
    given = json.dumps({"age": 7, **context})
    asked = ("find-member", folder, "--objective", "picked", "--context", given, *arguments)
    return rules_json(*asked, exit_code=exit_code)


def test_members_of_a_cell_are_those_that_the_engine_puts_into_it(folder: Path) -> None:
    found = find(folder, "--experiment", "7", "--cell", "2", "--count", "5", country="SE")
    engine = load_bundle(compile_directory(folder))
    assert len(found["members"]) == 5
    assert len({member["context"]["profile_id"] for member in found["members"]}) == 5
    for member in found["members"]:
        assert member["context"]["country"] == "SE"
        decision = engine.decide("picked", member["context"])
        assert (decision.experiment, decision.cell, decision.rule) == ("7", 2, "ab")
        assert member["decision"] == decision.as_dict()
    assert found["tried"] == 5 + sum(found["elsewhere"].values())
    assert find(folder, "--experiment", "7", "--cell", "2", "--count", "5", country="SE") == found, "the same each time"


def test_what_is_given_is_not_made_up(folder: Path) -> None:
    found = find(folder, "--experiment", "7", "--most", "50", country="SE", member_id="m", profile_id=3, exit_code=1)
    assert (found["members"], found["tried"]) == ([], 1)


def test_a_closed_key_has_no_more_members_than_values(folder: Path) -> None:
    file = folder / "objectives/picked.yaml"
    file.write_text(file.read_text().replace("[device, member_id]", "device"))
    found = find(folder, "--rule", "halves", "--variant", "two", "--count", "9", profile_id=3, exit_code=1)
    assert found["tried"] == 2


def test_an_experiment_that_the_caller_allocates_is_allocated(folder: Path) -> None:
    (member,) = find(folder, "--experiment", "8", "--cell", "treatment")["members"]
    assert member["context"]["allocations"] == {"8": "treatment"}
    assert member["decision"]["cell"] == "treatment"


def test_where_too_few_get_it_the_others_are_told(folder: Path) -> None:
    asked = ("find-member", folder, "--objective", "picked", "--experiment", "7", "--most", "40")
    result = rules(*asked, "--context", '{"age": 20}')
    assert (result.exit_code, result.stdout) == (1, "")
    assert "0 of 1 found" in result.stderr
    assert "get rule grown" in result.stderr
    assert "goes into --context" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--experiment", "77"), "no experiment '77'"),
        (("--experiment", "7", "--cell", "3"), "no cell '3': known cells: 1, 2"),
        (("--rule", "halve"), "did you mean 'halves'?"),
        (("--variant", "twoo"), "did you mean 'two'?"),
        (("--cell", "2"), "--experiment"),
    ],
)
def test_what_the_objective_does_not_have_is_wrong_usage(folder: Path, arguments: tuple[str, ...], told: str) -> None:
    result = rules("find-member", folder, "--objective", "picked", *arguments)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
    assert "halved" not in result.stderr, "a rule of another objective"


def test_a_context_that_lacks_an_attribute_names_it(folder: Path) -> None:
    result = rules("find-member", folder, "--objective", "picked")
    assert (result.exit_code, "'age'" in result.stderr, "--context" in result.stderr) == (1, True, True)


def test_members_of_the_projects_own_experiment_are_found() -> None:
    result = rules("find-member", RULES, "--objective", "title_ranking", "--count", "3")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 3)
