"""Findings in SARIF 2.1.0, which editors and code hosts show at their lines.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import metadata
from pathlib import Path
from typing import Any, Protocol

import click

from tidegate import __version__

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

PAGES = {"rules check": "checking.md", "models check": "model-repository.md"}
"""The page of the documentation that describes each command's findings."""

SARIF = click.option(
    "--sarif", "sarif_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the findings as SARIF."
)


class Kind(Protocol):
    """A kind of finding."""

    @property
    def severity(self) -> str:
        """`error` or `warning`."""

    @property
    def meaning(self) -> str:
        """What it means, in one sentence."""

    @property
    def remedy(self) -> str:
        """What to do about it."""


class LocatedFinding(Protocol):
    """A finding at a line of a file."""

    @property
    def file(self) -> str:
        """Relative to the directory that was checked."""

    @property
    def line(self) -> int:
        """From 1; 0: the file as a whole."""

    @property
    def kind(self) -> str:
        """The name of its kind."""

    @property
    def message(self) -> str:
        """What is wrong."""

    @property
    def hint(self) -> str:
        """What would be right; may be empty."""


def write_sarif(
    file: Path, command: str, kinds: Mapping[str, Kind], findings: Sequence[LocatedFinding], directory: Path
) -> None:
    """Write findings as a SARIF log.

    Args:
        file: where to.
        command: the command that found them, without `tidegate`.
        kinds: all kinds by name.
        findings: the findings.
        directory: what was checked. Files are named as seen from where the command runs, so run it at the root of the
            repository for a code host to find them.

    Raises:
        click.BadParameter: the file cannot be written.
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
    driver = {"name": f"tidegate {command}", "version": __version__, **_information(command), "rules": rules}
    results = [_result(finding, kinds[finding.kind].severity, directory) for finding in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    try:
        file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"{file} cannot be written: {error.strerror}", param_hint="--sarif") from error


def _result(finding: LocatedFinding, severity: str, directory: Path) -> dict[str, Any]:
    text = finding.message + (f" ({finding.hint})" if finding.hint else "")
    return {
        "ruleId": finding.kind,
        "level": severity,
        "message": {"text": text},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(directory / finding.file)},
                    "region": _region(finding),
                }
            }
        ],
    }


def _region(finding: LocatedFinding) -> dict[str, int]:
    # A code host shows nothing without a line.
    region = {"startLine": max(finding.line, 1)}
    column = getattr(finding, "column", 0)
    return region | ({"startColumn": column} if column else {})


def _information(command: str) -> dict[str, str]:
    """Where the kinds of findings are described: the project's address where its package has one, else the page of the
    documentation beside the sources. The format wants an absolute address, so there may be none."""
    urls = [text.partition(", ")[2] for text in metadata("tidegate").get_all("Project-URL") or ()]
    page = Path(__file__).parents[3] / "docs" / PAGES[command]
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
