"""Every snippet of docs/experiments.md: the rules compile, and Python and SQL allocate as the engine does."""

from __future__ import annotations

import hashlib
import math
import shlex
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tidegate.cli import main
from tidegate.rules import Engine, compile_directory, load_bundle

from tests.docs.blocks import blocks

PAGE = blocks("docs/experiments.md")
YAML = [block.text for block in PAGE if block.language == "yaml"]
FILES = {text.splitlines()[0].removeprefix("# "): text for text in YAML if text.startswith("# ")}
FRAGMENTS = [text for text in YAML if not text.startswith("# ")]
MEMBERS = [f"m{number}" for number in range(20_000)]

Allocations = dict[str, tuple[int, str]]
"""(bucket, cell) of each member inside the experiment 12345."""


def load(root: Path, rules: list[Any] | None = None) -> Engine:
    (root / "objectives").mkdir()
    for name, text in FILES.items():
        objective = yaml.safe_load(text)
        if "rules" in objective:
            objective["rules"] = (rules or []) + objective["rules"]
        (root / name).write_text(yaml.safe_dump(objective, sort_keys=False), encoding="utf-8")
    return load_bundle(compile_directory(root))


@pytest.fixture(name="allocations", scope="module")
def engines_allocations(tmp_path_factory: pytest.TempPathFactory) -> Allocations:
    engine = load(tmp_path_factory.mktemp("rules"))
    found = {}
    for member in [*MEMBERS, ""]:
        explained = engine.explain("ranking", {"member_id": member, "country": "US"})
        if explained.decision is not None and explained.decision.experiment == "12345":
            found[member] = (explained.buckets["home"], str(explained.decision.variant))
    return found


def test_the_page_has_what_is_tested_here() -> None:
    assert sorted(FILES) == ["fleet.yaml", "layers.yaml", "objectives/ranking.yaml"]
    assert [block.language for block in PAGE if block.language in ("python", "sql")] == ["python", "sql"]
    assert len(FRAGMENTS) == 1


def test_the_fragment_fits_the_pages_objective(tmp_path: Path) -> None:
    engine = load(tmp_path, yaml.safe_load(FRAGMENTS[0]))
    context = {"member_id": "1", "allocations": {"search-2026": "treatment"}}
    assert engine.decide("ranking", context).model == "ranking_v2"
    assert engine.decide("ranking", {"member_id": "1"}).rule != "ab-search"


def test_the_pages_python_allocates_as_the_engine_does(allocations: Allocations) -> None:
    page: dict[str, Any] = {"__name__": "page"}
    exec(next(block.text for block in PAGE if block.language == "python"), page)
    assert 3_500 < len(allocations) < 4_500
    assert page["cell_of_12345"]("") is page["cell_of_12345"](None) is None
    cells = {member: page["cell_of_12345"](member) for member in MEMBERS}
    assert {member: (page["bucket"]("home", member), cell) for member, cell in cells.items() if cell} == allocations


def test_the_pages_sql_allocates_as_the_engine_does(allocations: Allocations) -> None:
    database = sqlite3.connect(":memory:")
    # SQLite has its mathematics only where it was built with them.
    functions = {
        "sha256_hex": lambda text: text if text is None else hashlib.sha256(text.encode()).hexdigest(),
        "hex_to_integer": lambda digits: int(digits, 16),
        "ln": math.log,
        "floor": math.floor,
    }
    for name, function in functions.items():
        database.create_function(name, 1, function, deterministic=True)
    database.execute("CREATE TABLE members (member_id TEXT)")
    database.executemany("INSERT INTO members VALUES (?)", [(member,) for member in [*MEMBERS, "", None]])
    rows = database.execute(next(block.text for block in PAGE if block.language == "sql")).fetchall()
    assert {member: (int(bucket), cell) for member, bucket, cell in rows} == allocations
    assert len(rows) == len(allocations)


def test_the_pages_members_are_those_that_the_command_finds(tmp_path: Path) -> None:
    load(tmp_path)
    (console,) = (block.text for block in PAGE if block.language == "console")
    command, *told = console.splitlines()
    arguments = [str(tmp_path) if each == "." else each for each in shlex.split(command)[2:]]
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert result.stdout.splitlines() == told
