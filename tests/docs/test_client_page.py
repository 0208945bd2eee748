"""docs/client.md: its options are those of the code, its grant compiles, and its Python runs on the example stack."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from tidegate.client import ClientConfig
from tidegate.rules import compile_directory, load_bundle

from tests.docs.blocks import ROOT, blocks
from tests.support.parts import need
from tests.support.stack import RunningStack, write_rules

PAGE = "docs/client.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
PYTHON = [block.text for block in blocks(PAGE) if block.language == "python"]


def test_the_options_are_those_of_the_code() -> None:
    section = TEXT.partition("## Options\n")[2].partition("\n## ")[0]
    rows = {
        name: default.strip(" |`")
        for names, default in re.findall(r"^\| (`.*?) \|.*\| ([^|]+) \|$", section, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert rows.keys() == {each.name for each in fields(ClientConfig)}
    for each in fields(ClientConfig):
        if isinstance(each.default, str | int | float):
            assert str(each.default).removesuffix(".0") == rows[each.name].replace("`", ""), each.name


def test_the_pages_options_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    exec(PYTHON[2], names)
    assert names["client"].config.max_age_s == 3600


def test_the_pages_grant_compiles(tmp_path: Path) -> None:
    write_rules(tmp_path, {"alpha": 1}, {"model": ["alpha"]}, ranking="model")
    (block,) = (each for each in blocks(PAGE) if each.language == "yaml")
    (tmp_path / "callers.yaml").write_text(block.text)
    callers = load_bundle(compile_directory(tmp_path)).callers
    assert callers is not None
    assert [caller.reads_bundle for caller in callers.values()] == [True, False]


@pytest.mark.parametrize(("number", "printed"), [(0, "title_ranking"), (1, "title_ranking")])
def test_the_pages_python_runs(example_stack: RunningStack, tmp_path: Path, number: int, printed: str) -> None:
    need("onnx", "example models")
    script = tmp_path / "page.py"
    script.write_text(PYTHON[number])
    environment = {"PYTHONPATH": str(ROOT / "functions"), "PATH": ""}
    done = subprocess.run(
        [sys.executable, str(script), example_stack.url],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout
