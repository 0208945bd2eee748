"""The results of `tidegate rules test`: on the terminal, as JSON and as JUnit XML.

Explanations have a line for every rule, so only those of the first failures are made, one at a time, as they are written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click

from tidegate.cli.columns import say
from tidegate.cli.rules.compiled import findings_json
from tidegate.cli.rules.explanation import explanation_lines
from tidegate.cli.rules.options import print_json
from tidegate.errors import Finding, RulesError, printable
from tidegate.rules import Engine
from tidegate.rules.cases.runner import CaseResult, Coverage, Mismatch
from tidegate.rules.program import Program

SHOWN_UNCOVERED = 20
MOST_EXPLAINED = 20
"""So many failures are explained; who has more failures than that reads the first few."""

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class CaseReport:
    """Writes the results of cases.

    `covered` is empty where not all cases ran. `lacking` says which coverage was required and is not there, each with the
    names of what has no case.
    """

    def __init__(
        self,
        engine: Engine,
        program: Program,
        results: Sequence[CaseResult],
        findings: Sequence[Finding],
        covered: Sequence[Coverage],
        lacking: Mapping[str, Sequence[str]],
    ) -> None:
        self._engine, self._layers = engine, program.world.layers
        self._results, self._findings, self._covered, self._lacking = results, findings, covered, lacking
        failures = [number for number, result in enumerate(results) if not result.passed]
        self._failures = len(failures)
        self._explained = frozenset(failures[:MOST_EXPLAINED])

    def show(self) -> None:
        """Print the report."""
        for number, result in enumerate(self._results):
            if not result.passed:
                say(f"{_place(result)}: FAILED")
                for line in self._failure_lines(number, result):
                    say(f"  {line}")
            for note in result.notes:
                say(f"{_place(result)}: note: {printable(note)}")
        for each in self._covered:
            _show_coverage(each)
        say(
            f"{len(self._results)} cases: {len(self._results) - self._failures} passed, {self._failures} failed"
            + (f", of which the first {MOST_EXPLAINED} are explained" if self._failures > MOST_EXPLAINED else "")
        )
        if self._findings:
            say(str(RulesError(list(self._findings))), err=True)
        for message in self._lacking:
            say(f"error: {message}", err=True)

    def print_json(self, *, ok: bool) -> None:
        """Print the report as one JSON object."""
        print_json(
            {
                "ok": ok,
                "findings": findings_json(self._findings),
                "lacking": list(self._lacking),
                "cases": [self._case(number, result) for number, result in enumerate(self._results)],
                "unexplained": self._failures - len(self._explained),
                "coverage": [_coverage_dict(each) for each in self._covered],
            }
        )

    def write_junit(self, file: Path) -> None:
        """Write the report as JUnit XML: a suite per case file, its mistakes as errors, and one of the coverage that lacks."""
        root = ElementTree.Element("testsuites", name="tidegate rules test")
        files = dict.fromkeys([*(each.case.file for each in self._results), *(each.file for each in self._findings)])
        suites = {name: ElementTree.SubElement(root, "testsuite", name=_xml(name)) for name in files}
        for number, result in enumerate(self._results):
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
                failure.text = _xml("\n".join(self._failure_lines(number, result)))
            if result.notes:
                ElementTree.SubElement(element, "system-out").text = _xml("\n".join(result.notes))
        for finding in self._findings:
            name = f"{finding.file}:{finding.line}"
            element = ElementTree.SubElement(
                suites[finding.file], "testcase", name=_xml(name), classname="file", time="0"
            )
            ElementTree.SubElement(element, "error", type="mistake", message=_xml(str(finding)))
        if self._lacking:
            suites["coverage"] = ElementTree.SubElement(root, "testsuite", name="coverage")
        for message, names in self._lacking.items():
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
            message = f"{file} cannot be written: {error.strerror}"
            raise click.BadParameter(message, param_hint="--junit") from error

    def _failure_lines(self, number: int, result: CaseResult) -> Iterator[str]:
        yield from map(_words, result.mismatches)
        explanation = result.explained(self._engine) if number in self._explained else None
        if explanation is not None:
            yield from (f"  {line}" for line in explanation_lines(explanation, self._layers))

    def _case(self, number: int, result: CaseResult) -> dict[str, Any]:
        explanation = result.explained(self._engine) if number in self._explained else None
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
        for name in names[:SHOWN_UNCOVERED]:
            say(f"  no case: {name}")
        if len(names) > SHOWN_UNCOVERED:
            say(f"  … and {len(names) - SHOWN_UNCOVERED} more; --json has all")


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
    return printable(f"{mismatch.key}: expected {_text(mismatch.expected)}, got {_text(mismatch.actual)}{hint}")


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _xml(text: str) -> str:
    """The text without the characters that XML 1.0 cannot hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
