"""docs/functions.md: the functions, their rights and metrics are those of the code, and what it says to run works."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tidegate.control import rules_archive
from tidegate.control.rules_archive import validate_archive
from tidegate.metrics import Metric
from tidegate.metrics.__main__ import cloudwatch_table

from tests.docs.blocks import ROOT, blocks

PAGE = "docs/functions.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
SOURCES = ROOT / "functions" / "tidegate"
FUNCTIONS = sorted(file.stem for file in (SOURCES / "lambdas").glob("*.py") if file.stem != "__init__")


def rows(header: str) -> list[list[str]]:
    """The cells of the table with this first cell in its header."""
    table = TEXT.partition(f"\n| {header} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def prefixes(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def test_every_function_is_described() -> None:
    assert sorted(row[0].strip("`") for row in rows("function")) == FUNCTIONS


def test_the_rights_are_those_that_are_granted() -> None:
    # It starts Node.js, in each worker that collects this.
    from infra.stacks.grants import GRANTS

    table = TEXT.partition("## Permissions")[2].partition("\n\n## ")[0]
    told = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:3] == "| `"]
    assert sorted(row[0].strip("`") for row in told) == sorted(GRANTS)
    for name, *kinds, secret in told:
        grant = GRANTS[name.strip("`")]
        assert [prefixes(kind) for kind in kinds] == [grant.reads, grant.writes, grant.deletes], name
        assert (secret == "of management") is grant.management_secret, name
        assert (secret == "of sequences") is grant.sequence_key, name


def test_the_metrics_are_those_of_the_code() -> None:
    assert cloudwatch_table() in TEXT, "print it by `python -m tidegate.metrics`"


@pytest.mark.parametrize("metric", [metric for metric in Metric if metric.emf is not None])
def test_a_metric_is_named_by_its_member_alone_and_emitted(metric: Metric) -> None:
    code = {path: path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.py")}
    assert [path.name for path, text in code.items() if f'"{metric.metric_name}"' in text] == [], (
        "it is derived from the member"
    )
    emitting = [text for path, text in code.items() if path.parent.name in ("aws", "bootstrap", "lambdas")]
    # What CloudWatch counts in a log.
    emitting.append((ROOT / "infra/stacks/data_plane/alarms.py").read_text(encoding="utf-8"))
    assert any(f"Metric.{metric.name}:" in text or f"Metric.{metric.name}]" in text for text in emitting)


def test_the_command_that_packs_rules_makes_an_archive_that_is_accepted(tmp_path: Path) -> None:
    (command,) = [
        line.removeprefix("$ ") for block in blocks(PAGE) for line in block.text.splitlines() if "zipfile" in line
    ]
    target = tmp_path / "rules.zip"
    command = command.replace("../rules.zip", str(target)).replace("python", sys.executable)
    subprocess.run(["bash", "-c", command], cwd=ROOT, check=True, timeout=300)
    verdict = validate_archive(target.read_bytes(), at=time.time())
    assert verdict.accepted, verdict
    (shown,) = [block for block in blocks(PAGE) if block.language == "json"]
    assert re.findall(r'^  "(\w+)":', shown.text, re.MULTILINE) == ["key", "etag", *verdict.as_dict()]


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("16 MiB", rules_archive.MOST_ARCHIVE_BYTES / 2**20),
        ("64 MiB", rules_archive.MOST_UNPACKED_BYTES / 2**20),
        ("4 MiB", rules_archive.MAX_FILE_BYTES / 2**20),
        ("2 000 files", rules_archive.MOST_FILES),
    ],
)
def test_the_bounds_are_those_of_the_code(words: str, number: float) -> None:
    assert words in TEXT
    assert float(words.rpartition(" ")[0].replace(" ", "")) == number
