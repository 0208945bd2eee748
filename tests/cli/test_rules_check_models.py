"""`tidegate rules check --models DIR`: targets that the folder cannot serve, or that answer in another way than callers ask."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.rules_runner import rules, rules_json, write
from tests.support.stack import make_repository

FLEET = """\
shards: {cpu: {replicas: 1}}
models:
  simple: {shards: [cpu]}
  simple_pipeline: {shards: [cpu]}
  versioned: {shards: [cpu]}
  storyteller: {shards: [cpu]}
  absent: {shards: [cpu]}
aliases:
  simple@old: simple/7
"""

SOUND = """\
objective: ranking
context: {country: {type: string}}
rules:
  - {id: home, when: {country: SE}, serve: versioned/3, fallback: simple_pipeline}
  - {id: default, serve: simple}
"""

STREAM = """\
objective: stories
responses: stream
rules:
  - {id: default, serve: storyteller, fallback: [simple]}
"""

CALLERS = """\
callers:
  desk: {objectives: [ranking], overrides: [versioned/8, simple]}
"""


@pytest.fixture(name="models", scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(
        tmp_path_factory.mktemp("folder") / "models", "simple", "simple_pipeline", "versioned", "storyteller"
    )


def found(directory: Path, models: Path, *options: str, exit_code: int = 1) -> list[tuple[str, int, int, str, str]]:
    """The findings about targets, each as its file, line, column, rule and kind."""
    report = rules_json("check", directory, "--models", models, *options, exit_code=exit_code)
    return [
        (each["file"], each["line"], each["column"], each["rule"], each["kind"])
        for each in report["findings"]
        if not each["kind"].startswith("unused-")
    ]


def test_targets_that_the_folder_can_serve_are_no_finding(tmp_path: Path, models: Path) -> None:
    directory = write(
        tmp_path, {"fleet.yaml": FLEET, "objectives/ranking.yaml": SOUND, "objectives/stories.yaml": STREAM}
    )
    assert found(directory, models, exit_code=0) == []


def test_every_place_that_names_a_target_which_is_missing_is_a_finding(tmp_path: Path, models: Path) -> None:
    ranking = """\
objective: ranking
context: {country: {type: string}, member_id: {type: string, required: true}}
sticky_key: member_id
fallback: [versioned/9]
rules:
  - id: home
    when: {country: SE}
    split:
      simple: 90
      absent: 10
    shadow: {versioned/8: 5}
  - id: trial
    when: {country: "NO"}
    experiment:
      id: trial
      allocate: caller
      cells:
        1: versioned/9
        2: {serve: absent}
    fallback: []
  - {id: default, serve: simple@old}
"""
    files = {"fleet.yaml": FLEET, "objectives/ranking.yaml": ranking, "callers.yaml": CALLERS}
    directory = write(tmp_path, files)
    assert found(directory, models) == [
        ("callers.yaml", 2, 45, "", "target-unservable"),
        # The alias is mistaken where it is declared, not where it is served.
        ("fleet.yaml", 9, 3, "", "target-unservable"),
        ("objectives/ranking.yaml", 4, 12, "", "target-unservable"),
        ("objectives/ranking.yaml", 10, 7, "home", "target-unservable"),
        ("objectives/ranking.yaml", 11, 14, "home", "target-unservable"),
        ("objectives/ranking.yaml", 18, 9, "trial", "target-unservable"),
        ("objectives/ranking.yaml", 19, 13, "trial", "target-unservable"),
    ]
    assert rules("check", directory).exit_code == 0, "the rules alone are sound"
    text = rules("check", directory, "--models", models).stdout
    assert "rule 'home': target 'absent' needs model 'absent', but" in text
    assert "target 'simple@old' needs version 7 of model 'simple', which" in text
    assert "versions there: 1, 2, 3" in text


def test_a_step_that_is_missing_and_a_broken_config_are_findings(tmp_path: Path) -> None:
    models = make_repository(tmp_path / "models", "simple_pipeline", "versioned")
    (models / "versioned/config.pbtxt").write_text("max_batch_size: many")
    text = SOUND.replace("serve: simple}", "serve: versioned}")
    directory = write(tmp_path / "rules", {"fleet.yaml": FLEET, "objectives/ranking.yaml": text})
    assert [(line, kind) for _, line, _, _, kind in found(directory, models)] == [(4, "target-unservable")] * 2 + [
        (5, "target-unservable")
    ]
    assert "needs model 'simple', but" in rules("check", directory, "--models", models).stdout


def test_a_decoupled_model_needs_an_objective_of_streams(tmp_path: Path, models: Path) -> None:
    one = SOUND.replace("serve: simple}", "serve: simple, shadow: {storyteller: 5}}")
    directory = write(tmp_path, {"fleet.yaml": FLEET, "objectives/ranking.yaml": one})
    assert found(directory, models) == [("objectives/ranking.yaml", 5, 43, "default", "target-decoupled")]
    assert "write `responses: stream`" in rules("check", directory, "--models", models).stdout
    (directory / "objectives/ranking.yaml").write_text(one + "responses: stream\n")
    assert found(directory, models, exit_code=0) == []


def test_an_ensemble_with_a_decoupled_step_is_decoupled_too(tmp_path: Path) -> None:
    models = make_repository(tmp_path / "models", "simple_pipeline", "simple")
    config = models / "simple/config.pbtxt"
    config.write_text(config.read_text() + "model_transaction_policy { decoupled: true }\n")
    text = SOUND.replace("versioned/3", "simple_pipeline").replace(", fallback: simple_pipeline", "")
    directory = write(tmp_path / "rules", {"fleet.yaml": FLEET, "objectives/ranking.yaml": text})
    assert [rule for *_, rule, kind in found(directory, models) if kind == "target-decoupled"] == ["home", "default"]


def test_a_stream_of_models_that_give_one_response_is_a_warning(tmp_path: Path, models: Path) -> None:
    directory = write(tmp_path, {"fleet.yaml": FLEET, "objectives/ranking.yaml": SOUND + "responses: stream\n"})
    expected = [("objectives/ranking.yaml", 6, 1, "", "stream-of-one")]
    assert found(directory, models, exit_code=0) == found(directory, models, "--strict") == expected


def test_sarif_has_them_at_their_lines(tmp_path: Path, models: Path) -> None:
    text = SOUND.replace("serve: simple}", "serve: absent}")
    directory = write(tmp_path / "rules", {"fleet.yaml": FLEET, "objectives/ranking.yaml": text})
    rules("check", directory, "--models", models, "--sarif", tmp_path / "found.sarif")
    (run,) = json.loads((tmp_path / "found.sarif").read_text())["runs"]
    (result,) = [each for each in run["results"] if each["ruleId"] == "target-unservable"]
    assert result["level"] == "error"
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 5, "startColumn": 19}


@pytest.mark.parametrize(("inside", "said"), [("", "holds no model"), ("simple", "is a model, not a model repository")])
def test_a_folder_that_is_no_repository_is_wrong_usage(tmp_path: Path, inside: str, said: str) -> None:
    make_repository(tmp_path / "models/deeper", "simple")
    folder = tmp_path / "models/deeper" / inside if inside else tmp_path / "models"
    result = rules("check", write(tmp_path / "rules", {}), "--models", folder)
    assert result.exit_code == 2
    assert "--models" in result.output and said in result.output
