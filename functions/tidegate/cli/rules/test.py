"""`tidegate rules test`: the results of cases on the terminal, as JSON and as JUnit XML.

Explanations have a line for every rule, so only those of the first failures are made, one at a time, as they are written.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click

from tidegate.analysis.cases.reading import read_cases
from tidegate.analysis.cases.runner import CaseResult, Coverage, Mismatch, coverage, run_cases
from tidegate.cli import progress
from tidegate.cli.columns import first, say
from tidegate.cli.findings import findings_json
from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.cli.options import DIRECTORY, FILE, at_option, not_written
from tidegate.cli.rules.decisions import explanation_lines
from tidegate.cli.rules.named import named_rules
from tidegate.cli.stacks import STACK
from tidegate.errors import Finding, RulesError, printable
from tidegate.language.program import Program
from tidegate.rules import Engine, Explanation

SHOWN_UNCOVERED = 20
MOST_EXPLAINED = 20
"""Failures beyond these are not explained."""

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@click.command()
@click.argument("rules")
@click.option(
    "--cases",
    "cases_of",
    type=DIRECTORY,
    help="Rules directory whose cases are run, if RULES is not a directory itself.",
)
@click.option(
    "--filter",
    "wanted",
    metavar="TEXT",
    help="Run only cases whose objective, file or name contains TEXT, ignoring case.",
)
@at_option("The time of cases without `at`, ISO 8601 (UTC if it has no offset). Default: now.")
@click.option("--require-coverage", is_flag=True, help="Fail if a rule has no case.")
@click.option("--require-cells", is_flag=True, help="Fail if a cell of an experiment has no case.")
@click.option("--junit", type=FILE, help="Write the results as JUnit XML.")
@STACK
@AS_JSON
def test(
    rules: str,
    cases_of: Path | None,
    wanted: str | None,
    at: float | None,
    require_coverage: bool,
    require_cells: bool,
    junit: Path | None,
    stack: str | None,
    as_json: bool,
) -> None:
    """Run the cases of RULES/cases against RULES, and list the rules and cells that have no case.

    RULES is a rules directory or, with --cases, a compiled bundle, either in a git revision (HEAD~1:routing_rules), or
    `live:`, what is live. Exit code 1: a case fails, a file has errors, or required coverage is missing. 2: wrong usage, or no
    case matches --filter.
    """
    if wanted is not None and (require_coverage or require_cells):
        raise click.UsageError("--filter leaves cases out, so coverage cannot be required: drop one of them")
    named = named_rules(rules, stack, as_json=as_json, as_written=True)
    program, engine = named.program, named.engine
    if cases_of is None and not named.has_files:
        raise click.UsageError(
            f"{rules} has no cases of its own: name the rules directory whose cases to run with --cases"
        )
    cases, findings = read_cases(cases_of or rules, set(engine.objectives))
    text = (wanted or "").casefold()
    chosen = [case for case in cases if any(text in each.casefold() for each in (case.objective, case.file, case.name))]
    if wanted is not None and not chosen:
        message = f"none of {len(cases)} cases has {wanted!r} in its objective, file or name"
        raise click.BadParameter(message, param_hint="--filter")
    sound = [case for case in chosen if case.objective in engine.objectives]
    now = time.time() if at is None else at
    progress.note(f"running {len(sound):,} cases")
    results = list(run_cases(engine, program, sound, now, is_now_fixed=at is not None))
    covered = coverage(program, results) if wanted is None else ()
    uncovered = [f"{each.objective}: {rule}" for each in covered for rule in each.uncovered]
    cells = [f"{each.objective}: cell {cell} of {rule}" for each in covered for rule, cell in each.uncovered_cells]
    lacking = {}
    if require_coverage and uncovered:
        lacking["a rule has no case, and --require-coverage is given"] = uncovered
    if require_cells and cells:
        lacking["a cell has no case, and --require-cells is given"] = cells
    report = CaseReport(engine, program, results, findings, covered, lacking)
    if junit is not None:
        report.write_junit(junit)
    if as_json:
        print_json(report.as_dict())
    else:
        report.show()
    if not report.passed:
        raise click.exceptions.Exit(1)


@dataclasses.dataclass(frozen=True)
class CaseReport:
    """Writes the results of cases.

    `covered` is empty if not all cases ran. `lacking` has the coverage that was required and is missing, each with the names
    of what has no case.
    """

    engine: Engine
    program: Program
    results: Sequence[CaseResult]
    findings: Sequence[Finding]
    covered: Sequence[Coverage]
    lacking: Mapping[str, Sequence[str]]

    @cached_property
    def _failures(self) -> list[CaseResult]:
        return [result for result in self.results if not result.passed]

    def show(self) -> None:
        for result in self.results:
            if not result.passed:
                say(f"{_place(result)}: FAILED")
                for line in self._failure_lines(result):
                    say(f"  {line}")
            for note in result.notes:
                say(f"{_place(result)}: note: {printable(note)}")
        for each in self.covered:
            _show_coverage(each)
        failed = len(self._failures)
        explained = f", of which the first {MOST_EXPLAINED} are explained" if failed > MOST_EXPLAINED else ""
        say(f"{len(self.results)} cases: {len(self.results) - failed} passed, {failed} failed{explained}")
        if self.findings:
            say(str(RulesError(list(self.findings))), err=True)
        for message in self.lacking:
            say(f"error: {message}", err=True)

    @property
    def passed(self) -> bool:
        return not (self.findings or self.lacking or self._failures)

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": self.passed,
            "findings": findings_json(self.findings),
            "lacking": list(self.lacking),
            "cases": [self._case(result) for result in self.results],
            "unexplained": max(0, len(self._failures) - MOST_EXPLAINED),
            "coverage": [_coverage_dict(each) for each in self.covered],
        }

    def write_junit(self, file: Path) -> None:
        """Write the report as JUnit XML: a suite for each case file, its mistakes as errors, and one for missing coverage."""
        root = ElementTree.Element("testsuites", name="tidegate rules test")
        files = dict.fromkeys([*(each.case.file for each in self.results), *(each.file for each in self.findings)])
        suites = {name: ElementTree.SubElement(root, "testsuite", name=_xml(name)) for name in files}
        for result in self.results:
            case = result.case
            element = ElementTree.SubElement(
                suites[case.file],
                "testcase",
                name=_xml(case.name),
                classname=_xml(case.objective),
                file=_xml(case.file),
                line=str(case.line),
                time="0",
            )
            if not result.passed:
                message = "; ".join(map(_words, result.mismatches))
                failure = ElementTree.SubElement(element, "failure", type="mismatch", message=_xml(message))
                failure.text = _xml("\n".join(self._failure_lines(result)))
            if result.notes:
                ElementTree.SubElement(element, "system-out").text = _xml("\n".join(result.notes))
        for finding in self.findings:
            name = f"{finding.file}:{finding.line}"
            element = ElementTree.SubElement(
                suites[finding.file], "testcase", name=_xml(name), classname="file", time="0"
            )
            ElementTree.SubElement(element, "error", type="mistake", message=_xml(str(finding)))
        if self.lacking:
            suites["coverage"] = ElementTree.SubElement(root, "testsuite", name="coverage")
        for message, names in self.lacking.items():
            element = ElementTree.SubElement(
                suites["coverage"], "testcase", name=message, classname="coverage", time="0"
            )
            failure = ElementTree.SubElement(element, "failure", type="coverage", message=message)
            failure.text = _xml("\n".join(f"no case: {name}" for name in names))
        for element in (root, *suites.values()):
            element.set("tests", str(len(list(element.iter("testcase")))))
            element.set("failures", str(len(list(element.iter("failure")))))
            element.set("errors", str(len(list(element.iter("error")))))
        try:
            ElementTree.ElementTree(root).write(file, encoding="utf-8", xml_declaration=True)
        except OSError as error:
            raise not_written(file, error, "--junit") from error

    def _explanation(self, result: CaseResult) -> Explanation | None:
        is_explained = any(result is each for each in self._failures[:MOST_EXPLAINED])
        return result.explained(self.engine) if is_explained else None

    def _failure_lines(self, result: CaseResult) -> Iterator[str]:
        yield from map(_words, result.mismatches)
        explanation = self._explanation(result)
        if explanation is not None:
            yield from (f"  {line}" for line in explanation_lines(explanation, self.program.world.layers))

    def _case(self, result: CaseResult) -> dict[str, Any]:
        explanation = self._explanation(result)
        return {
            "objective": result.case.objective,
            "name": result.case.name,
            "file": result.case.file,
            "line": result.case.line,
            "passed": result.passed,
            "mismatches": [dataclasses.asdict(each) for each in result.mismatches],
            "notes": list(result.notes),
            "explanation": None if explanation is None else explanation.as_dict(with_key=True),
        }


def _show_coverage(each: Coverage) -> None:
    parts = (
        ("rules", [each.covered, each.uncovered], list(each.uncovered)),
        (
            "cells",
            [each.covered_cells, each.uncovered_cells],
            [f"cell {cell} of {rule}" for rule, cell in each.uncovered_cells],
        ),
    )
    for noun, (covered, uncovered), names in parts:
        total = len(covered) + len(uncovered)
        if noun == "rules" or total:
            say(f"{each.objective}: {len(covered)} of {total} {noun} have a case")
        for line in first([f"no case: {name}" for name in names], SHOWN_UNCOVERED):
            say(f"  {line}")


def _coverage_dict(each: Coverage) -> dict[str, Any]:
    return {
        "objective": each.objective,
        "rules": len(each.covered) + len(each.uncovered),
        "covered": list(each.covered),
        "uncovered": list(each.uncovered),
        "covered_cells": [{"rule": rule, "cell": cell} for rule, cell in each.covered_cells],
        "uncovered_cells": [{"rule": rule, "cell": cell} for rule, cell in each.uncovered_cells],
    }


def _place(result: CaseResult) -> str:
    case = result.case
    return printable(f"{case.file}:{case.line}: {case.objective}: {case.name}")


def _words(mismatch: Mismatch) -> str:
    hint = f"  ({mismatch.hint})" if mismatch.hint else ""
    expected, actual = (json.dumps(each, ensure_ascii=False) for each in (mismatch.expected, mismatch.actual))
    return printable(f"{mismatch.key}: expected {expected}, got {actual}{hint}")


def _xml(text: str) -> str:
    # XML 1.0 does not have every character.
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
