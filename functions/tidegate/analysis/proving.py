"""Proves a rules directory: compiles it, analyses it, and runs its cases. What goes live passes through here.

`main` is for a child process, so that a running one does not stall its own requests: see
`tidegate.bootstrap.rules_sources`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from os import PathLike

from tidegate.analysis.cases.reading import Case, read_cases
from tidegate.analysis.cases.runner import Mismatch, coverage, run_cases
from tidegate.analysis.proof_outcome import CaseTally, ProofOutcome, Task, encode_outcome
from tidegate.analysis.reach.findings import CheckFinding, author_error
from tidegate.analysis.reach.report import analyse
from tidegate.errors import Finding
from tidegate.finding_kinds import Severity
from tidegate.language.compiler import emit
from tidegate.language.directory import places, read_directory
from tidegate.language.program import Program
from tidegate.placement import FleetDemand
from tidegate.rules.bundle import revision_of
from tidegate.rules.engine import Engine, load_bundle


@dataclass(frozen=True, slots=True)
class Proof:
    """Result of proving a rules directory.

    `bundle` and `revision` are None if the rules do not compile, `summary` if there are errors. `findings` are those of the
    compiler, or else of the analysis, by file and line.
    """

    bundle: bytes | None
    revision: str | None
    demand: FleetDemand
    findings: tuple[CheckFinding, ...]
    cases: CaseTally
    summary: str | None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that keep the rules from going live, without those of the cases."""
        return tuple(_located(finding) for finding in self.findings if finding.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(_located(finding) for finding in self.findings if finding.severity is not Severity.ERROR)

    @property
    def holds(self) -> bool:
        return not (self.errors or self.cases.failures)


def prove(directory: str | PathLike[str], *, at: float) -> Proof:
    """Compile the rules of a directory, analyse them, and run their cases.

    `at`, in Unix seconds, is the time they are proved for: what ends before is over, and cases that have no time run at it.
    """
    program, author = read_directory(directory)
    if author:
        return _uncompiled(program, author)
    bundle = emit(program)
    engine = load_bundle(bundle)
    analysis = analyse(program, engine, at=at, places=places(directory))
    objectives, rules = len(program.objectives), sum(len(objective.rules) for objective in program.objectives)
    counted = f"{objectives} objective{'s' * (objectives != 1)}, {rules} rule{'s' * (rules != 1)}"
    summary = None if analysis.errors else f"{counted}: every rule can be reached, every context is served"
    tally = _test(directory, program, engine, at)
    return Proof(bundle, engine.revision, program.world.demand, analysis.findings, tally, summary)


def compile_only(directory: str | PathLike[str]) -> Proof:
    """Compile the rules of a directory, without an analysis and without their cases."""
    program, author = read_directory(directory)
    if author:
        return _uncompiled(program, author)
    bundle = emit(program)
    return Proof(bundle, revision_of(bundle), program.world.demand, (), CaseTally(), "the rules compile")


def _uncompiled(program: Program, author: Iterable[Finding]) -> Proof:
    return Proof(None, None, program.world.demand, tuple(map(author_error, author)), CaseTally(), None)


def _test(directory: str | PathLike[str], program: Program, engine: Engine, at: float) -> CaseTally:
    cases, findings = read_cases(directory, set(engine.objectives))
    sound = [case for case in cases if case.objective in engine.objectives]
    results = list(run_cases(engine, program, sound, at))
    return CaseTally(
        sum(result.passed for result in results),
        tuple(sorted({*findings, *(_failure(result.case, each) for result in results for each in result.mismatches)})),
        tuple((each.objective, rule) for each in coverage(program, results) for rule in each.uncovered),
    )


def _failure(case: Case, mismatch: Mismatch) -> Finding:
    expected, actual = (json.dumps(each, ensure_ascii=False) for each in (mismatch.expected, mismatch.actual))
    message = f"case {case.name!r} of objective {case.objective!r} fails: {mismatch.key}: expected {expected}"
    hint = mismatch.hint or "correct the rules or the case; `tidegate rules test` explains the decision"
    return Finding(case.file, case.line, "", f"{message}, got {actual}", hint)


def _located(finding: CheckFinding) -> Finding:
    objective = f"objective {finding.objective!r}: " if finding.objective and not finding.rule else ""
    return Finding(finding.file, finding.line, finding.rule, objective + finding.message, finding.hint, finding.column)


def main() -> None:
    """Do the `Task` of the first argument with the directory of the second one, at the time of the third one (Unix seconds).
    Write the outcome to standard output, as JSON."""
    task, directory, at = sys.argv[1:]
    proof = prove(directory, at=float(at)) if Task(task) is Task.PROVE else compile_only(directory)
    sys.stdout.write(
        encode_outcome(
            ProofOutcome(proof.bundle, proof.demand, proof.summary, proof.errors, proof.warnings, proof.cases)
        )
    )
