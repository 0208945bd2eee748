"""Warnings that a person has accepted, with a reason, in `accepted.yaml` beside the models."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StrictStr

from tidegate.rules.language import Model
from tidegate.rules.shape import Report, check_shape, did_you_mean
from tidegate.rules.source import Location, read_source
from tidegate.triton.checks.findings import ModelFinding
from tidegate.triton.checks.folder import Repository
from tidegate.triton.checks.kinds import KINDS

FILE = "accepted.yaml"


class Acceptance(Model):
    """A kind of warning about one model that is meant to stay."""

    model: StrictStr = Field(description="The model that has the warning.")
    kind: StrictStr = Field(description="The warning's kind, as `tidegate models check` prints it in brackets.")
    reason: Annotated[StrictStr, Field(min_length=1)] = Field(description="Why it may stay, for the next reader.")
    until: date | None = Field(None, description="The last day that it counts, such as 2027-01-31; unset: no end.")


class AcceptedFile(Model):
    """`accepted.yaml`."""

    accepted: Annotated[list[Any], Field(min_length=1)] = Field(description="Each an Acceptance.")


@dataclass(frozen=True, slots=True)
class Judged:
    """The findings that count, and those that were accepted, each with the reason."""

    findings: tuple[ModelFinding, ...]
    accepted: tuple[tuple[ModelFinding, str], ...] = ()

    @property
    def errors(self) -> tuple[ModelFinding, ...]:
        """The errors among the findings."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def judge(
    directory: Path,
    findings: Sequence[ModelFinding],
    models: Collection[str],
    kinds: Collection[str],
    today: date | None = None,
) -> Judged:
    """Take out what `accepted.yaml` accepts. Errors cannot be accepted.

    Args:
        directory: the model repository.
        findings: what was found.
        models: the models that were looked at. An acceptance for one of them that matches nothing is a finding, as is
            one for a model that is not in the directory.
        kinds: the kinds of findings that were looked for.
        today: the day that acceptances must not have ended before; None is today, UTC.
    """
    today = datetime.now(UTC).date() if today is None else today
    path = directory / FILE
    if not path.exists() and not path.is_symlink():
        return Judged(tuple(findings))
    entries, problems = _read(path)
    accepted: dict[ModelFinding, str] = {}
    there = Repository(directory).names()
    lines: dict[tuple[str, str], int] = {}
    for line, entry in entries:
        problem = _unusable(entry, line, today) or _needless(entry, line, there, lines)
        if problem is not None:
            problems.append(problem)
            continue
        lines[entry.model, entry.kind] = line
        matched = [each for each in findings if (each.model, each.kind) == (entry.model, entry.kind)]
        accepted.update(dict.fromkeys(matched, entry.reason))
        if not matched and entry.model in models and entry.kind in kinds:
            message = f"model {entry.model!r} has no warning[{entry.kind}] to accept"
            problems.append(ModelFinding(FILE, line, "accepted-unused", message, "remove the entry", entry.model))
    left = [finding for finding in findings if finding not in accepted]
    return Judged(tuple(sorted([*left, *problems])), tuple(sorted(accepted.items())))


def _read(path: Path) -> tuple[list[tuple[int, Acceptance]], list[ModelFinding]]:
    source = read_source(path, FILE)
    problems = [ModelFinding(FILE, each.line, "accepted-file", each.message, each.hint) for each in source.problems]
    if source.data is None:
        return [], problems

    def add(at: Location, message: str, hint: str) -> None:
        problems.append(ModelFinding(FILE, source.line(at), "accepted-file", message, hint))

    report = Report(source, add)
    file = check_shape(AcceptedFile, source.data, report)
    entries = []
    for number, each in enumerate(() if file is None else file.accepted):
        at, before = ("accepted", number), report.count
        entry = check_shape(Acceptance, each, report, at)
        if entry is not None and report.count == before:
            entries.append((source.line(at), entry))
    return entries, problems


def _unusable(entry: Acceptance, line: int, today: date) -> ModelFinding | None:
    """Why an acceptance cannot count."""
    if entry.kind not in KINDS:
        hint = did_you_mean(entry.kind, set(KINDS), "kind")
        return ModelFinding(FILE, line, "accepted-file", f"unknown kind {entry.kind!r}", hint, entry.model)
    if KINDS[entry.kind].severity == "error":
        message = f"{entry.kind} is an error, and only warnings can be accepted"
        return ModelFinding(FILE, line, "accepted-file", message, "correct the model", entry.model)
    if entry.until is not None and entry.until < today:
        message = f"the acceptance of {entry.kind} for {entry.model!r} ended on {entry.until.isoformat()}"
        return ModelFinding(
            FILE, line, "accepted-unused", message, "correct the model, or set a later until", entry.model
        )
    return None


def _needless(
    entry: Acceptance, line: int, models: Collection[str], lines: Mapping[tuple[str, str], int]
) -> ModelFinding | None:
    """Why an acceptance has no effect: its model is not there, or an entry at one of `lines` accepts the same."""
    if entry.model not in models:
        message, hint = f"there is no model {entry.model!r}", "remove the entry, or correct the name"
    elif (entry.model, entry.kind) in lines:
        message = f"{entry.kind} of {entry.model!r} is accepted on line {lines[entry.model, entry.kind]} already"
        hint = "keep one entry"
    else:
        return None
    return ModelFinding(FILE, line, "accepted-unused", message, hint, entry.model)
