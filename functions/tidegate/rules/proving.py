"""Proves a rules directory: compiles it, analyses it, and runs its cases. What goes live passes through here.

`main` is for a child process, so that a running one does not stall its own requests: see
`tidegate.control.rules_child`.
"""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from tidegate.errors import Finding
from tidegate.rules.analysis.kinds import CheckFinding, author_error
from tidegate.rules.analysis.report import analyse
from tidegate.rules.cases.reading import Case, read_cases
from tidegate.rules.cases.runner import CaseResult, coverage, run_cases
from tidegate.rules.compiler import emit
from tidegate.rules.directory import places, read_directory
from tidegate.rules.engine import Engine, load_bundle
from tidegate.rules.placement import FleetDemand
from tidegate.rules.program import Program


@dataclass(frozen=True, slots=True)
class CaseTally:
    """What came of the cases.

    Attributes:
        passed: how many passed.
        failures: every case that failed, and every error of the case files.
        uncovered: objective and id of the rules that no passing case decides.
    """

    passed: int = 0
    failures: tuple[Finding, ...] = ()
    uncovered: tuple[tuple[str, str], ...] = ()

    def summary(self) -> str:
        """All of it in a line."""
        text = "1 case passes" if self.passed == 1 else f"{self.passed} cases pass"
        if self.failures:
            text += f", {len(self.failures)} fail"
        if not self.uncovered:
            return f"{text}; every rule has a case"
        without = "1 rule has" if len(self.uncovered) == 1 else f"{len(self.uncovered)} rules have"
        return f"{text}; {without} no case"


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found out about a rules directory.

    Attributes:
        bundle: the compiled rules; empty where they do not compile.
        revision: of the bundle; empty where there is none.
        demand: what the rules say about placing.
        findings: of the compiler, or of the analysis of what compiles: errors and warnings, by file and line.
        cases: what came of the cases; none where the rules do not compile.
        summary: what compiled and is proved, in a line; empty where there are errors.
    """

    bundle: bytes
    revision: str
    demand: FleetDemand
    findings: tuple[CheckFinding, ...]
    cases: CaseTally
    summary: str

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that keep the rules from going live, without those of the cases."""
        return tuple(_located(finding) for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that do not."""
        return tuple(_located(finding) for finding in self.findings if finding.severity != "error")

    @property
    def holds(self) -> bool:
        """Whether the rules may go live."""
        return not (self.errors or self.cases.failures)


def prove(directory: str | PathLike[str], *, at: float, only_compile: bool = False) -> Proof:
    """Compile the rules of a directory, analyse them, and run their cases.

    Args:
        directory: the rules directory.
        at: the time it is proved for, in Unix seconds: what ends before is over, and cases that say no time run at it.
        only_compile: leave out the analysis and the cases.
    """
    program, author = read_directory(directory)
    if author:
        return Proof(b"", "", program.world.demand, tuple(map(author_error, author)), CaseTally(), "")
    bundle = emit(program)
    engine = load_bundle(bundle)
    if only_compile:
        return Proof(bundle, engine.revision, program.world.demand, (), CaseTally(), "the rules compile")
    analysis = analyse(program, engine, at=at, places=places(directory))
    summary = "" if analysis.errors else _proved(program)
    tally = _test(directory, program, engine, at)
    return Proof(bundle, engine.revision, program.world.demand, analysis.findings, tally, summary)


def _proved(program: Program) -> str:
    objectives, rules = len(program.objectives), sum(len(objective.rules) for objective in program.objectives)
    counted = f"{objectives} objective{'s' * (objectives != 1)}, {rules} rule{'s' * (rules != 1)}"
    return f"{counted}: every rule can be reached, every context is served"


def _test(directory: str | PathLike[str], program: Program, engine: Engine, at: float) -> CaseTally:
    cases, findings = read_cases(directory, set(engine.objectives))
    sound = [case for case in cases if case.objective in engine.objectives]
    results = list(run_cases(engine, program, sound, at))
    return CaseTally(
        sum(result.passed for result in results),
        tuple(sorted({*findings, *_failures(results)})),
        tuple((each.objective, rule) for each in coverage(program, results) for rule in each.uncovered),
    )


def _failures(results: Sequence[CaseResult]) -> Iterator[Finding]:
    for result in results:
        for mismatch in result.mismatches:
            message = f"{_title(result.case)} fails: {mismatch.key}: expected {_text(mismatch.expected)}"
            hint = mismatch.hint or "correct the rules or the case; `tidegate rules test` explains the decision"
            yield Finding(result.case.file, result.case.line, "", f"{message}, got {_text(mismatch.actual)}", hint)


def _title(case: Case) -> str:
    return f"case {case.name!r} of objective {case.objective!r}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _located(finding: CheckFinding) -> Finding:
    objective = f"objective {finding.objective!r}: " if finding.objective and not finding.rule else ""
    return Finding(finding.file, finding.line, finding.rule, objective + finding.message, finding.hint, finding.column)


def main() -> None:
    """Prove the directory of the first argument at the time of the second one, or only compile it where the third is
    `compile`; the proof goes to standard output, pickled."""
    proof = prove(sys.argv[1], at=float(sys.argv[2]), only_compile=sys.argv[3] == "compile")
    sys.stdout.buffer.write(pickle.dumps(proof))
