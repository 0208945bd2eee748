"""The shape of `accepted.yaml`."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StrictStr

from tidegate.language.documents import Model
from tidegate.language.shape import Report, check_shape
from tidegate.language.source import Location, read_source
from tidegate.models.lint.findings import ModelFinding


class Acceptance(Model):
    model: StrictStr = Field(description="The model that has the warning.")
    kind: StrictStr = Field(description="The warning's kind, as `tidegate models check` prints it in brackets.")
    reason: Annotated[StrictStr, Field(min_length=1)] = Field(description="Why it may stay, for the next reader.")
    until: date | None = Field(None, description="The last day that it counts, such as 2027-01-31; unset: no end.")


class AcceptedFile(Model):
    accepted: Annotated[list[Any], Field(min_length=1)] = Field(description="Each an Acceptance.")


def read_accepted(path: Path) -> tuple[list[tuple[int, Acceptance]], list[ModelFinding]]:
    """Return its entries with their lines, and what is wrong with it."""
    source = read_source(path, path.name)
    problems = [
        ModelFinding(path.name, each.line, "accepted-file", each.message, each.hint) for each in source.problems
    ]
    if source.data is None:
        return [], problems

    def add(at: Location, message: str, hint: str) -> None:
        problems.append(ModelFinding(path.name, source.line(at), "accepted-file", message, hint))

    report = Report(source, add)
    file = check_shape(AcceptedFile, source.data, report)
    entries = []
    for number, each in enumerate(() if file is None else file.accepted):
        at, before = ("accepted", number), report.count
        entry = check_shape(Acceptance, each, report, at)
        if entry is not None and report.count == before:
            entries.append((source.line(at), entry))
    return entries, problems
