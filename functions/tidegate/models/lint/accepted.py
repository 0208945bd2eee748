"""Accepted warnings: `accepted.yaml` beside the models."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.finding_kinds import Severity
from tidegate.language.words import did_you_mean
from tidegate.models.lint.findings import ModelFinding
from tidegate.models.lint.folder import Repository
from tidegate.models.lint.kinds import KINDS

if TYPE_CHECKING:
    from tidegate.models.lint.accepted_file import Acceptance

FILE = "accepted.yaml"


@dataclass(frozen=True, slots=True)
class Judged:
    """The findings that count, and the accepted ones with their reasons."""

    findings: tuple[ModelFinding, ...]
    accepted: tuple[tuple[ModelFinding, str], ...] = ()

    @property
    def errors(self) -> tuple[ModelFinding, ...]:
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)


def judge(
    directory: Path,
    findings: Sequence[ModelFinding],
    models: Collection[str],
    kinds: Collection[str],
    today: date | None = None,
) -> Judged:
    """Separate the findings that `accepted.yaml` accepts, and report acceptances without effect. Errors cannot be accepted.

    Args:
        directory: the model repository.
        models: the models that were checked: an acceptance for one of them that matches nothing is a finding.
        kinds: the kinds of findings that were checked.
        today: decides which acceptances have ended; None is today, UTC.
    """
    today = datetime.now(UTC).date() if today is None else today
    path = directory / FILE
    if not path.exists() and not path.is_symlink():
        return Judged(tuple(findings))
    # It needs pydantic, whose import takes 0.1 s.
    from tidegate.models.lint.accepted_file import read_accepted

    entries, problems = read_accepted(path)
    accepted: dict[ModelFinding, str] = {}
    there = Repository(directory).names()
    lines: dict[tuple[str, str], int] = {}
    for line, entry in entries:
        problem = _problem(entry, there, lines, today)
        if problem is not None:
            problems.append(ModelFinding(FILE, line, *problem, entry.model))
            continue
        lines[entry.model, entry.kind] = line
        matched = [each for each in findings if (each.model, each.kind) == (entry.model, entry.kind)]
        accepted.update(dict.fromkeys(matched, entry.reason))
        if not matched and entry.model in models and entry.kind in kinds:
            message = f"model {entry.model!r} has no warning[{entry.kind}] to accept"
            problems.append(ModelFinding(FILE, line, "accepted-unused", message, "remove the entry", entry.model))
    left = [finding for finding in findings if finding not in accepted]
    return Judged(tuple(sorted([*left, *problems])), tuple(sorted(accepted.items())))


def _problem(
    entry: Acceptance, models: Collection[str], lines: Mapping[tuple[str, str], int], today: date
) -> tuple[str, str, str] | None:
    """Return kind, message and hint of a finding about an acceptance without effect; `lines` has the entries before it."""
    kind, model = entry.kind, entry.model
    if kind not in KINDS:
        return "accepted-file", f"unknown kind {kind!r}", did_you_mean(kind, set(KINDS), "kind")
    if KINDS[kind].severity is Severity.ERROR:
        return "accepted-file", f"{kind} is an error, and only warnings can be accepted", "correct the model"
    if entry.until is not None and entry.until < today:
        message = f"the acceptance of {kind} for {model!r} ended on {entry.until.isoformat()}"
        return "accepted-unused", message, "correct the model, or set a later until"
    if model not in models:
        return "accepted-unused", f"there is no model {model!r}", "remove the entry, or correct the name"
    if (model, kind) in lines:
        message = f"{kind} of {model!r} is accepted on line {lines[model, kind]} already"
        return "accepted-unused", message, "keep one entry"
    return None
