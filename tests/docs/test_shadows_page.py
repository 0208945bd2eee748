"""docs/shadows.md: its commands work, and the output and the picture on the page are what they give."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from tidegate.cli import main
from tidegate.shadows.pictures import shadows_svg

from tests.docs.blocks import ROOT, blocks
from tests.shadows.planted import plant, tallies
from tests.support.aws import LocalAws

PAGE = blocks("docs/shadows.md")
COMMANDS = [
    line.removeprefix("$ ")
    for block in PAGE
    if block.language == "console"
    for line in block.text.splitlines()
    if line.startswith("$ tidegate shadow ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_works(
    command: str, aws: LocalAws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = plant(aws, tallies().to_json())
    result = CliRunner().invoke(main, [*shlex.split(command)[1:], *options], catch_exceptions=False)
    assert result.exit_code == int("--fail-above" in command), result.output
    if command == "tidegate shadow report":
        shown = next(block.text for block in PAGE if "\npurchase_propensity, rule" in block.text)
        assert [line.rstrip() for line in result.stdout.splitlines()] == shown.splitlines()


def test_the_picture_of_the_page_is_what_the_command_draws() -> None:
    pairs = sorted(tallies().pairs.values(), key=lambda each: each.pair)
    assert (ROOT / "docs" / "shadow-report.svg").read_text(encoding="utf-8") == shadows_svg(pairs)
