"""docs/findings.md: its tables are those of the code."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from tidegate.analysis.reach.findings import KINDS
from tidegate.finding_kinds import Kind
from tidegate.models.lint.kinds import CHECKED, SMOKED

from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs/findings.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("command", "kinds"),
    [("rules check", KINDS.values()), ("models check", CHECKED), ("models smoke", SMOKED)],
    ids=["rules check", "models check", "models smoke"],
)
def test_a_table_has_every_kind_of_its_command(command: str, kinds: Sequence[Kind]) -> None:
    _, _, section = PAGE.partition(f"## Findings of `{command}`\n")
    table = re.search(
        r"^\| kind \| severity \| meaning \| what to do \|\n\|[-|]+\|\n((?:\|.*\n)+)", section, re.MULTILINE
    )
    assert table
    assert table[1].splitlines() == [
        f"| `{kind.name}` | {kind.severity} | {kind.meaning} | {kind.remedy} |" for kind in kinds
    ]
