"""How commands report findings: as text, as JSON, and as SARIF, which editors and code hosts show at their lines."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tidegate import __version__
from tidegate.cli.columns import say
from tidegate.cli.json_output import print_json
from tidegate.cli.options import FILE, write_file
from tidegate.errors import Finding, RulesError
from tidegate.language.words import did_you_mean

if TYPE_CHECKING:
    from tidegate.analysis.reach.findings import CheckFinding
    from tidegate.finding_kinds import Kind, Severity
    from tidegate.models.lint.findings import ModelFinding

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
SARIF = click.option("--sarif", "sarif_file", type=FILE, help="Write the findings as SARIF 2.1.0.")


def end_with_findings(findings: list[Finding], *, as_json: bool) -> NoReturn:
    """Print findings, as text on standard error or as JSON on standard output, and exit with 1."""
    if as_json:
        print_json({"ok": False, "findings": findings_json(findings)})
    else:
        say(str(RulesError(findings)), err=True)
    raise click.exceptions.Exit(1)


def findings_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return findings as plain JSON values."""
    return [
        {name: getattr(each, name) for name in ("file", "line", "column", "rule", "message", "hint")}
        for each in findings
    ]


def check_objective(objective: str, known: Collection[str]) -> None:
    """Refuse an unknown objective in `--objective` as wrong usage, and suggest another."""
    if objective not in known:
        hint = did_you_mean(objective, set(known), "objective")
        raise click.BadParameter(f"unknown objective {objective!r}: {hint}", param_hint="--objective")


def write_sarif(
    file: Path,
    command: str,
    kinds: Mapping[str, Kind],
    findings: Sequence[CheckFinding | ModelFinding],
    directory: Path,
) -> None:
    """Write findings as a SARIF log: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html.

    Files are named as seen from the working directory: run the command at the root of the repository for a code host to
    find them. `command` is what found them, without `tidegate`, and `directory` what was checked.
    """
    used = sorted({finding.kind for finding in findings})
    rules = [
        {
            "id": name,
            "shortDescription": {"text": kinds[name].meaning},
            "help": {"text": kinds[name].remedy},
            "defaultConfiguration": {"level": kinds[name].severity},
        }
        for name in used
    ]
    driver = {"name": f"tidegate {command}", "version": __version__, **_information(), "rules": rules}
    results = [_result(finding, kinds[finding.kind].severity, directory) for finding in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    write_file(file, json.dumps(document, indent=2, ensure_ascii=False) + "\n", "--sarif")


def _result(finding: CheckFinding | ModelFinding, severity: Severity, directory: Path) -> dict[str, Any]:
    text = finding.message + (f" ({finding.hint})" if finding.hint else "")
    # A code host shows nothing without a line.
    region = {"startLine": max(finding.line, 1)}
    if column := getattr(finding, "column", 0):
        region["startColumn"] = column
    return {
        "ruleId": finding.kind,
        "level": severity,
        "message": {"text": text},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(directory / finding.file)},
                    "region": region,
                }
            }
        ],
    }


def _information() -> dict[str, str]:
    """Return where the kinds of findings are described: the address of the project where its package has one, else
    docs/findings.md beside the sources. The format requires an absolute address, so there may be none."""
    urls = [text.partition(", ")[2] for text in metadata("tidegate").get_all("Project-URL") or ()]
    page = Path(__file__).parents[3] / "docs" / "findings.md"
    if urls:
        return {"informationUri": urls[0]}
    return {"informationUri": page.as_uri()} if page.is_file() else {}


def _uri(file: Path) -> str:
    here = Path.cwd()
    full = Path(os.path.realpath(here / file))
    if full.is_relative_to(here):
        relative = full.relative_to(here)
        return Path("/", relative).as_uri().removeprefix("file:///")
    return full.as_uri()
