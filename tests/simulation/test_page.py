"""docs/scale.md has the result of every simulation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from simulation import writing
from simulation.__main__ import SIMULATIONS, main

PAGE = writing.REPORT.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SIMULATIONS)
def test_the_page_has_its_table_with_the_date(name: str) -> None:
    section = PAGE.partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0]
    assert re.search(r"^\*20\d\d-\d\d-\d\d, on a simulated clock\.\*$", section, re.MULTILINE)
    assert "|---" in section
    assert "xychart-beta" in section


def test_a_section_takes_the_place_of_its_own_and_of_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "scale.md"
    page.write_text("a\n<!-- one -->\nold\n<!-- end -->\nb\n<!-- two -->\nkept\n<!-- end -->\n")
    monkeypatch.setattr(writing, "REPORT", page)
    writing.write_sections({"one": "new"})
    assert re.fullmatch(
        r"a\n<!-- one -->\nnew\n\n\*.*\*\n<!-- end -->\nb\n<!-- two -->\nkept\n<!-- end -->\n", page.read_text()
    )
    with pytest.raises(ValueError, match="has no place for three"):
        writing.write_sections({"three": "new"})


def test_an_unknown_simulation_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing"]) == 2
    assert "no simulation nothing; there are followers, fleet" in capsys.readouterr().err
