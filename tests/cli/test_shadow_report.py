"""`tidegate shadow report` on stored tallies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tidegate.cli import main
from tidegate.shadows.tallies import Tallies

from tests.docs.test_json_page import documented
from tests.shadows.answers import answer, exchange, tensor
from tests.shadows.planted import SVD, plant, tallies
from tests.support.aws import LocalAws

SAME = answer({"y": tensor("FP32", [1.0])})
OTHER = answer({"y": tensor("FP32", [2.0])})


def stored(*exchanges: Any) -> bytes:
    made = Tallies()
    for each in exchanges:
        made.add(each)
    return made.to_json()


def report(options: list[str], *arguments: str) -> Result:
    return CliRunner().invoke(main, ["shadow", "report", *options, *arguments], catch_exceptions=False)


def test_the_tallies_of_all_writers_are_reported_together(aws: LocalAws, tmp_path: Path) -> None:
    options = plant(aws, tallies().to_json(), stored(exchange(SAME, SAME, pair=SVD)), b"not tallies")
    files = [f"{option}={tmp_path / name}" for option, name in (("--svg", "r.svg"), ("--html", "r.html"))]
    result = report(options, "--json", *files)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert set(found) - {"format_version"} == documented("shadow report")
    assert [pair["sent"] for pair in found["pairs"]] == [400, 391]
    assert [pair["sampled"] for pair in found["pairs"]] == [400, 412]
    assert "damaged" in found["unreadable"][0]
    assert "warning: tallies of shadows" in result.stderr
    assert (tmp_path / "r.svg").read_text().startswith("<?xml")
    assert "title_ranking_svd" in (tmp_path / "r.html").read_text()
    one = json.loads(report(options, "--json", "--objective", "title_ranking").stdout)
    assert [pair["objective"] for pair in one["pairs"]] == ["title_ranking"]


def test_nothing_stored_is_said(aws: LocalAws) -> None:
    options = plant(aws)
    assert "no shadows in the last 24 hours" in report(options).stdout
    assert report(options, "--fail-above", "100").exit_code == 1, "nothing was compared"


@pytest.mark.parametrize(("limit", "exit_code"), [("24", 1), ("25", 0), ("100", 0), ("0", 1)])
def test_differences_above_a_limit_are_a_failure(aws: LocalAws, limit: str, exit_code: int) -> None:
    options = plant(aws, stored(*[exchange(SAME, SAME)] * 3, exchange(SAME, OTHER)))
    assert report(options, "--fail-above", limit).exit_code == exit_code
    assert report(options).exit_code == 0


@pytest.mark.parametrize("wrong", [["--hours", "0"], ["--fail-above", "101"], ["--svg", "/nowhere/x.svg"]])
def test_wrong_usage(aws: LocalAws, wrong: list[str]) -> None:
    assert report(plant(aws), *wrong).exit_code == 2
