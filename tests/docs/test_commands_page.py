"""docs/commands.md: its commands work, and its tables have what the program has."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from tidegate.cli import main
from tidegate.cli.logs import LEVELS

from tests.docs.blocks import ROOT, blocks
from tests.docs.test_json_page import commands

PAGE = "docs/commands.md"
COMMANDS = [line.removeprefix("$ ") for block in blocks(PAGE) for line in block.text.splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_works(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("TIDEGATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("tidegate.cli.stacks.LOCAL_STACK", "http://127.0.0.1:9")
    program, *arguments = shlex.split(command)
    environment = {"HOME": str(tmp_path), "XDG_DATA_HOME": ""}
    result = CliRunner(env=environment).invoke(main, arguments, catch_exceptions=False)
    assert program == "tidegate"
    # No stack runs here: that is wrong usage, and the options were accepted.
    expected = (2, "no stack answers") if "status" in command else (0, "")
    assert (result.exit_code, expected[1] in " ".join(result.output.split())) == (expected[0], True), result.output


def test_the_page_has_every_command() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    listed = re.findall(r"^\| `tidegate ([a-z -]+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(name for name, _ in commands())


def test_the_levels_and_the_fields_are_those_of_the_program() -> None:
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    rows: dict[str, str] = dict(re.findall(r"^\| `([^`]+)` \| (.*?) \|", page, re.MULTILINE))
    assert re.findall(r"`(\w+)`", rows["--log-level"]) == list(LEVELS)
    assert {"time", "level", "logger", "message", "error"} <= rows.keys()
