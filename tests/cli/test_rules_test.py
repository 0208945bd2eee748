"""`tidegate rules test`: cases as a researcher writes and reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.cli.rules_runner import RANKING, RULES, rules, rules_json, write
from tests.support.examples import OBJECTIVES

CASES = "cases/ranking.yaml"


def run(tmp_path: Path, cases: str | bytes, exit_code: int = 0) -> Any:
    return rules_json("test", write(tmp_path, {CASES: cases}), exit_code=exit_code)


def test_the_projects_own_cases_pass_and_cover_every_rule() -> None:
    outcome = json.loads(rules("test", RULES, "--json").stdout)
    uncovered = {each["objective"]: each["uncovered"] for each in outcome["coverage"]}
    assert [uncovered[name] for name in OBJECTIVES] == [[]] * len(OBJECTIVES)
    cases = [case for case in outcome["cases"] if case["objective"] in OBJECTIVES]
    assert len(cases) > len(OBJECTIVES)
    assert [case for case in cases if not case["passed"] or case["notes"]] == []


EVERY_KEY = """
- name: every key
  context: {member_id: "1", country: SE}
  at: "2026-01-01T00:00:00Z"
  expect:
    rule: home
    model: better
    version: null
    target: better
    variant: null
    experiment: null
    cell: null
    reason: serve
    parameters: {top_k: 20}
    fallbacks: []
    shadows: {}
    timeout_ms: null
    hedge_after_ms: null
    hedge_at: null
    shards: [cpu]
"""


def test_a_bare_list_of_cases_belongs_to_the_files_objective(tmp_path: Path) -> None:
    outcome = run(tmp_path, EVERY_KEY)
    assert [(case["objective"], case["passed"], case["line"]) for case in outcome["cases"]] == [("ranking", True, 2)]
    assert outcome["coverage"] == [
        {
            "objective": "ranking",
            "rules": 3,
            "covered": ["home"],
            "uncovered": ["canary", "default"],
            "covered_cells": [],
            "uncovered_cells": [],
        }
    ]


def test_a_file_may_name_its_objective_and_two_files_may_share_one(tmp_path: Path) -> None:
    cases = "objective: ranking\ncases:\n  - {name: n, context: {member_id: '1'}, expect: {rule: default}}\n"
    outcome = rules_json("test", write(tmp_path, {"cases/a.yaml": cases, CASES: EVERY_KEY}))
    assert [case["file"] for case in outcome["cases"]] == ["cases/a.yaml", "cases/ranking.yaml"]


@pytest.mark.parametrize(
    ("expect", "mismatch"),
    [
        ("{rule: default}", {"key": "rule", "expected": "default", "actual": "home"}),
        ("{model: base}", {"key": "model", "expected": "base", "actual": "better"}),
        ("{version: 2}", {"key": "version", "expected": 2, "actual": None}),
        ("{parameters: {top_k: 20, more: 1}}", {"key": "parameters", "actual": {"top_k": 20}}),
        ("{parameters: {}}", {"key": "parameters", "expected": {}, "actual": {"top_k": 20}}),
        ("{fallbacks: [base]}", {"key": "fallbacks", "expected": ["base"], "actual": []}),
        ("{shadows: [base]}", {"key": "shadows", "expected": ["base"], "actual": []}),
        ("{cell: 1}", {"key": "cell", "expected": "1", "actual": None}),
        ("{reason: split}", {"key": "reason", "expected": "split", "actual": "serve"}),
        ("{rule: null}", {"key": "rule", "expected": None, "actual": "home"}),
        ("{error: country}", {"key": "error", "expected": "country", "actual": None}),
    ],
)
def test_what_came_out_differently_is_told_with_the_explanation(
    expect: str, mismatch: dict[str, Any], tmp_path: Path
) -> None:
    cases = f"- {{name: n, context: {{member_id: '1', country: SE}}, expect: {expect}}}\n"
    outcome = run(tmp_path, cases, exit_code=1)
    assert not outcome["ok"]
    (case,) = outcome["cases"]
    assert [mismatch.items() <= each.items() for each in case["mismatches"]] == [True]
    assert case["explanation"]["decision"]["rule"] == "home"


def test_a_failing_case_prints_expected_actual_and_why_not_per_rule(tmp_path: Path) -> None:
    cases = "- name: Swedes are home\n  context: {member_id: '1', country: NO}\n  expect: {rule: hom}\n"
    result = rules("test", write(tmp_path, {CASES: cases}))
    assert result.exit_code == 1
    assert "cases/ranking.yaml:1: ranking: Swedes are home: FAILED" in result.stdout
    assert 'rule: expected "hom", got "default"  (no such rule: did you mean \'home\'?)' in result.stdout
    assert "✗ home: country: must be SE" in result.stdout
    assert "1 cases: 0 passed, 1 failed" in result.stdout
    assert "no case: canary" in result.stdout


def test_a_context_may_be_expected_to_be_refused_or_to_match_no_rule(tmp_path: Path) -> None:
    objective = """
objective: ranking
context: {member_id: {type: string, required: true}, country: {type: string}}
rules: [{id: home, when: {country: SE}, serve: better}]
"""
    cases = """
- {name: refused, context: {}, expect: {error: member_id}}
- {name: null is a wrong type, context: {member_id: "1", country: null}, expect: {error: country}}
- {name: nobody serves it, context: {member_id: "1"}, expect: {rule: null}}
"""
    files: dict[str, str | bytes] = {"objectives/ranking.yaml": objective, CASES: cases}
    outcome = rules_json("test", write(tmp_path, files))
    assert [case["passed"] for case in outcome["cases"]] == [True, True, True]


def test_a_refused_context_that_was_not_expected_names_the_attribute(tmp_path: Path) -> None:
    outcome = run(tmp_path, "- {name: n, context: {}, expect: {rule: default}}\n", exit_code=1)
    (mismatch,) = outcome["cases"][0]["mismatches"]
    assert (mismatch["key"], mismatch["actual"]) == ("error", "member_id")
    assert "is required" in mismatch["hint"]


def test_missing_coverage_fails_only_where_it_is_required(tmp_path: Path) -> None:
    directory = write(tmp_path / "rules", {CASES: EVERY_KEY})
    assert rules("test", directory).exit_code == 0
    required = rules("test", directory, "--require-coverage")
    assert required.exit_code == 1
    assert "ranking: 1 of 3 rules have a case" in required.stdout
    outcome = rules_json("test", directory, "--require-coverage", "--junit", tmp_path / "j.xml", exit_code=1)
    assert not outcome["ok"]
    assert ["--require-coverage" in each for each in outcome["lacking"]] == [True]
    cases, lacking = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (cases.get("name"), cases.get("failures")) == (CASES, "0")
    assert (lacking.get("name"), lacking.get("tests"), lacking.get("failures")) == ("coverage", "1", "1")
    ((failure,),) = lacking
    assert "--require-coverage" in str(failure.get("message"))
    assert failure.text == "no case: ranking: canary\nno case: ranking: default"
    sound = rules_json("test", directory, "--junit", tmp_path / "j.xml")
    assert (sound["ok"], sound["lacking"], len(ElementTree.parse(tmp_path / "j.xml").getroot())) == (True, [], 1)


def test_a_failing_case_covers_nothing(tmp_path: Path) -> None:
    cases = "- {name: n, context: {member_id: '1'}, expect: {model: better}}\n"
    assert run(tmp_path, cases, exit_code=1)["coverage"][0]["covered"] == []


def test_a_directory_without_cases_says_so_rule_by_rule(tmp_path: Path) -> None:
    outcome = rules_json("test", write(tmp_path, {}))
    assert outcome["coverage"][0]["uncovered"] == ["home", "canary", "default"]


def test_allocations_reach_the_experiment_and_time_reaches_the_window(tmp_path: Path) -> None:
    objective = """
objective: ranking
context: {member_id: {type: string}}
rules:
  - {id: ab, experiment: {id: 7, allocate: caller, cells: {1: base, 2: better}}}
  - {id: june, active: {from: "2026-06-01T00:00:00Z", until: "2026-07-01T00:00:00Z"}, serve: better}
  - {id: default, serve: base}
"""
    cases = """
- {name: cell, allocations: {7: 2}, expect: {experiment: 7, cell: 2, variant: 2, model: better}}
- {name: june, at: "2026-06-30T23:59:59Z", expect: {rule: june}}
- {name: july, at: "2026-07-01T00:00:00", expect: {rule: default}}
- {name: now, expect: {target: base}, context: {contry: SE}}
"""
    files: dict[str, str | bytes] = {"objectives/ranking.yaml": objective, CASES: cases}
    outcome = rules_json("test", write(tmp_path, files))
    assert [case["passed"] for case in outcome["cases"]] == [True] * 4
    assert [len(case["notes"]) for case in outcome["cases"]] == [0, 0, 0, 2]
    assert "depends on the clock" in outcome["cases"][3]["notes"][1]


BROKEN: list[tuple[str, str | bytes, int, str]] = [
    ("unknown key", "- {name: n, expect: {rule: home}, contxt: {}}\n", 1, "did you mean 'context'"),
    ("unknown expectation", "- name: n\n  expect:\n    modell: base\n", 3, "did you mean 'model'"),
    ("no expectation", "- name: n\n", 1, "'expect' is missing"),
    ("nothing expected", "- {name: n, expect: {}}\n", 1, "no expectation"),
    ("no name", "- {expect: {rule: home}}\n", 1, "'name' is missing"),
    ("unknown objective", "objective: rankin\ncases: [{name: n, expect: {rule: home}}]\n", 1, "did you mean 'ranking'"),
    ("twice", "- {name: n, expect: {rule: a}}\n- {name: n, expect: {rule: a}}\n", 2, "cases/ranking.yaml:1"),
    ("time", "- {name: n, at: yesterday, expect: {rule: a}}\n", 1, "ISO 8601"),
    ("error and rule", "- {name: n, expect: {rule: a, error: b}}\n", 1, "keep 'error' alone"),
    ("no rule and model", "- {name: n, expect: {rule: null, model: b}}\n", 1, "keep 'rule: null' alone"),
    ("wrong type", "- {name: n, context: [], expect: {rule: a}}\n", 1, "'context'"),
    ("wrong version", "- {name: n, expect: {version: two}}\n", 1, "'version'"),
    ("scalar file", "cases\n", 1, "the list of cases"),
    ("scalar case", "- home\n", 1, "mapping"),
    ("empty item", "- {name: a, expect: {rule: a}}\n-\n", 2, "no value"),
    ("empty list", "[]\n", 1, "no case"),
    ("empty cases", "cases: []\n", 1, "'cases'"),
    ("no cases", "objective: ranking\n", 1, "'cases' is missing"),
    ("tab", "- name: n\n\texpect: {}\n", 2, "tab"),
    ("duplicate key", "- name: n\n  name: m\n  expect: {rule: a}\n", 2, "duplicate key 'name'"),
    (
        "anchor",
        "- {name: n, context: &a {}, expect: {rule: a}}\n- {name: m, context: *a, expect: {rule: a}}\n",
        1,
        "an",
    ),
    ("not UTF-8", b"- {name: \xff, expect: {rule: a}}\n", 1, "UTF-8"),
    ("large", b"# " + b"x" * 5_000_000, 0, "larger"),
    ("empty", "", 1, "empty"),
]


@pytest.mark.parametrize(("cases", "line", "words"), [each[1:] for each in BROKEN], ids=[each[0] for each in BROKEN])
def test_a_mistake_in_a_case_file_is_located(cases: str | bytes, line: int, words: str, tmp_path: Path) -> None:
    outcome = run(tmp_path, cases, exit_code=1)
    assert not outcome["ok"]
    matching = [each for each in outcome["findings"] if each["line"] == line and each["file"] == CASES]
    assert any(words in f"{each['message']} ({each['hint']})" for each in matching), outcome["findings"]


def test_all_mistakes_come_in_one_run_beside_the_sound_cases(tmp_path: Path) -> None:
    cases = "- {name: a, expct: {}}\n- {name: b, at: x, expect: {rule: a}}\n" + EVERY_KEY
    result = rules("test", write(tmp_path, {CASES: cases}))
    assert result.exit_code == 1
    assert "cases/ranking.yaml:1:13: case 'a': unknown key 'expct'" in result.stderr
    assert "cases/ranking.yaml:2:13: case 'b': 'at' is" in result.stderr
    assert "every key" not in result.stdout.replace("FAILED", "")


def test_rules_with_errors_run_no_case(tmp_path: Path) -> None:
    directory = write(tmp_path, {CASES: EVERY_KEY, "objectives/other.yaml": "objective: other\n"})
    outcome = rules_json("test", directory, exit_code=1)
    assert outcome["findings"][0]["file"] == "objectives/other.yaml"
    assert "cases" not in outcome


def test_no_directory_is_wrong_usage(tmp_path: Path) -> None:
    assert rules("test", tmp_path / "nowhere").exit_code == 2


def test_only_the_first_failures_are_explained(tmp_path: Path) -> None:
    cases = "".join(
        f"- {{name: n{number}, context: {{member_id: '1'}}, expect: {{rule: home}}}}\n" for number in range(30)
    )
    outcome = run(tmp_path, cases, exit_code=1)
    assert [case["explanation"] is not None for case in outcome["cases"]] == [True] * 20 + [False] * 10
    assert outcome["unexplained"] == 10
    told = rules("test", tmp_path).stdout
    assert told.count("✗ home: country") == 20
    assert told.count("FAILED") == 30
    assert "the first 20 are explained" in told


def test_a_filter_runs_what_it_names_and_says_nothing_of_coverage(tmp_path: Path) -> None:
    cases = """
- {name: Swedes are home, context: {member_id: '1', country: SE}, expect: {rule: home}}
- {name: others are not, context: {member_id: '1'}, expect: {rule: home}}
"""
    directory = write(tmp_path, {CASES: cases})
    outcome = rules_json("test", directory, "--filter", "swedes")
    assert [case["name"] for case in outcome["cases"]] == ["Swedes are home"]
    assert outcome["coverage"] == []
    assert len(rules_json("test", directory, "--filter", "RANKING", exit_code=1)["cases"]) == 2
    assert "1 cases: 1 passed" in rules("test", directory, "--filter", "swedes").stdout


def test_a_filter_that_runs_nothing_is_wrong_usage(tmp_path: Path) -> None:
    directory = write(tmp_path, {CASES: EVERY_KEY})
    missed = rules("test", directory, "--filter", "danes")
    assert missed.exit_code == 2
    assert "none of 1 cases has 'danes'" in missed.stderr
    assert rules("test", directory, "--filter", "every", "--require-coverage").exit_code == 2


WINDOW = """
objective: ranking
context: {member_id: {type: string}, country: {type: string}}
rules:
  - {id: june, when: {country: SE}, active: {from: "2026-06-01T00:00:00Z", until: "2026-07-01T00:00:00Z"}, serve: better}
  - {id: default, serve: base}
"""


def test_the_time_of_cases_without_one_can_be_given(tmp_path: Path) -> None:
    cases = """
- {name: at last, context: {country: SE}, expect: {rule: june}}
- {name: fixed, context: {country: SE}, at: "2026-05-01", expect: {rule: default}}
- {name: never, expect: {rule: default}}
"""
    directory = write(tmp_path, {"objectives/ranking.yaml": WINDOW, CASES: cases})
    outcome = rules_json("test", directory, "--at", "2026-06-15")
    assert [(case["passed"], case["notes"]) for case in outcome["cases"]] == [(True, [])] * 3
    outcome = rules_json("test", directory, "--at", "2026-07-15", exit_code=1)
    assert [case["passed"] for case in outcome["cases"]] == [False, True, True]
    outcome = rules_json("test", directory, exit_code=1)
    assert [len(case["notes"]) for case in outcome["cases"]] == [1, 0, 0]


def test_cells_without_a_case_are_listed_and_may_be_required(tmp_path: Path) -> None:
    objective = """
objective: ranking
context: {member_id: {type: string}}
rules:
  - {id: ab, experiment: {id: 7, allocate: caller, cells: {1: base, 2: better}}}
  - {id: default, serve: base}
"""
    first = "- {name: one, allocations: {7: 1}, expect: {cell: 1}}\n- {name: none, expect: {rule: default}}\n"
    second = "- {name: two, allocations: {7: 2}, expect: {cell: 2}}\n"
    directory = write(tmp_path, {"objectives/ranking.yaml": objective, CASES: first})
    (covered,) = rules_json("test", directory, "--require-coverage")["coverage"]
    assert covered["covered_cells"] == [{"rule": "ab", "cell": "1"}]
    assert covered["uncovered_cells"] == [{"rule": "ab", "cell": "2"}]
    lacking = rules("test", directory, "--require-cells")
    assert lacking.exit_code == 1
    assert "ranking: 1 of 2 cells have a case\n  no case: cell 2 of ab" in lacking.stdout
    write(tmp_path, {"objectives/ranking.yaml": objective, CASES: first + second})
    assert rules("test", directory, "--require-cells").exit_code == 0


def test_junit_has_a_suite_per_file_with_failures_and_mistakes(tmp_path: Path) -> None:
    cases = (
        "- {name: passes, context: {member_id: '1'}, expect: {rule: default}}\n"
        '- {name: "<fails> \\u0007", context: {member_id: "1"}, expect: {rule: home}}\n'
        "- {name: broken, expct: {}}\n"
    )
    file = tmp_path / "results.xml"
    assert rules("test", write(tmp_path / "rules", {CASES: cases}), "--junit", file).exit_code == 1
    (suite,) = ElementTree.parse(file).getroot()
    assert suite.get("name") == CASES
    assert {key: suite.get(key) for key in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "1",
        "errors": "1",
    }
    passed, failed, mistake = suite
    assert (passed.get("classname"), passed.get("line"), list(passed)) == ("ranking", "1", [])
    assert failed.get("name") == "<fails> \N{REPLACEMENT CHARACTER}"
    (failure,) = failed
    assert 'expected "home", got "default"' in str(failure.get("message"))
    assert "✗ home: country" in str(failure.text)
    assert "expct" in str(mistake[0].get("message"))
    nowhere = rules("test", tmp_path / "rules", "--junit", tmp_path / "no/results.xml")
    assert nowhere.exit_code == 2


def test_a_case_of_an_objective_that_refuses_unknown_attributes_expects_the_error(tmp_path: Path) -> None:
    strict = RANKING.replace("sticky_key:", "unknown_attributes: refuse\nsticky_key:")
    cases = '- {name: misspelt, context: {member_id: "1", coutry: SE}, expect: {error: coutry}}\n'
    outcome = rules_json("test", write(tmp_path, {"objectives/ranking.yaml": strict, CASES: cases}))
    (case,) = outcome["cases"]
    assert (case["passed"], case["notes"]) == (True, [])
