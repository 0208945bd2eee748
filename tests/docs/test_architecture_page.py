"""docs/architecture.md: the packages are those of the source root, and every file that is named exists."""

from __future__ import annotations

import re

from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
HOUSE = ROOT / "functions" / "tidegate"
WALKS = PAGE.partition("## Five walks")[2].partition("\n## ")[0]


def test_the_table_has_every_package() -> None:
    section = PAGE.partition("## Packages")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", section, re.MULTILINE)
    listed = sorted(name for row in rows for name in re.findall(r"\w+", row))
    assert listed == sorted(each.parent.name for each in HOUSE.glob("*/__init__.py"))


def test_every_file_that_is_named_exists() -> None:
    files = re.findall(r"`([\w/]+\.py)`", PAGE)
    assert len(files) > 60
    missing = [file for file in files if not any((root / file).is_file() for root in (HOUSE, ROOT))]
    assert missing == []


def test_each_walk_goes_through_several_packages() -> None:
    walks = re.split(r"^### ", WALKS, flags=re.MULTILINE)[1:]
    assert [walk.partition("\n")[0] for walk in walks] == ["A request", "A rule", "A model", "A publish", "A reconcile"]
    for walk in walks:
        assert len({file.partition("/")[0] for file in re.findall(r"`(\w+/[\w/]+\.py)`", walk)}) >= 3, walk
