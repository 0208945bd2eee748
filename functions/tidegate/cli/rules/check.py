"""`tidegate rules check`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from tidegate.cli.columns import say
from tidegate.cli.rules.options import AS_JSON, AT, DIRECTORY, print_json
from tidegate.cli.sarif import SARIF, write_sarif
from tidegate.rules import Engine, load_bundle
from tidegate.rules.analysis import DEFAULT_BUDGET, KINDS, Analysis, CheckFinding, analyse, author_error
from tidegate.rules.compiler import emit
from tidegate.rules.directory import places, read_directory
from tidegate.rules.times import utc_text


@click.command()
@click.argument("directory", type=DIRECTORY)
@AT
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    default=DEFAULT_BUDGET,
    show_default=True,
    help="How many steps the analysis may take; what is undecided then is reported as an error.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 on warnings too.")
@SARIF
@AS_JSON
def check(directory: Path, at: float | None, budget: int, strict: bool, sarif_file: Path | None, as_json: bool) -> None:
    """Check the rules: an author's errors, rules that no request can reach, contexts that no rule serves, what is unused.

    Every finding has its file, line and kind (docs/checking.md). Exit code 1: there is an error, or with --strict a
    warning.
    """
    moment = time.time() if at is None else at
    program, errors = read_directory(directory)
    engine: Engine | None = None
    analysis = Analysis(tuple(map(author_error, errors)), {}, moment, 0)
    if not errors:
        engine = load_bundle(emit(program))
        analysis = analyse(program, engine, at=moment, places=places(directory), budget=budget)
    failed = bool(analysis.findings if strict else analysis.errors)
    if sarif_file is not None:
        write_sarif(sarif_file, "rules check", KINDS, analysis.findings, directory)
    if as_json:
        print_json(_as_dict(analysis, engine, ok=not failed))
    else:
        _show(analysis, engine)
    if failed:
        raise click.exceptions.Exit(1)


def _show(analysis: Analysis, engine: Engine | None) -> None:
    for finding in analysis.findings:
        say(str(finding))
    counts = _counts(analysis.findings)
    if engine is None:
        say(f"{counts}; nothing else is checked until the rules compile")
        return
    served = sum(coverage.served is True for coverage in analysis.coverage.values())
    say(f"{served} of {len(analysis.coverage)} objectives proved to serve every context")
    say(f"{counts}, revision {engine.rules[:12]}")


def _counts(findings: Sequence[CheckFinding]) -> str:
    errors = sum(finding.severity == "error" for finding in findings)
    return f"{_noun(errors, 'error')}, {_noun(len(findings) - errors, 'warning')}"


def _noun(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _as_dict(analysis: Analysis, engine: Engine | None, *, ok: bool) -> dict[str, Any]:
    return {
        "ok": ok,
        "revision": None if engine is None else engine.rules,
        "at": utc_text(analysis.at),
        "steps": analysis.steps,
        "findings": [finding.as_dict() for finding in analysis.findings],
        "objectives": [
            {
                "objective": name,
                "every_context_served": coverage.served,
                "unserved": None
                if coverage.example is None
                else {"context": coverage.example.context, "at": utc_text(coverage.example.at)},
            }
            for name, coverage in sorted(analysis.coverage.items())
        ],
    }
