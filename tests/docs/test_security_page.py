"""docs/security.md: every threat of its tables names a test, and each of those exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.fuzz.gateway import options

PAGE = ROOT / "docs" / "security.md"
TEXT = PAGE.read_text(encoding="utf-8")
THREATS = [line for line in TEXT.partition("## Threats from anyone")[2].splitlines() if line.startswith("| ")]
ROWS = [line for line in THREATS if not line.startswith("| threat |")]
NAMED = re.findall(r"\[(test_\w+)\]\(([^)]+)\)", TEXT)


def defined_in(file: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize(("name", "path"), NAMED, ids=[name for name, _ in NAMED])
def test_a_test_that_is_named_exists(name: str, path: str) -> None:
    assert name in defined_in((PAGE.parent / path).resolve())


def test_every_threat_has_its_test() -> None:
    assert len(ROWS) > 40
    for row in ROWS:
        threat, held, shown = (cell.strip() for cell in row.strip("|").split(" | "))
        assert threat
        assert held
        assert re.fullmatch(r"\[test_\w+\]\([^)]+\)(, \[test_\w+\]\([^)]+\))*", shown), row


def test_the_command_that_is_shown_is_understood() -> None:
    (command,) = re.findall(r"^\$ python -m tests\.fuzz\.gateway (.+)$", TEXT, re.MULTILINE)
    assert vars(options().parse_args(command.split())) == {
        "requests": 50_000, "mixed": 200_000, "aborted": 12_000, "seed": 1,
    }  # fmt: skip
