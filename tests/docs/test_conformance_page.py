"""docs/conformance.md describes what bundles hold, and its Python reads them."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

import pytest
from tidegate.rules.bundle import manifest, revision_of
from tidegate.rules.bundle.rule import EXPERIMENT, RULE
from tidegate.rules.conditions import Operator

from tests.docs.blocks import ROOT, blocks

PAGE = "docs/conformance.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
CORPUS = ROOT / "conformance" / "corpus"


def rows(heading: str) -> dict[str, str]:
    """The first table below a heading, as the rest of each row by each name in its first cell."""
    section = re.split(r"^#", TEXT.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    found = {}
    for line in re.findall(r"^\| `.*", section, re.MULTILINE):
        first, _, rest = line.removeprefix("|").partition(" | ")
        found |= dict.fromkeys(re.findall(r"`([\w.…]+)`", first), rest)
    return found


def test_the_page_names_every_member_of_a_bundle() -> None:
    members = {member for member, *_ in RULE._members}
    assert rows("A rule").keys() == members
    assert all(f"`{member}`" in TEXT for member, *_ in EXPERIMENT._members)
    described = rows("The manifest")
    assert {member for member, *_ in manifest._MANIFEST._members} <= described.keys()
    objective = described["objectives"]
    inlined = {member for record in (manifest._ENTRY, manifest.OBJECTIVE) for member, *_ in record._members}
    assert all(f"`{member}`" in objective for member in inlined)
    assert all(f"`{member}`" in described["objectives.….context"] for member, *_ in manifest.ATTRIBUTE._members)


def test_the_page_names_every_operator_and_every_member_of_a_decision() -> None:
    assert rows("Conditions").keys() - {"true", "false"} == {*get_args(Operator)}
    case = json.loads((CORPUS / "decisions.jsonl").read_text().splitlines()[1])
    assert rows("A decision").keys() == case["expect"]["decision"].keys()
    assert rows("The corpus").keys() >= {"decision", "no_rule", "errors"} or "no_rule" in TEXT


def test_the_pages_python_reads_the_bundle(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    (block,) = (each for each in blocks(PAGE) if each.language == "python")
    names: dict[str, Any] = {}
    exec(block.text, names)
    assert names["revision"] == revision_of((CORPUS / "rules.bundle").read_bytes())
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("choices ['allocated', 'ab-12345'")
    assert len(printed) == 7
