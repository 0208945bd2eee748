"""The verdict on an archive of rules: whether they may go live, and every reason why not. It changes nothing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from tidegate.control.rules_archive import unpack_rules
from tidegate.errors import Finding, RulesError
from tidegate.rules.proving import CaseTally, Proof, prove

MOST_FINDINGS = 200
"""Findings of a kind that a verdict lists; it says how many there are."""

MOST_TEXT = 500


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out about an archive of rules.

    Attributes:
        sha256: of the archive.
        revision: of the bundle that the rules compile to, before versions are resolved; empty where they do not compile.
        summary: what was proved, or how much is wrong, in a line.
        errors: what keeps the rules from going live, of the archive, the rules and their analysis.
        failures: cases that fail, and errors of the case files.
        warnings: what does not keep them from going live.
        passed: how many cases passed.
        uncovered: how many rules no passing case decides.
    """

    sha256: str
    revision: str = ""
    summary: str = ""
    errors: tuple[Finding, ...] = ()
    failures: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()
    passed: int = 0
    uncovered: int = 0

    @property
    def accepted(self) -> bool:
        """Whether the rules may be published."""
        return not (self.errors or self.failures)

    def as_dict(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        return {
            "status": "accepted" if self.accepted else "refused",
            "sha256": self.sha256,
            "revision": self.revision,
            "summary": self.summary,
            "errors": _listed(self.errors),
            "failed_cases": _listed(self.failures),
            "warnings": _listed(self.warnings),
            "counts": {
                "errors": len(self.errors),
                "failed_cases": len(self.failures),
                "warnings": len(self.warnings),
                "passed_cases": self.passed,
                "rules_without_case": self.uncovered,
            },
        }


@dataclass(frozen=True, slots=True)
class Judged:
    """What a stored verdict says of an archive: whether it was accepted, its digest, and the revision of its rules."""

    accepted: bool
    sha256: str
    revision: str
    summary: str


def read_verdict(document: bytes) -> Judged:
    """A verdict from its object.

    Raises:
        ValueError: it is not a verdict.
    """
    try:
        found = json.loads(document)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    names = ("status", "sha256", "revision", "summary")
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in names):
        raise ValueError(f"it lacks one of {', '.join(names)}")
    return Judged(found["status"] == "accepted", found["sha256"], found["revision"], found["summary"])


def validate_archive(archive: bytes, *, at: float) -> Verdict:
    """Unpack, compile, analyse and test rules.

    Args:
        archive: a ZIP archive of a rules directory.
        at: the time it is done for, in Unix seconds.
    """
    digest = sha256(archive).hexdigest()
    with tempfile.TemporaryDirectory(prefix="tidegate-rules-") as folder:
        try:
            unpack_rules(archive, Path(folder))
        except RulesError as error:
            return Verdict(digest, "", _refusal(error.findings, ()), error.findings)
        return _verdict(digest, prove(folder, at=at))


def _verdict(digest: str, proof: Proof) -> Verdict:
    cases: CaseTally = proof.cases
    summary = f"{proof.summary}; {cases.summary()}" if proof.holds else _refusal(proof.errors, cases.failures)
    return Verdict(
        digest,
        proof.revision,
        summary,
        proof.errors,
        cases.failures,
        proof.warnings,
        cases.passed,
        len(cases.uncovered),
    )


def _refusal(errors: tuple[Finding, ...], failures: tuple[Finding, ...]) -> str:
    return f"refused: {len(errors)} error{'s' * (len(errors) != 1)}, {len(failures)} failed case{'s' * (len(failures) != 1)}"


def _listed(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [
        {
            "file": finding.file,
            "line": finding.line,
            "rule": finding.rule,
            "message": finding.message[:MOST_TEXT],
            "hint": finding.hint[:MOST_TEXT],
        }
        for finding in tuple(findings)[:MOST_FINDINGS]
    ]
