"""Findings in SARIF 2.1.0, which editors and code hosts show at their lines.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidegate import __version__
from tidegate.triton.checks.findings import ModelFinding
from tidegate.triton.checks.kinds import KINDS

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(findings: Sequence[ModelFinding], directory: Path) -> dict[str, Any]:
    """The findings as a SARIF log; files are named as seen from where the command runs."""
    used = sorted({finding.kind for finding in findings})
    rules = [
        {
            "id": name,
            "shortDescription": {"text": KINDS[name].meaning},
            "help": {"text": KINDS[name].remedy},
            "defaultConfiguration": {"level": KINDS[name].severity},
        }
        for name in used
    ]
    driver = {"name": "tidegate models check", "version": __version__, "rules": rules}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": [_result(finding, directory) for finding in findings]}],
    }


def _result(finding: ModelFinding, directory: Path) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": (directory / finding.file).as_posix()}}
    if finding.line:
        place["region"] = {"startLine": finding.line}
    text = finding.message + (f" ({finding.hint})" if finding.hint else "")
    return {
        "ruleId": finding.kind,
        "level": finding.severity,
        "message": {"text": text},
        "locations": [{"physicalLocation": place}],
    }
