"""Settings that change nothing are a finding of `tidegate rules check`, and one experiment with two sets of arms an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
from tidegate.language.documents import When
from tidegate.language.experiment_runs import ExperimentRuns
from tidegate.language.spare_conditions import of_when
from tidegate.rules.bundle.rule import Cell, Experiment, Rule
from tidegate.rules.conditions import Predicate
from tidegate.rules.contract import Attribute

from tests.cli.rules_runner import rules, rules_json, write

FLEET = """\
shards: {cpu: {}}
models: {base: {shards: [cpu]}, better: {shards: [cpu]}}
aliases: {base@champion: base}
"""
LAYERS = "home: {key: member_id, experiments: {ab: [0, 4999]}}\n"
CONTEXT = """\
  member_id: {type: string, required: true}
  device: {type: string, values: [tv, web], default: web}
  country: {type: string}
  age: {type: integer}
  version: {type: version, required: true}
  tags: {type: set}
"""
DEFAULT = "  - {id: default, serve: base@champion}\n"


def found(root: Path, rule: str = "", head: str = "", **files: str) -> list[tuple[str, str, int]]:
    """Kind, file and line of what a check says of a directory with one rule above the last."""
    objective = f"objective: ranking\nsticky_key: member_id\n{head}context:\n{CONTEXT}rules:\n{rule}{DEFAULT}"
    written = {"fleet.yaml": FLEET, "objectives/ranking.yaml": objective}
    written |= {f"{name}.yaml": text for name, text in files.items()}
    told = rules_json("check", write(root, {**written}))  # type: ignore[dict-item]
    return [(each["kind"], each["file"], each["line"]) for each in told["findings"] if each["kind"] != "unused-model"]


RULES = {
    "layer beside caller": "experiment: {id: ab, layer: home, allocate: caller, cells: {1: base, 2: better}}",
    "weight beside caller": "experiment: {id: ab, allocate: caller, cells: {1: {serve: base, weight: 2}, 2: better}}",
    "weight of one cell": "experiment: {id: ab, layer: home, cells: {1: {serve: base, weight: 2}}}",
    "shared alone": "experiment: {id: ab, layer: home, shared: true, cells: {1: base, 2: better}}",
    "parameter twice": "parameters: {k: 1}, experiment: {id: ab, layer: home, cells: {1: {serve: base, parameters: {k: 1}}, 2: better}}",
    "parameter of every cell": "parameters: {k: 1}, experiment: {id: ab, layer: home, cells: {1: {serve: base, parameters: {k: 2}}}}",
    "fallback twice": "serve: better, fallback: [base, base], when: {country: SE}",
    "fallback twice by alias": "serve: better, fallback: [base, base@champion], when: {country: SE}",
    "fallback to itself": "serve: better, fallback: [better], when: {country: SE}",
    "no fallback to take away": "serve: better, fallback: [], when: {country: SE}",
    "fault of nothing": "serve: better, fault: {abort_status: 503, percent: 0}, when: {country: SE}",
    "fault for nobody": "serve: better, fault: {abort_status: 503}, when: {country: SE}",
    "shadow of nothing": "serve: better, shadow: {base: 0}, when: {country: SE}",
    "value twice": "serve: better, when: {country: [SE, NO, SE]}",
    "value twice in an operator": "serve: better, when: {country: {not: [SE, SE]}}",
    "version twice": 'serve: better, when: {version: ["8.2", "8.2.0"]}',
    "all values": "serve: better, when: {device: [tv, web], country: SE}",
    "present beside another": "serve: better, when: {country: {present: true, not: SE}}",
    "present and required": "serve: better, when: {member_id: {present: true}, country: SE}",
    "gt beside gte": "serve: better, when: {age: {gt: 18, gte: 18}}",
    "lt beside lte": "serve: better, when: {age: {lt: 18, lte: 10}}",
    "in beside gte": "serve: better, when: {age: {in: [20, 30], gte: 18}}",
    "not outside": "serve: better, when: {age: {gte: 18, not: [3, 20]}}",
    "prefix covered": "serve: better, when: {country: {prefix: [S, SE]}}",
    "prefix of everything": 'serve: better, when: {country: {suffix: ""}}',
    "any beside all": "serve: better, when: {tags: {contains_any: [a, b], contains_all: [a]}}",
    "alternative twice": "serve: better, when: {any_of: [{country: SE}, {country: SE}]}",
    "part of an alternative": "serve: better, when: {any_of: [{country: SE}, {country: SE, age: 1}]}",
    "alternative that another covers": "serve: better, when: {any_of: [{country: SE, age: {gt: 30}}, {age: {gte: 18}}]}",
    "alternative of alternatives twice": "serve: better, when: {any_of: [{any_of: [{age: 1}, {country: SE}]}, {any_of: [{age: 1}, {country: SE}]}]}",
    "alternative that always holds": "serve: better, when: {country: SE, any_of: [{country: SE}, {age: 1}]}",
    "alternative that a list implies": "serve: better, when: {country: [SE], any_of: [{country: [SE, NO]}, {age: 1}]}",
    "alternative that a bound implies": "serve: better, when: {age: {gt: 18}, any_of: [{age: {gte: 18}}, {country: SE}]}",
    "alternative that all of a set implies": "serve: better, when: {tags: {contains_all: [a, b]}, any_of: [{tags: {contains_any: [b]}}, {age: 1}]}",
    "alternative that an affix implies": "serve: better, when: {country: {prefix: SE}, any_of: [{country: {prefix: S}}, {age: 1}]}",
    "alternative of alternatives that always holds": "serve: better, when: {country: SE, any_of: [{any_of: [{age: 2}, {country: SE}]}, {age: 1}]}",
    "term of an alternative": "serve: better, when: {country: SE, any_of: [{country: {not: NO}, age: 2}, {age: 1}]}",
    "term of an alternative within": "serve: better, when: {version: '8.2', any_of: [{country: SE, any_of: [{version: '8.2.0', age: 2}, {age: 1}]}, {age: 3}]}",
    "alternative that never holds": "serve: better, when: {country: SE, any_of: [{country: NO}, {age: 1}]}",
    "alternative out of bounds": "serve: better, when: {age: {lt: 18}, any_of: [{age: {gte: 18}}, {country: SE}]}",
    "alternative of what is absent": "serve: better, when: {country: {present: false}, any_of: [{country: SE}, {age: 1}]}",
    "fallback to itself by alias": "serve: base, fallback: base@champion, when: {country: SE}",
    "fallback to a split's one variant": "split: {better: 1}, fallback: [better], when: {country: SE}",
    "fallback to all variants": "split: {base: 1, base@champion: 0}, fallback: [base], when: {country: SE}",
    "fallback to all cells": "experiment: {id: ab, layer: home, cells: {1: base, 2: {serve: base@champion, parameters: {k: 1}}}}, fallback: [base]",
    "variant twice by alias": "split: {base: 50, better: 0, base@champion: 50}, when: {country: SE}",
    "alternative without a condition": "serve: better, when: {country: SE, any_of: [{age: 1}, {}]}",
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_setting_of_a_rule_without_effect_is_a_finding(rule: str, tmp_path: Path) -> None:
    told = found(tmp_path, f"  - {{id: first, {rule}}}\n", layers=LAYERS)
    assert ("no-effect", "objectives/ranking.yaml", CONTEXT.count("\n") + 5) in told


@pytest.mark.parametrize("caller", ["traffic: synthetic", "marks: [synthetic]"])
def test_a_fault_that_a_caller_can_get_has_an_effect(caller: str, tmp_path: Path) -> None:
    rule = "  - {id: first, serve: better, fault: {abort_status: 503, percent: 0.5}, when: {country: SE}}\n"
    callers = f"callers: {{tests: {{objectives: ranking, {caller}}}}}\n"
    assert "no-effect" not in {kind for kind, _, _ in found(tmp_path, rule, callers=callers)}


@pytest.mark.parametrize("operator", ["prefix", "suffix"])
@pytest.mark.parametrize(
    ("name", "beside", "is_deleted"),
    [
        ("country", "", False),
        ("country", ", not: SE", True),
        ("member_id", "", True),
        ("device", "", True),
    ],
)
def test_what_is_advised_of_an_affix_of_every_text_changes_no_decision(
    operator: str, name: str, beside: str, is_deleted: bool, tmp_path: Path
) -> None:
    rule = f"  - {{id: first, when: {{{name}: {{{operator}: ''{beside}}}, age: 1}}, serve: better}}\n"
    found(tmp_path, rule)
    (told,) = [each for each in rules_json("check", tmp_path)["findings"] if each["kind"] == "no-effect"]
    assert (told["hint"] == "delete it") is is_deleted
    assert (f"{name}: {{present: true}}" in told["hint"]) is not is_deleted


def test_affixes_are_compared_from_their_own_end(tmp_path: Path) -> None:
    affixes = "[ab, b, ba, cab, c]"
    found(tmp_path, f"  - {{id: first, when: {{country: {{prefix: {affixes}, suffix: {affixes}}}}}, serve: better}}\n")
    messages = [each["message"] for each in rules_json("check", tmp_path)["findings"] if "covers" in each["message"]]
    assert sorted(messages) == [
        "'b' beside it covers 'ab'",
        "'b' beside it covers 'ba'",
        "'b' beside it covers 'cab'",
        "'c' beside it covers 'cab'",
    ]


@pytest.mark.parametrize("operator", ["prefix", "suffix"])
def test_many_affixes_are_compared_in_linear_time(operator: Literal["prefix", "suffix"]) -> None:
    # Compared in pairs, they would take more than half an hour.
    affixes = [f"x{number:06}x" for number in range(100_000)]
    terms = (Predicate("country", operator, tuple(affixes)),)
    told: list[str] = []
    of_when(
        When.model_validate({"country": {operator: affixes}}),
        terms,
        {"country": Attribute("country", "string")},
        ("when",),
        lambda _at, message, _hint: told.append(message),
    )
    assert told == []


def test_settings_of_an_objective_without_effect_are_findings(tmp_path: Path) -> None:
    assert ("no-effect", "objectives/ranking.yaml", 3) in found(tmp_path, head="fallback: [better, better]\n")
    sticky = "sticky_key: [age, age, member_id]\n"
    text = f"objective: ranking\n{sticky}context: {{age: {{type: integer, default: 1}}, member_id: {{type: string}}}}\n"
    rule = "rules: [{id: a, serve: base, timeout_ms: 5, fallback: better}]\ntimeout_ms: 9\nfallback: [base]\n"
    told = rules_json("check", write(tmp_path / "more", {"fleet.yaml": FLEET, "objectives/ranking.yaml": text + rule}))
    lines = [each["line"] for each in told["findings"] if each["kind"] == "no-effect"]
    assert {2, 5, 6} <= set(lines)


@pytest.mark.parametrize(
    ("rules_of", "is_noted"),
    [
        ("[{id: a, serve: base}]", True),
        ("[{id: a, split: {base: 1, base/1: 0}}]", False),
        ("[{id: a, serve: base, when: {m: x}, fallback: []}, {id: b, serve: base}]", True),
        ("[{id: a, serve: base, when: {m: x}}, {id: b, serve: better}]", False),
    ],
)
def test_a_fallback_of_the_objective_is_a_finding_where_every_rule_that_inherits_it_serves_it(
    rules_of: str, is_noted: bool, tmp_path: Path
) -> None:
    text = f"objective: ranking\nsticky_key: m\nfallback: [base@champion]\ncontext: {{m: {{type: string}}}}\nrules: {rules_of}\n"
    told = rules_json("check", write(tmp_path, {"fleet.yaml": FLEET, "objectives/ranking.yaml": text}))
    assert ([each["line"] for each in told["findings"] if each["kind"] == "no-effect"] == [3]) is is_noted


def test_values_without_effect_are_findings(tmp_path: Path) -> None:
    text = "objective: ranking\ncontext:\n  a: {type: boolean, values: [true, false]}\n  b: {type: number, values: [1, 1.0]}\n  c: {type: set, default: [x, x]}\n"
    rule = "rules: [{id: a, serve: base}]\n"
    told = rules_json("check", write(tmp_path, {"fleet.yaml": FLEET, "objectives/ranking.yaml": text + rule}))
    assert [each["line"] for each in told["findings"] if each["kind"] == "no-effect"] == [3, 4, 5]


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("callers", "callers:\n  web: {objectives: '*', overrides: [base, base/1]}\n", 2),
        ("layers", "home: {key: [member_id, member_id], experiments: {ab: [0, 9]}}\n", 1),
        ("fleet", FLEET + "tenants: {nobody: {}}\n", 4),
        ("fleet", FLEET.replace("cpu: {}", "cpu: {alternative_types: [x, x]}"), 1),
        ("fleet", FLEET.replace("cpu: {}", "cpu: {instance_type: x, alternative_types: [y, x]}"), 1),
    ],
)
def test_settings_of_other_files_without_effect_are_findings(file: str, text: str, line: int, tmp_path: Path) -> None:
    rule = "  - {id: first, experiment: {id: ab, layer: home, cells: {1: base, 2: better}}}\n"
    told = found(tmp_path, rule, **{"layers": LAYERS, file: text})
    assert ("no-effect", f"{file}.yaml", line) in told


def test_rules_whose_every_setting_has_an_effect_have_no_finding(tmp_path: Path) -> None:
    rule = """\
  - {id: a, when: {age: {gte: 18, lt: 65, not: [20]}, country: {prefix: [S, N]}}, serve: better, fallback: [base]}
  - {id: b, when: {device: tv, version: ["8.2", "9"], tags: {contains_any: [a], contains_all: [b]}}, split: {base: 1, better: 0}, shadow: {better: 1}}
  - {id: alternatives, when: {age: {gte: 18}, any_of: [{age: {lt: 20}, country: SE}, {age: {gte: 30}, country: SE}, {country: [SE, NO], device: tv}]}, serve: base, fallback: [better]}
  - {id: versions, split: {base: 1, base/1: 1}, fallback: [base], when: {any_of: [{tags: {contains_any: [a]}}, {age: 1, tags: {contains_all: [b]}}]}}
  - {id: c, experiment: {id: ab, layer: home, cells: {1: {serve: base, weight: 2}, 2: better}}, parameters: {k: 1}}
"""
    assert found(tmp_path, rule, head="fallback: [better]\ntimeout_ms: 9\n", layers=LAYERS) == []


def test_a_finding_fails_a_strict_check_alone(tmp_path: Path) -> None:
    rule = "  - {id: first, when: {country: [SE, SE]}, serve: better}\n"
    found(tmp_path, rule)
    assert rules("check", tmp_path).exit_code == 0
    assert rules("check", tmp_path, "--strict").exit_code == 1


def test_cases_of_one_name_are_refused_on_one_line_too(tmp_path: Path) -> None:
    case = "{name: a, context: {member_id: '1'}, expect: {rule: default}}"
    told = rules("test", write(tmp_path, {"cases/ranking.yaml": f"cases: [{case}, {case}]\n"}))
    assert told.exit_code == 1
    assert "duplicate case 'a'" in told.stderr


AB = "{id: ab, layer: home, cells: {1: base, 2: better}}"


def two_runs(root: Path, one: str, other: str, *, apart: bool = False) -> Any:
    """A check of two rules that run an experiment, of one objective or of two."""
    head = "objective: {}\ncontext: {{member_id: {{type: string}}, country: {{type: string}}}}\nrules:\n"
    last = "  - {id: default, serve: base}\n"
    first = f"  - {{id: first, when: {{country: SE}}, {one}}}\n"
    second = f"  - {{id: second, {other}}}\n"
    files = {"fleet.yaml": FLEET, "layers.yaml": LAYERS}
    texts = {"ranking": first + last, "search": second + last} if apart else {"ranking": first + second + last}
    files |= {f"objectives/{name}.yaml": head.format(name) + text for name, text in texts.items()}
    return rules("check", write(root, {**files}))  # type: ignore[dict-item]


DIFFERENT = {
    "cells": "experiment: {id: ab, layer: home, cells: {1: base, 3: better}}",
    "weights": "experiment: {id: ab, layer: home, cells: {1: {serve: base, weight: 3}, 2: better}}",
    "targets": "experiment: {id: ab, layer: home, cells: {1: better, 2: base}}",
    "parameters": "parameters: {k: 1}, experiment: {id: ab, layer: home, cells: {1: base, 2: better}}",
    "allocation": "experiment: {id: ab, allocate: caller, cells: {1: base, 2: better}}",
}


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("what", DIFFERENT)
def test_one_experiment_with_different_arms_is_an_error_at_both_places(what: str, apart: bool, tmp_path: Path) -> None:
    told = two_runs(tmp_path, f"experiment: {AB}", DIFFERENT[what], apart=apart)
    assert told.exit_code == 1
    assert f"objectives/{'search' if apart else 'ranking'}.yaml:" in told.output
    assert "rule 'first' of objectives/ranking.yaml:4" in told.output
    assert what in told.output


def test_to_a_model_true_is_not_1_in_the_arms_of_an_experiment(tmp_path: Path) -> None:
    one, other = (f"parameters: {{p: {value}}}, experiment: {AB}" for value in ("1", "true"))
    told = two_runs(tmp_path, one, other)
    assert told.exit_code == 1
    assert "rule 'first' of objectives/ranking.yaml:4, with other parameters" in told.output


def test_a_run_is_compared_with_every_other(tmp_path: Path) -> None:
    alike, other = f"experiment: {AB}", DIFFERENT["targets"]
    runs = [alike, alike, other, *(each.replace("{id: ab,", "{id: ab, shared: true,") for each in (other, alike))]
    rule = "".join(f"  - {{id: r{number}, when: {{country: C{number}}}, {run}}}\n" for number, run in enumerate(runs))
    objective = f"objective: ranking\ncontext:\n{CONTEXT}rules:\n{rule}{DEFAULT}"
    write(tmp_path, {"fleet.yaml": FLEET, "layers.yaml": LAYERS, "objectives/ranking.yaml": objective})
    told = [each["rule"] for each in rules_json("check", tmp_path, exit_code=1)["findings"]]
    assert told == ["r2", "r3", "r4"]


@pytest.mark.parametrize("shared", [False, True])
def test_many_runs_of_one_experiment_are_compared_in_linear_time(shared: bool) -> None:
    # Compared in pairs, they would take minutes.
    runs, told = ExperimentRuns(), []
    for number in range(10_000):
        cells = (Cell(1, "base", 1), Cell(2, "better", number if shared else 1))
        experiment = Experiment("ab", "layer", cells, "home")
        rule = Rule(str(number), (), experiment=experiment)
        runs.add(rule, experiment, shared=shared, place=str(number), report=lambda message, _: told.append(message))
    assert told == []


@pytest.mark.parametrize("apart", [False, True])
def test_one_experiment_with_the_same_arms_may_be_run_by_many_rules(apart: bool, tmp_path: Path) -> None:
    told = two_runs(tmp_path, f"experiment: {AB}", f"experiment: {AB}", apart=apart)
    assert told.exit_code == 0, told.output


def test_an_experiment_that_is_shared_on_purpose_says_so_everywhere(tmp_path: Path) -> None:
    one, other = (
        text.replace("id: ab", "id: ab, shared: true") for text in (f"experiment: {AB}", DIFFERENT["targets"])
    )
    assert two_runs(tmp_path / "both", one, other).exit_code == 0
    assert two_runs(tmp_path / "one", one, DIFFERENT["targets"]).exit_code == 1
