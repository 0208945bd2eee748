"""docs/first-model.md and `tidegate init`: every command of the page works, one after the other, on the real Triton."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tidegate.cli import main
from tidegate.cli.init import TEMPLATE
from tidegate.triton.numpy_abi import WHEEL

from tests.docs.blocks import ROOT, blocks
from tests.support.stack import RunningStack, eventually, running_stack

PAGE = "docs/first-model.md"
COMMANDS = [
    line.removeprefix("$ ") for block in blocks(PAGE) if block.language == "console" for line in block.text.splitlines()
]
UP = "tidegate up"
STACK = "http://127.0.0.1:8080"


def run(command: str, folder: Path, *, exit_code: int = 0, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | variables
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == exit_code, (command, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.fixture(name="first", scope="module")
def first_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("newcomer")
    assert COMMANDS[:2] == ["tidegate init first", "cd first"]
    run(COMMANDS[0], folder)
    return folder / "first"


class Walk:
    """The page's commands, one after the other, on a stack that follows the project's files."""

    def __init__(self, folder: Path, stack: RunningStack) -> None:
        self.folder, self.stack = folder, stack
        self._left = [command for command in COMMANDS[2:] if command != UP]

    def step(self, *begins: str, exit_code: int = 0) -> list[str]:
        """Run the next commands, which begin so; what they print. A saved file is waited for, until it is live."""
        shown = []
        for beginning in begins:
            command = self._left.pop(0)
            assert command.startswith(beginning), command
            expected = exit_code if beginning == begins[-1] else 0
            command = command.replace(STACK, self.stack.url)
            shown.append(run(command, self.folder, exit_code=expected, TIDEGATE_STACK=self.stack.url))
        return shown

    def saved(self) -> str:
        """Wait until what is saved is live; its revision, which is that of `rules check`."""
        revision: str = json.loads(run("tidegate rules check routing_rules --json", self.folder))["revision"]
        assert eventually(lambda: self.stack.get("/v1/fleet")["revision"] == revision), self.stack.errors
        return revision

    @property
    def is_over(self) -> bool:
        return not self._left


def label(stack: RunningStack, text: str, **context: str) -> str:
    status, answer = stack.post("/v1/objectives/sentiment/infer", {"context": context, "inputs": {"TEXT": text}})
    assert status == 200, answer
    return str(answer["outputs"]["LABEL"][0][0])


def test_the_walk_from_an_empty_folder_to_a_rollback(first: Path) -> None:
    assert UP in COMMANDS
    with running_stack(first / "routing_rules", first / "triton_models", first.parent / "log") as stack:
        walk = Walk(first, stack)
        walk.step("tidegate rules check", "tidegate rules test", "tidegate models check")
        answer, explained, status = walk.step("curl ", "tidegate rules explain live:", "tidegate status")
        revision = walk.saved()
        assert json.loads(answer)["decision"]["revision"] == revision
        assert json.loads(answer)["outputs"]["LABEL"] == [["positive"]]
        assert revision[:12] in explained
        assert revision[:12] in status
        _edit(walk)
        _break_and_mend(walk)
        _add_and_ramp(walk)
        walk.step("tidegate rules new", "tidegate rules schema", "tidegate rules test")
        assert walk.is_over


def _edit(walk: Walk) -> None:
    walk.step("sed ")
    walk.saved()
    (shown,) = walk.step("tidegate rules diff live:~1 live:", exit_code=1)
    assert "0.9" in shown
    assert label(walk.stack, "what a good day", audience="editors") == "neutral"
    assert label(walk.stack, "what a good day") == "positive"


def _break_and_mend(walk: Walk) -> None:
    walk.step("sed ")
    (found,) = walk.step("tidegate rules check", exit_code=1)
    assert "did you mean 'audience'?" in found
    assert eventually(lambda: walk.stack.get("/v1/fleet")["rules"]["last_rejected"])
    (shown,) = walk.step("tidegate status")
    assert "did you mean 'audience'?" in shown
    assert label(walk.stack, "what a good day", audience="editors") == "neutral"
    walk.step("sed ", "tidegate rules check")
    assert eventually(lambda: walk.stack.get("/v1/fleet")["rules"]["last_rejected"] is None)


def _add_and_ramp(walk: Walk) -> None:
    walk.step("cp ", "cp ", "tidegate models check")
    walk.step("sed ", "sed ")
    before = walk.saved()
    (explained,) = walk.step("tidegate rules explain live:")
    assert "sentiment_calm" in explained
    walk.step("sed ")
    walk.saved()
    (shown,) = walk.step("tidegate rules diff live:~1 live:", exit_code=1)
    assert "of the traffic moves" in shown
    assert "tidegate rules explain live: --objective sentiment" in shown, "it can be pasted"
    rolled_back, history = walk.step("tidegate rollback", "tidegate history")
    assert before[:12] in rolled_back
    assert "no longer followed" in rolled_back
    assert "too calm" in history
    assert eventually(lambda: walk.stack.get("/v1/fleet")["revision"] == before)


def test_the_page_names_the_wheel_that_is_tested_with() -> None:
    assert f"pip install --no-deps {WHEEL}" in (ROOT / PAGE).read_text(encoding="utf-8")


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
