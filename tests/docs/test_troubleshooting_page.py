"""docs/troubleshooting.md: each command does what the page says, on the example stack."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tidegate.triton.numpy_abi import WHEEL

from tests.docs.blocks import ROOT, blocks
from tests.support.commands import typed
from tests.support.stack import RunningStack, eventually

PAGE = "docs/troubleshooting.md"
STACK = "http://127.0.0.1:8080"
COMMANDS = [line.removeprefix("$ ") for block in blocks(PAGE) for line in block.text.splitlines()]
CHANGING = [command for command in COMMANDS if command.startswith("tidegate rollback")]


def run(command: str, stack: RunningStack) -> subprocess.CompletedProcess[str]:
    variables = {"TIDEGATE_STACK": stack.url, "TIDEGATE_CACHE_DIR": str(ROOT / ".cache" / "tidegate")}
    return typed(command.replace(STACK, stack.url), variables)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in CHANGING])
def test_a_command_of_the_page_works_on_a_healthy_stack(command: str, example_stack: RunningStack) -> None:
    # A server may just have been replaced.
    assert eventually(lambda: (fleet := example_stack.get("/v1/fleet"))["healthy"] and fleet["drift"] == [])
    done = run(command, example_stack)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()


def test_the_rollback_of_the_page_takes_a_publish_back(example_stack: RunningStack, tmp_path: Path) -> None:
    (command,) = CHANGING
    before = example_stack.get("/v1/fleet")["revision"]
    rules = shutil.copytree(ROOT / "routing_rules", tmp_path / "rules")
    page = rules / "objectives" / "title_search.yaml"
    page.write_text(page.read_text().replace("summary: ", "summary: Troubled. ", 1))
    assert run(f"tidegate publish --rules {rules}", example_stack).returncode == 0
    done = run(command, example_stack)
    assert done.returncode == 0, done.stdout + done.stderr
    assert before[:12] in done.stdout
    assert eventually(lambda: example_stack.get("/v1/fleet")["revision"] == before)


def test_the_page_names_the_wheel_that_is_tested_with() -> None:
    assert WHEEL in (ROOT / PAGE).read_text(encoding="utf-8")
