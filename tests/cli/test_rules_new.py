"""`tidegate rules new`: what it writes is sound from the first moment."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from tidegate.cli import main

from tests.cli.rules_runner import rules, rules_json, write


@pytest.mark.parametrize("name", ["search", "title-search.v2", "123", "true", "1e5", "null", "7_eleven"])
def test_a_new_objective_passes_check_and_test(name: str, tmp_path: Path) -> None:
    directory = write(tmp_path, {})
    told = rules_json("new", name, "--dir", directory, "--model", "base")
    assert told["objective"] == name
    assert told["files"] == [str(directory / folder / f"{name}.yaml") for folder in ("objectives", "cases")]
    assert rules("check", directory).exit_code == 0
    tested = rules_json("test", directory)
    assert tested["ok"]
    (covered,) = [each for each in tested["coverage"] if each["objective"] == name]
    assert (covered["rules"], covered["covered"], covered["uncovered"]) == (1, ["default"], [])


@pytest.mark.parametrize(
    ("name", "options", "served"),
    [
        ("search", ["--model", "base"], "base"),
        ("bett", [], "better"),
        ("base", [], "base@champion"),
        ("search", ["--model", "better/3"], "better/3"),
        ("search", ["--model", "base@champion"], "base@champion"),
    ],
)
def test_it_serves_a_model_of_the_fleet(name: str, options: list[str], served: str, tmp_path: Path) -> None:
    told = rules_json("new", name, "--dir", write(tmp_path, {}), *options)
    assert told["target"] == served
    written = yaml.safe_load(Path(told["files"][0]).read_text(encoding="utf-8"))
    assert [rule["serve"] for rule in written["rules"]] == [served]


def test_nothing_is_guessed_where_nothing_says_which_model_it_is(tmp_path: Path) -> None:
    """A stack that follows the directory would serve the guess at once."""
    directory = write(tmp_path, {})
    before = sorted(directory.rglob("*"))
    refused = rules("new", "search", "--dir", directory)
    assert refused.exit_code == 2
    assert "--model" in refused.stderr
    assert "base, better" in refused.stderr
    assert sorted(directory.rglob("*")) == before
    only = write(tmp_path / "one", {"fleet.yaml": "shards: {a: {replicas: 1}}\nmodels: {alone: {shards: [a]}}\n"})
    assert rules_json("new", "search", "--dir", only)["target"] == "alone"


def test_it_says_what_to_do_next_and_what_editors_need(tmp_path: Path) -> None:
    directory = write(tmp_path, {})
    told = rules("new", "search", "--dir", directory, "--model", "base").stdout
    assert f"tidegate rules check {directory}" in told
    assert f"tidegate rules schema --out {directory / 'schema'}" in told
    assert rules("schema", "--out", directory / "schema").exit_code == 0
    for folder, schema in (("objectives", "objective"), ("cases", "cases")):
        first = (directory / folder / "search.yaml").read_text(encoding="utf-8").splitlines()[0]
        assert first == f"# yaml-language-server: $schema=../schema/{schema}.json"
        assert (directory / folder / first.partition("=")[2]).resolve().exists()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    kept: dict[str, str | bytes] = {
        "cases/search.yaml": "[{name: mine, expect: {rule: a}}]\n",
        "objectives/old.yml": "objective: old\nrules: [{id: a, serve: base}]\n",
        "objectives/file.yaml": "objective: named\nrules: [{id: a, serve: base}]\n",
    }
    directory = write(tmp_path, kept)
    for name in ("ranking", "search", "old", "named"):
        before = {file: file.read_bytes() for file in sorted(directory.rglob("*.y*ml"))}
        result = rules("new", name, "--dir", directory, "--model", "base")
        assert result.exit_code == 2
        assert "nothing is overwritten" in result.stderr
        assert {file: file.read_bytes() for file in sorted(directory.rglob("*.y*ml"))} == before


@pytest.mark.parametrize("name", ["../search", "a/b", "", " ", "-x", ".x", "a b", "ümlaut", "x\n", "x" * 129])
def test_a_bad_name_is_wrong_usage(name: str, tmp_path: Path) -> None:
    directory = write(tmp_path, {})
    before = sorted(directory.rglob("*"))
    assert rules("new", "--dir", directory, "--", name).exit_code == 2
    assert sorted(directory.rglob("*")) == before


@pytest.mark.parametrize("model", ["bettr", "base@nobody", "base/x", "", "base: {}"])
def test_a_model_that_the_fleet_does_not_place_is_wrong_usage(model: str, tmp_path: Path) -> None:
    directory = write(tmp_path, {})
    assert rules("new", "search", "--dir", directory, "--model", model).exit_code == 2
    assert not (directory / "objectives" / "search.yaml").exists()


def test_a_fleet_with_errors_is_a_finding(tmp_path: Path) -> None:
    directory = write(tmp_path, {"fleet.yaml": "shards: {}\n"})
    assert rules_json("new", "search", "--dir", directory, exit_code=1)["findings"][0]["file"] == "fleet.yaml"
    (directory / "fleet.yaml").unlink()
    assert rules("new", "search", "--dir", directory).exit_code == 1


def test_errors_in_other_objectives_do_not_stop_it(tmp_path: Path) -> None:
    directory = write(tmp_path, {"objectives/broken.yaml": "objective: broken\nrules: []\n"})
    assert rules("new", "search", "--dir", directory, "--model", "base").exit_code == 0


@pytest.mark.parametrize("command", ["init", "new"])
def test_commands_to_go_on_with_can_be_pasted_whatever_the_directory_is_called(command: str, tmp_path: Path) -> None:
    root = tmp_path / "it's $HOME; two words"
    if command == "init":
        result = CliRunner().invoke(main, ["init", str(root), "--json"], catch_exceptions=False)
        wanted = {str(root / name) for name in ("routing_rules", "triton_models")}
    else:
        result = rules("new", "fresh", "--dir", write(root, {}), "--model", "base", "--json")
        wanted = {str(root), str(root / "schema")}
    assert result.exit_code == 0, result.output
    commands = [
        shlex.split(each, comments=True) for each in json.loads(result.stdout)["next"] if each.startswith("tidegate")
    ]
    assert len(commands) > 2
    assert {word for words in commands for word in words if str(root) in word} == wanted


def test_the_command_that_writes_schemas_again_can_be_pasted(tmp_path: Path) -> None:
    out = tmp_path / "it's two words"
    told = rules("schema", "--check", "--out", out)
    assert told.exit_code == 1
    assert shlex.split(told.stderr.partition("`")[2].partition("`")[0])[-1] == str(out)
