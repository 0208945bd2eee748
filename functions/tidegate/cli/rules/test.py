"""`tidegate rules test`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tidegate.cli.rules.compiled import compiled, findings_json
from tidegate.cli.rules.explanation import explanation_lines
from tidegate.cli.rules.options import AS_JSON, DIRECTORY, print_json
from tidegate.errors import Finding, RulesError
from tidegate.rules.cases.reading import read_cases
from tidegate.rules.cases.runner import CaseResult, Coverage, coverage, run_cases
from tidegate.rules.program import Layer, Program

SHOWN_UNCOVERED = 20


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--require-coverage", is_flag=True, help="Fail where a rule has no case.")
@AS_JSON
def test(directory: Path, require_coverage: bool, as_json: bool) -> None:
    """Run the cases of DIRECTORY/cases against the rules, and tell which rules have no case.

    A case without `at` runs at the present time. Exit code 1: a case fails, a file has errors, or with
    --require-coverage a rule has no case.
    """
    program, engine, _ = compiled(directory, as_json=as_json)
    cases, findings = read_cases(directory, set(engine.objectives))
    sound = [case for case in cases if case.objective in engine.objectives]
    results = list(run_cases(engine, program, sound, time.time()))
    covered = coverage(program, results)
    uncovered = require_coverage and any(each.uncovered for each in covered)
    failed = bool(findings) or uncovered or not all(result.passed for result in results)
    if as_json:
        print_json(_as_dict(findings, results, covered, ok=not failed))
    else:
        _show(program, results, covered)
        if findings:
            click.echo(str(RulesError(findings)), err=True)
        if uncovered:
            click.echo("error: a rule has no case, and --require-coverage is given", err=True)
    if failed:
        raise click.exceptions.Exit(1)


def _show(program: Program, results: Sequence[CaseResult], covered: Sequence[Coverage]) -> None:
    for result in results:
        if not result.passed:
            _show_failure(result, program.world.layers)
        for note in result.notes:
            click.echo(f"{_place(result)}: note: {note}")
    for each in covered:
        total = len(each.covered) + len(each.uncovered)
        click.echo(f"{each.objective}: {len(each.covered)} of {total} rules have a case")
        for rule in each.uncovered[:SHOWN_UNCOVERED]:
            click.echo(f"  no case: {rule}")
        if len(each.uncovered) > SHOWN_UNCOVERED:
            click.echo(f"  … and {len(each.uncovered) - SHOWN_UNCOVERED} more; --json has all")
    failures = sum(not result.passed for result in results)
    click.echo(f"{len(results)} cases: {len(results) - failures} passed, {failures} failed")


def _show_failure(result: CaseResult, layers: Mapping[str, Layer]) -> None:
    click.echo(f"{_place(result)}: FAILED")
    for mismatch in result.mismatches:
        hint = f"  ({mismatch.hint})" if mismatch.hint else ""
        click.echo(f"  {mismatch.key}: expected {_text(mismatch.expected)}, got {_text(mismatch.actual)}{hint}")
    if result.explanation is not None:
        for line in explanation_lines(result.explanation, layers):
            click.echo(f"    {line}")


def _place(result: CaseResult) -> str:
    case = result.case
    return f"{case.file}:{case.line}: {case.objective}: {case.name}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _as_dict(
    findings: Sequence[Finding], results: Sequence[CaseResult], covered: Sequence[Coverage], *, ok: bool
) -> dict[str, Any]:
    return {
        "ok": ok,
        "findings": findings_json(findings),
        "cases": [_case_dict(result) for result in results],
        "coverage": [
            {
                "objective": each.objective,
                "rules": len(each.covered) + len(each.uncovered),
                "covered": list(each.covered),
                "uncovered": list(each.uncovered),
            }
            for each in covered
        ],
    }


def _case_dict(result: CaseResult) -> dict[str, Any]:
    return {
        "objective": result.case.objective,
        "name": result.case.name,
        "file": result.case.file,
        "line": result.case.line,
        "passed": result.passed,
        "mismatches": [
            {"key": each.key, "expected": each.expected, "actual": each.actual, "hint": each.hint}
            for each in result.mismatches
        ],
        "notes": list(result.notes),
        "explanation": result.explanation.as_dict(with_key=True)
        if result.explanation is not None and not result.passed
        else None,
    }
