"""docs/first-hour.md and `tidegate init`: every command of the page works, one after the other, on the real Triton."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tidegate.cli import main
from tidegate.cli.init import TEMPLATE

from tests.docs.blocks import blocks
from tests.support.stack import RunningStack, eventually, running_stack

PAGE = "docs/first-hour.md"
COMMANDS = [
    line.removeprefix("$ ") for block in blocks(PAGE) if block.language == "console" for line in block.text.splitlines()
]
UP = "tidegate up --rules routing_rules --models triton_models"
STACK = "http://127.0.0.1:8080"


def run(command: str, folder: Path) -> str:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    return done.stdout


@pytest.fixture(name="first", scope="module")
def first_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newcomer")
    assert COMMANDS[:2] == ["tidegate init first", "cd first"]
    run(COMMANDS[0], folder)
    return folder / "first"


@pytest.fixture(name="stack", scope="module")
def first_stack(first: Path) -> Iterator[RunningStack]:
    assert UP in COMMANDS
    with running_stack(first / "routing_rules", first / "triton_models", first.parent / "log") as stack:
        yield stack


def infer(stack: RunningStack, text: str, **context: str) -> Any:
    body = json.dumps({"context": context, "inputs": {"TEXT": text}}).encode()
    request = urllib.request.Request(
        f"{stack.url}/v1/objectives/sentiment/infer", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def label(answer: Any) -> str:
    return str(answer["outputs"]["LABEL"][0][0])


def test_every_command_of_the_page_works_in_its_order(first: Path, stack: RunningStack) -> None:
    rules = []
    for command in COMMANDS[2:]:
        if command == UP:
            continue
        shown = run(command.replace(STACK, stack.url), first)
        if command.startswith("curl"):
            answer = json.loads(shown)
            assert label(answer) == "positive"
            rules.append(answer["decision"]["rule"])
    assert rules == ["default", "editors"]


def test_a_saved_rule_serves_without_a_restart(first: Path, stack: RunningStack) -> None:
    text = "what a lovely, good day"
    file = first / "routing_rules/objectives/sentiment.yaml"
    sound = file.read_text()
    assert label(infer(stack, text, audience="editors")) == "positive"
    file.write_text(sound.replace("threshold: 0.8", "threshold: 0.99"))
    try:
        assert eventually(lambda: label(infer(stack, text, audience="editors")) == "neutral")
        failed = CliRunner().invoke(main, ["rules", "test", str(first / "routing_rules")])
        assert (failed.exit_code, "0.99" in failed.output) == (1, True)
        assert label(infer(stack, text)) == "positive"
    finally:
        file.write_text(sound)


def test_the_readme_of_the_project_has_the_pages_commands(first: Path) -> None:
    text = (first / "README.md").read_text(encoding="utf-8")
    commands = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    assert len(commands) >= 6
    for command in commands:
        if command.startswith("curl"):
            assert f"{STACK}/v1/objectives/sentiment/infer " in command
        elif command != UP:
            run(command, first)


def test_the_golden_request_is_answered_as_it_says(first: Path) -> None:
    done = run("tidegate models smoke triton_models sentiment --json", first)
    assert json.loads(done)["ok"] is True


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    there = tmp_path / "routing_rules" / "objectives" / "sentiment.yaml"
    there.parent.mkdir(parents=True)
    there.write_text("mine")
    result = CliRunner().invoke(main, ["init", str(tmp_path)])
    assert (result.exit_code, "overwritten" in result.output) == (2, True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [there]
    assert there.read_text() == "mine"


def test_it_writes_beside_what_is_there_and_here_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    result = CliRunner().invoke(main, ["init", "--json"], catch_exceptions=False)
    found = json.loads(result.stdout)
    files = {path.relative_to(TEMPLATE).as_posix() for path in TEMPLATE.rglob("*") if path.is_file()}
    files = {file for file in files if "__pycache__" not in file}
    assert set(found["files"]) == files
    assert all((tmp_path / file).read_bytes() == (TEMPLATE / file).read_bytes() for file in files)


@pytest.mark.parametrize("place", ["a file", "a link to nothing", "below a file"])
def test_a_place_that_cannot_be_written_is_named(place: str, tmp_path: Path) -> None:
    target = tmp_path / "taken"
    if place == "a link to nothing":
        target.mkdir()
        (target / "README.md").symlink_to(tmp_path / "nowhere")
    else:
        target.write_text("mine")
    where = target / "below" if place == "below a file" else target
    result = CliRunner().invoke(main, ["init", str(where)])
    assert result.exit_code == 2, result.output
    assert str(target) in result.output.replace("\n", "")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("has_folder", [True, False])
def test_a_new_objective_without_a_fleet_says_what_to_run(
    has_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if has_folder:
        (tmp_path / "routing_rules").mkdir()
    result = CliRunner().invoke(main, ["rules", "new", "mine"], catch_exceptions=False)
    assert (result.exit_code, "tidegate init" in result.output) == (1 if has_folder else 2, True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    CliRunner().invoke(main, ["init"], catch_exceptions=False)
    assert CliRunner().invoke(main, ["rules", "new", "mine"], catch_exceptions=False).exit_code == 0
