"""docs/json.md: every command with `--json` is on it, prints what it says, and prints JSON where it fails."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from tidegate.cli import main

from tests.docs.blocks import ROOT

RULES = ROOT / "routing_rules"
MODELS = ROOT / "tests" / "repositories" / "small"
PAGE = (ROOT / "docs" / "json.md").read_text(encoding="utf-8")
SECTIONS: dict[str, str] = dict(re.findall(r"^## `([a-z -]+)`\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))

LOCAL: Mapping[str, list[str]] = {
    "init": ["{here}/project"],
    "rules check": ["{rules}"],
    "rules test": ["{rules}"],
    "rules schema": ["--out", "{here}/schema"],
    "rules new": ["fresh", "--dir", "{copy}", "--model", "title_ranking_ease"],
    "rules replay": ["{rules}", "--log", "{log}"],
    "rules diff": ["{rules}", "{rules}"],
    "rules explain": ["{rules}", "--objective", "title_ranking", "--context", '{{"member_id": "1"}}'],
    "rules find-member": ["{rules}", "--objective", "title_ranking"],
    "rules compile": ["{rules}", "-o", "{here}/bundle"],
    "rules graph": ["{rules}"],
    "models check": ["{models}"],
    "models graph": ["{models}", "simple_pipeline"],
    "models new": ["other", "--from", "simple", "--models", "{here}/repository"],
    "models version": ["simple", "--offline", "--yes", "--models", "{here}/repository", "--rules", "{copy}"],
    "fleet plan": ["--rules", "{rules}"],
    "capacity": ["--rps", "1000"],
    "settings": [],
    "version": [],
}
"""Commands that need no stack, with arguments that succeed."""

OF_A_STACK: Mapping[str, list[str]] = {
    "models smoke": ["{here}/nowhere", "simple"],
    "models push": ["{models}", "--stack", "{closed}"],
    "models pull": ["simple/1", "--to", "{here}", "--stack", "{closed}"],
    "models withdraw": ["simple/1", "--stack", "{closed}"],
    "facts seed": ["{models}", "--stack", "{closed}"],
    "publish": ["--rules", "{rules}", "--stack", "{closed}"],
    "rollback": ["--stack", "{closed}"],
    "follow status": ["--stack", "{closed}"],
    "follow pause": ["--stack", "{closed}"],
    "follow resume": ["--stack", "{closed}"],
    "reconcile": ["--stack", "{closed}"],
    "recover": ["--stack", "{closed}", "--yes"],
    "history": ["--stack", "{closed}"],
    "shadow report": ["--stack", "{closed}"],
    "status": ["--url", "{closed}"],
    "console": ["--stack", "{closed}"],
}
"""Commands that need a stack or Triton, with arguments that fail."""


def commands(group: click.Group = main, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


WITH_JSON = [name for name, command in commands() if any("--json" in each.opts for each in command.params)]
SILENT = {"envoy config", "envoy run", "resolve-server", "up", "shard-agent", "models image describe"}
"""Commands that print no result: they run until they are stopped, or print a file."""


@pytest.fixture(name="run")
def runner(tmp_path: Path) -> Any:
    shutil.copytree(RULES, tmp_path / "copy")
    shutil.copytree(MODELS, tmp_path / "repository")
    (tmp_path / "log.jsonl").write_text('{"objective": "title_ranking", "context": {"member_id": "1"}}\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        places = {
            "rules": RULES,
            "models": MODELS,
            "here": tmp_path,
            "copy": tmp_path / "copy",
            "log": tmp_path / "log.jsonl",
            "closed": f"http://127.0.0.1:{free.getsockname()[1]}",
        }

        def run(name: str, arguments: list[str]) -> Result:
            given = [argument.format(**places) for argument in arguments]
            return CliRunner().invoke(main, [*name.split(), *given, "--json"], catch_exceptions=False)

        yield run


def documented(name: str) -> set[str]:
    rows = re.findall(r"^\| (`[^|]+) \|", SECTIONS[name], re.MULTILINE)
    return {member for row in rows for member in re.findall(r"`([a-z_]+)`", row)}


def last_object(output: str) -> dict[str, Any]:
    """The only object of an output, or that of its last line."""
    try:
        found = json.loads(output)
    except ValueError:
        found = json.loads(output.splitlines()[-1])
    assert isinstance(found, dict), output
    return found


def test_every_command_that_prints_results_takes_json_and_is_on_the_page() -> None:
    assert {name for name, _ in commands()} - set(WITH_JSON) == SILENT
    assert set(SECTIONS) == set(WITH_JSON)
    assert set(WITH_JSON) == {*LOCAL, *OF_A_STACK}


@pytest.mark.parametrize("name", LOCAL)
def test_the_output_has_the_members_that_the_page_has(name: str, run: Any) -> None:
    result = run(name, LOCAL[name])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert next(iter(found)) == "format_version"
    assert found.pop("format_version") == 1
    assert set(found) == documented(name)


@pytest.mark.parametrize("name", WITH_JSON)
@pytest.mark.parametrize("wrong", ["--unheard-of", "--json=7"])
def test_wrong_usage_is_json_too(name: str, wrong: str, run: Any) -> None:
    result = run(name, [wrong])
    assert result.exit_code == 2
    found = json.loads(result.stdout)
    assert (found["format_version"], found["ok"], found["exit_code"]) == (1, False, 2)
    assert found["error"].splitlines()[0] in result.stderr


@pytest.mark.parametrize("name", OF_A_STACK)
def test_a_failure_is_json_too(name: str, run: Any) -> None:
    result = run(name, OF_A_STACK[name])
    assert result.exit_code in (1, 2), result.output
    found = last_object(result.stdout)
    assert (found["format_version"], found["ok"]) == (1, False)
    assert found["error"]


@pytest.mark.parametrize("name", [name for name in LOCAL if name.startswith(("rules", "fleet"))])
def test_a_missing_directory_and_rules_that_do_not_compile_are_json_too(name: str, run: Any, tmp_path: Path) -> None:
    nowhere = [
        argument.replace("{rules}", "{here}/nowhere").replace("{copy}", "{here}/nowhere") for argument in LOCAL[name]
    ]
    if nowhere == LOCAL[name]:
        nowhere = ["--out", "{here}/no/folder"]
    missing = run(name, nowhere)
    assert missing.exit_code == 2
    assert json.loads(missing.stdout)["error"]
    if name == "rules schema":
        return
    (tmp_path / "copy" / "fleet.yaml").write_text("shards: {a: {}\n")
    broken = run(name, [argument.replace("{rules}", "{copy}") for argument in LOCAL[name]])
    assert broken.exit_code == 1
    found = json.loads(broken.stdout)
    assert (found["format_version"], found["ok"]) == (1, False)
    assert found["findings"][0]["file"] == "fleet.yaml"


def test_an_unknown_command_is_json_too(run: Any) -> None:
    assert json.loads(run("rules", ["unheard-of"]).stdout)["exit_code"] == 2
    assert json.loads(run("unheard-of", []).stdout)["exit_code"] == 2
