"""`tidegate rules check`, as a process: planted mistakes, holes, the budget, JSON, SARIF and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft4Validator
from tidegate.analysis.reach.findings import KINDS

from tests.cli.planted import AT, PLANTED, Planted, write_planted
from tests.cli.rules_runner import FLEET, RANKING, RULES, rules, rules_json, write
from tests.support.examples import OBJECTIVES

TIDEGATE = Path(sys.executable).parent / "tidegate"
UNUSED = [
    ("fleet.yaml", 5, "unused-model", "'forgotten'"),
    ("fleet.yaml", 8, "unused-alias", "'base@unused'"),
    ("layers.yaml", 10, "unused-experiment", "'right_page'"),
]

LAYERED = """\
objective: ranking
context: {member_id: {type: string, required: true}}
rules:
  - {id: one, experiment: {id: one, layer: home, cells: {1: base}}}
  - {id: two, experiment: {id: two, layer: home, cells: {1: base}}}
  - {id: default, serve: better}
"""


def check(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [TIDEGATE, "rules", "check", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(name="planted", scope="module")
def planted_rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planted(tmp_path_factory.mktemp("planted") / "planted rules")


@pytest.fixture(name="report", scope="module")
def planted_report(planted: Path) -> dict[str, Any]:
    done = check(planted, "--at", AT, "--json")
    assert (done.returncode, done.stderr) == (1, "")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def of_objective(report: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [finding for finding in report["findings"] if finding["file"] == f"objectives/{name}.yaml"]


@pytest.mark.parametrize("case", PLANTED, ids=lambda case: case.name)
def test_exactly_what_was_planted_is_told(case: Planted, report: dict[str, Any]) -> None:
    found = of_objective(report, case.name)
    assert {(each["rule"], each["kind"], tuple(each["covered_by"])) for each in found} == set(case.told)
    assert [each["line"] for each in found if each["rule"]] == case.lines
    for each in found:
        assert each["objective"] == case.name
        assert each["severity"] == KINDS[each["kind"]].severity
        assert each["hint"]
        assert all(repr(rule) in each["message"] for rule in each["covered_by"])


def holes(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in report["objectives"]:
        if each["unserved"] is not None:
            yield each["objective"], each["unserved"]


def test_a_counter_example_can_be_pasted_into_explain(planted: Path, report: dict[str, Any]) -> None:
    planted_holes = {case.name for case in PLANTED if ("", "uncovered-context", ()) in case.told}
    assert {objective for objective, _ in holes(report)} == planted_holes
    for objective, unserved in holes(report):
        (finding,) = of_objective(report, objective)
        context = json.dumps(unserved["context"])
        assert f"no rule serves the context {context}" in finding["message"]
        told = rules(
            "explain", planted, "--objective", objective, "--context", context, "--at", unserved["at"], "--json"
        )
        assert told.exit_code == 1
        assert json.loads(told.stdout)["decision"] is None


def test_the_others_are_proved_to_serve_every_context(report: dict[str, Any]) -> None:
    served = {each["objective"] for each in report["objectives"] if each["every_context_served"]}
    assert served == {case.name for case in PLANTED} - {objective for objective, _ in holes(report)}


def test_what_nothing_uses_is_told_at_its_line(report: dict[str, Any]) -> None:
    found = [each for each in report["findings"] if not each["objective"]]
    assert [(each["file"], each["line"], each["kind"]) for each in found] == [each[:3] for each in UNUSED]
    for each, (*_, name) in zip(found, UNUSED, strict=True):
        assert name in each["message"]


def test_the_text_has_a_line_for_every_finding(planted: Path, report: dict[str, Any]) -> None:
    done = check(planted, "--at", AT)
    assert (done.returncode, done.stderr) == (1, "")
    *lines, proved, counts = done.stdout.splitlines()
    assert len(lines) == len(report["findings"])
    for line, each in zip(lines, report["findings"], strict=True):
        place = f"{each['file']}:{each['line']}" if each["line"] else each["file"]
        assert line.startswith(f"{place}: {each['severity']}[{each['kind']}]: ")
        assert each["message"] in line
    errors = sum(each["severity"] == "error" for each in report["findings"])
    served = sum(bool(each["every_context_served"]) for each in report["objectives"])
    assert proved == f"{served} of {len(PLANTED)} objectives proved to serve every context"
    assert counts == f"{errors} errors, {len(lines) - errors} warnings, revision {report['revision'][:12]}"


def test_windows_are_over_at_the_time_that_is_given(planted: Path) -> None:
    early = json.loads(check(planted, "--at", "2026-01-01", "--json").stdout)
    assert early["at"] == "2026-01-01T00:00:00Z"
    assert of_objective(early, "window_over") == of_objective(early, "reached_only_before") == []
    late = rules_json("check", planted, "--at", "2027-01-01", exit_code=1)
    assert {each["kind"] for each in of_objective(late, "hole_in_time")} == {"uncovered-context", "window-over"}
    assert {each["rule"] for each in of_objective(late, "windows")} == {"before", "dead"}


def test_the_repositorys_own_rules_are_clean() -> None:
    outcome = json.loads(check(RULES, "--json").stdout)
    ours = {f"{folder}/{name}.yaml" for folder in ("objectives", "cases") for name in OBJECTIVES}
    assert [found for found in outcome["findings"] if found["file"] in ours] == []
    served = {each["objective"]: each["every_context_served"] for each in outcome["objectives"]}
    assert {name: served[name] for name in OBJECTIVES} == dict.fromkeys(OBJECTIVES, True)


@pytest.mark.parametrize(("arguments", "code"), [((), 0), (("--strict",), 1)])
def test_warnings_fail_only_where_that_is_asked_for(arguments: tuple[str, ...], code: int, tmp_path: Path) -> None:
    fleet = FLEET.replace("models: {", "models: {unused: {shards: [cpu]}, ")
    done = check(write(tmp_path, {"fleet.yaml": fleet}), *arguments)
    assert done.returncode == code
    assert "fleet.yaml:2: warning[unused-model]" in done.stdout


def test_experiments_that_overlap_in_a_layer_are_an_error(tmp_path: Path) -> None:
    layers = "home:\n  key: member_id\n  experiments:\n    one: [0, 500]\n    two: [500, 900]\n"
    done = check(write(tmp_path, {"layers.yaml": layers, "objectives/ranking.yaml": LAYERED}))
    assert done.returncode == 1
    (line,) = [each for each in done.stdout.splitlines() if "own" in each]
    assert line.startswith("layers.yaml:5:5: error[author-error]: ")
    assert "experiment 'two' and experiment 'one' of layer 'home' both own the buckets [500, 500]" in line


def hard_rules() -> str:
    """Rules that no rule covers alone, and whose last is only covered by all the others together: the pigeons of a
    pigeonhole principle, which every search takes many steps for."""
    pigeons, places = 5, 4
    context = "".join(
        f"  p{pigeon}h{place}: {{type: boolean, required: true}}\n"
        for pigeon in range(pigeons)
        for place in range(places)
    )
    lines = [
        f"  - {{id: homeless-{pigeon}, when: {{{', '.join(f'p{pigeon}h{place}: false' for place in range(places))}}}, serve: base}}"
        for pigeon in range(pigeons)
    ]
    lines += [
        f"  - {{id: shared-{one}-{two}-{place}, when: {{p{one}h{place}: true, p{two}h{place}: true}}, serve: base}}"
        for place in range(places)
        for two in range(pigeons)
        for one in range(two)
    ]
    text = "\n".join(lines)
    return f"objective: ranking\ncontext:\n{context}rules:\n{text}\n  - {{id: dead, serve: better}}\n"


def test_what_the_budget_does_not_decide_is_an_error_and_never_fine(tmp_path: Path) -> None:
    directory = write(tmp_path, {"objectives/ranking.yaml": hard_rules()})
    few = json.loads(check(directory, "--budget", 60, "--json").stdout)
    assert not few["ok"]
    undecided = {(each["rule"], each["severity"]) for each in few["findings"] if each["kind"] == "undecided"}
    assert ("dead", "error") in undecided
    assert not [each for each in few["findings"] if each["rule"] == "dead" and each["kind"] != "undecided"]
    assert few["steps"] <= 60 + 2 * 50
    enough = rules_json("check", directory, exit_code=1)
    (found,) = [each for each in enough["findings"] if each["kind"] == "unreachable-rule"]
    assert found["rule"] == "dead"
    assert len(found["covered_by"]) == 45
    assert enough["objectives"][0]["every_context_served"]


def test_coverage_that_is_not_decided_is_told_as_such(tmp_path: Path) -> None:
    text = hard_rules().replace("  - {id: dead, serve: better}\n", "")
    few = rules_json("check", write(tmp_path, {"objectives/ranking.yaml": text}), "--budget", 60, exit_code=1)
    assert few["objectives"] == [{"objective": "ranking", "every_context_served": None, "unserved": None}]
    assert "" in {each["rule"] for each in few["findings"] if each["kind"] == "undecided"}


def test_too_many_combinations_of_elements_are_undecided_at_once(tmp_path: Path) -> None:
    lists = [f"{{contains_any: [{', '.join(f'{letter}{number}' for number in range(200))}]}}" for letter in "ab"]
    when = f"{{tags: {lists[0]}, any_of: [{{tags: {lists[1]}}}]}}"
    text = (
        f"objective: ranking\ncontext: {{tags: {{type: set}}}}\nrules:\n  - {{id: many, when: {when}, serve: base}}\n"
    )
    directory = write(tmp_path, {"objectives/ranking.yaml": text + "  - {id: default, serve: better}\n"})
    report = rules_json("check", directory, exit_code=1)
    assert [(each["rule"], each["kind"]) for each in report["findings"] if each["objective"]] == [("many", "undecided")]
    assert report["objectives"][0]["every_context_served"]


def test_authors_errors_are_findings_too(tmp_path: Path) -> None:
    broken = RANKING.replace("serve: better", "serv: better")
    report = rules_json("check", write(tmp_path, {"objectives/ranking.yaml": broken}), exit_code=1)
    assert (report["ok"], report["revision"], report["objectives"]) == (False, None, [])
    assert {(each["file"], each["line"], each["rule"], each["kind"]) for each in report["findings"]} == {
        ("objectives/ranking.yaml", 5, "home", "author-error"),
        ("objectives/ranking.yaml", 5, "home", "author-error"),
    }


STRING = {"type": "string"}
TEXT = {"type": "object", "required": ["text"], "additionalProperties": False, "properties": {"text": STRING}}
LEVEL = {"enum": ["none", "note", "warning", "error"]}


def closed(*required: str, **properties: Any) -> dict[str, Any]:
    """An object as the schema of SARIF has them: without other properties."""
    return {"type": "object", "required": list(required), "additionalProperties": False, "properties": properties}


SARIF = closed(
    "version",
    "runs",
    **{"$schema": {"type": "string", "pattern": "^https://.*/sarif-schema-2.1.0.json$"}},
    version={"enum": ["2.1.0"]},
    runs={
        "type": "array",
        "items": closed(
            "tool",
            tool=closed(
                "driver",
                driver=closed(
                    "name",
                    name=STRING,
                    version=STRING,
                    informationUri={"type": "string", "format": "uri", "pattern": "^[a-z]+:"},
                    rules={
                        "type": "array",
                        "uniqueItems": True,
                        "items": closed(
                            "id",
                            id=STRING,
                            shortDescription=TEXT,
                            help=TEXT,
                            defaultConfiguration=closed(level=LEVEL),
                        ),
                    },
                ),
            ),
            columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
            results={
                "type": "array",
                "items": closed(
                    "message",
                    ruleId=STRING,
                    level=LEVEL,
                    message=TEXT,
                    locations={
                        "type": "array",
                        "items": closed(
                            physicalLocation=closed(
                                artifactLocation=closed(uri={"type": "string", "format": "uri-reference"}),
                                region=closed(
                                    startLine={"type": "integer", "minimum": 1},
                                    startColumn={"type": "integer", "minimum": 1},
                                ),
                            )
                        ),
                    },
                ),
            },
        ),
    },
)
"""Of the schema of SARIF 2.1.0, the objects that are written, with what it requires and allows of each property."""


def test_sarif_has_every_finding_at_its_line(planted: Path, report: dict[str, Any]) -> None:
    done = check(planted.name, "--at", AT, "--sarif", "found.sarif", cwd=planted.parent)
    assert done.returncode == 1
    log = json.loads((planted.parent / "found.sarif").read_text())
    Draft4Validator(SARIF).validate(log)
    (run,) = log["runs"]
    assert run["tool"]["driver"]["informationUri"].endswith("/docs/findings.md")
    assert {rule["id"] for rule in run["tool"]["driver"]["rules"]} == {each["kind"] for each in report["findings"]}
    assert len(run["results"]) == len(report["findings"])
    for result, each in zip(run["results"], report["findings"], strict=True):
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == f"planted%20rules/{each['file']}"
        assert place["region"]["startLine"] == max(each["line"], 1)
        assert (result["ruleId"], result["level"]) == (each["kind"], each["severity"])
        assert result["message"]["text"] == f"{each['message']} ({each['hint']})"


def test_sarif_is_written_for_clean_and_for_broken_rules(tmp_path: Path) -> None:
    file = tmp_path / "found.sarif"
    for ranking, code in ((RANKING, 0), ("rules: [", 1)):
        directory = write(tmp_path / "rules", {"objectives/ranking.yaml": ranking})
        assert rules("check", directory, "--sarif", file).exit_code == code
        log = json.loads(file.read_text())
        Draft4Validator(SARIF).validate(log)
        results = log["runs"][0]["results"]
        assert {each["ruleId"] for each in results} == ({"author-error"} if code else set())
        regions = [each["locations"][0]["physicalLocation"]["region"] for each in results]
        assert regions[:code] == [{"startLine": 1, "startColumn": 8}] * code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{rules}", "--at", "yesterday"), "write ISO 8601"),
        (("{rules}", "--budget", "0"), "0 is not in the range x>=1"),
        (("{rules}", "--sarif", "{rules}/no/where"), "cannot be written"),
        (("{rules}/nowhere",), "does not exist"),
        (("{rules}/fleet.yaml",), "is a file"),
        ((), "Missing argument 'DIRECTORY'"),
    ],
)
def test_wrong_usage_is_told(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    directory = write(tmp_path, {})
    result = rules("check", *(argument.format(rules=directory) for argument in arguments))
    assert result.exit_code == 2
    assert message in result.stderr


TWO_MODELS = (
    "objective: ranking\ncontext: {c: {type: string}, member_id: {type: string}}\nsticky_key: member_id\nrules:\n"
)
HALVES = """
  - {id: r0, when: {c: {not: CA}}, serve: base}
  - {id: r1, when: {any_of: [{c: CA}, {c: {not: CA}}]}, serve: base}
  - {id: r2, when: {c: {present: true}}, serve: better}
  - {id: rest, serve: base}
"""


def test_a_rule_that_covers_alone_by_its_alternatives_is_named_alone(tmp_path: Path) -> None:
    report = rules_json("check", write(tmp_path, {"objectives/ranking.yaml": TWO_MODELS + HALVES}), exit_code=1)
    (found,) = [each for each in report["findings"] if each["kind"] == "unreachable-rule"]
    assert (found["rule"], found["covered_by"]) == ("r2", ["r1"])


@pytest.mark.parametrize(
    ("above", "covered", "cover"),
    [
        ("serve: base", "serve: base", "same"),
        ("serve: base@champion", "serve: base", "same"),
        ("split: {base: 1}", "serve: base", "same"),
        ("serve: base", "serve: better", "other"),
        ("serve: base", "serve: base, parameters: {top_k: 1}", "other"),
        ("serve: base, parameters: {top_k: 1}", "serve: base, parameters: {top_k: true}", "other"),
        ("serve: base, timeout_ms: 5", "serve: base", "other"),
        ("serve: base, fallback: [better]", "serve: base, fallback: [better]", "same"),
        ("split: {base: 1, better: 1}", "split: {base: 1, better: 1}", "other"),
    ],
)
def test_a_cover_does_the_same_or_something_else(above: str, covered: str, cover: str, tmp_path: Path) -> None:
    document = f"{TWO_MODELS}  - {{id: above, {above}}}\n  - {{id: dead, when: {{c: CA}}, {covered}}}\n"
    directory = write(tmp_path, {"objectives/ranking.yaml": document})
    (found,) = [
        each for each in rules_json("check", directory, exit_code=1)["findings"] if each["kind"] == "unreachable-rule"
    ]
    assert found["cover"] == cover
    assert ("redundant" in found["message"]) == (cover == "same")


def test_a_model_that_only_a_callers_overrides_name_is_used(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "fleet.yaml": "shards: {cpu: {}}\nmodels: {base: {shards: [cpu]}, pinned: {shards: [cpu]}, idle: {shards: [cpu]}}\n",
        "callers.yaml": "callers: {search-ui: {objectives: '*', overrides: [pinned]}}\n",
        "objectives/ranking.yaml": "objective: ranking\ncontext: {}\nrules: [{id: all, serve: base}]\n",
    }
    report = rules_json("check", write(tmp_path, files))
    assert [each["message"].rpartition(" ")[2] for each in report["findings"]] == ["'idle'"]


def layers_of_many_keys(count: int, end: int = 4_999) -> dict[str, str | bytes]:
    """So many rules, each an experiment of a layer of its own with a key of its own."""
    context = {f"k{number}": {"type": "string"} for number in range(count)}
    layers = {
        f"layer{number}": {"key": f"k{number}", "experiments": {f"e{number}": [0, end]}} for number in range(count)
    }
    experiments = [
        {"id": f"r{number}", "experiment": {"id": f"e{number}", "layer": f"layer{number}", "cells": {1: "base"}}}
        for number in range(count)
    ]
    document = {"objective": "ranking", "context": context, "rules": [*experiments, {"id": "d", "serve": "better"}]}
    return {"layers.yaml": yaml.safe_dump(layers), "objectives/ranking.yaml": yaml.safe_dump(document)}


def test_layers_of_many_keys_are_decided_exactly(tmp_path: Path) -> None:
    report = rules_json("check", write(tmp_path, layers_of_many_keys(300)), "--at", AT)
    assert report["objectives"] == [{"objective": "ranking", "every_context_served": True, "unserved": None}]
    assert not of_objective(report, "ranking")


def without_default(count: int) -> dict[str, str | bytes]:
    """Layers of many keys that nobody shares with others, and no rule that serves who has no key but the seventh."""
    files = layers_of_many_keys(count, end=9_999)
    document = yaml.safe_load(files["objectives/ranking.yaml"])
    document["rules"][-1] = {"id": "d", "when": {"k7": {"present": False}}, "serve": "better"}
    return files | {"objectives/ranking.yaml": yaml.safe_dump(document)}


def test_a_hole_behind_layers_of_many_keys_is_shown(tmp_path: Path) -> None:
    report = rules_json("check", write(tmp_path, without_default(40)), exit_code=1)
    (served,) = report["objectives"]
    assert (served["every_context_served"], served["unserved"]["context"]) == (False, {"k7": ""})


def test_the_budget_ends_a_search_through_the_keys_of_layers(tmp_path: Path) -> None:
    report = rules_json("check", write(tmp_path, without_default(40)), "--budget", 3, exit_code=1)
    (served,) = report["objectives"]
    assert served["every_context_served"] is None
    assert [each["rule"] for each in of_objective(report, "ranking") if each["kind"] == "undecided"] == [""]
