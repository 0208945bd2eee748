"""Reads the case files of a rules directory. All findings come in one run, with file, line and case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from tidegate.errors import Finding, printable
from tidegate.language.case_documents import CaseFile, CaseSpec, ExpectSpec, with_nothing
from tidegate.language.layout import CASES, read_layout
from tidegate.language.shape import Report, check_shape
from tidegate.language.shape_words import shown
from tidegate.language.source import UNREAD, Location, Source, read_source
from tidegate.language.words import did_you_mean
from tidegate.rules.times import EXPECTED_TIME, parse_time

_TEXTUAL = frozenset({"variant", "experiment", "cell"})


@dataclass(frozen=True, slots=True)
class Case:
    """A context and its expected decision.

    `context` holds the caller's allocations too. `at` is Unix seconds, None where the case has no time. `expect` has the
    keys that the author gave; experiments, cells and variants are text. `file` and `line` are its place.
    """

    objective: str
    name: str
    file: str
    line: int
    context: Mapping[str, Any]
    at: float | None
    expect: Mapping[str, Any]


def read_cases(path: str | PathLike[str], objectives: set[str]) -> tuple[tuple[Case, ...], list[Finding]]:
    """Return the cases of a rules directory in the order of their files, and every finding.

    A directory without `cases/` has no cases. Files that nothing reads are for `read_directory` to report.
    """
    root = Path(path)
    findings: list[Finding] = []
    cases: list[Case] = []
    first_lines: dict[tuple[str, str], str] = {}
    for file in read_layout(root).of(CASES):
        source = read_source(file, printable(file.relative_to(root).as_posix()))
        findings.extend(source.findings())
        for case in _File(source, file.stem, objectives, findings).cases():
            key, place = (case.objective, case.name), f"{case.file}:{case.line}"
            first = first_lines.get(key)
            first_lines.setdefault(key, place)
            if first is not None:
                message = f"duplicate case {case.name!r} of objective {case.objective!r}"
                findings.append(Finding(case.file, case.line, "", message, f"the first is at {first}: rename one"))
            cases.append(case)
    return tuple(cases), sorted(set(findings))


class _File:
    """One case file: a mapping with `objective` and `cases`, or the list of cases alone."""

    def __init__(self, source: Source, stem: str, objectives: set[str], findings: list[Finding]) -> None:
        self._source, self._stem, self._objectives, self._findings = source, stem, objectives, findings

    def cases(self) -> list[Case]:
        data = self._source.data
        report = Report(self._source, self._adder(""))
        if data is None:
            return []
        entries: Any = data
        at: Location = ()
        objective = self._stem
        if isinstance(data, list):
            if not data:
                report((), "the file has no case", "write one, or delete the file")
        elif isinstance(data, dict):
            objective, entries, at = self._head(data, report), data.get("cases"), ("cases",)
        else:
            report((), f"the file is {shown(data)}", "write {objective: …, cases: […]}, or the list of cases alone")
            return []
        if objective not in self._objectives:
            place: Location = ("objective",) if isinstance(data, dict) and "objective" in data else ()
            hint = did_you_mean(objective, self._objectives, "objective")
            report(place, f"cases of the unknown objective {objective!r}", hint)
        found = [
            self._case(objective, entry, (*at, index))
            for index, entry in enumerate(entries if isinstance(entries, list) else [])
            if entry is not UNREAD
        ]
        return [case for case in found if case is not None]

    def _head(self, data: dict[Any, Any], report: Report) -> str:
        head = dict(data)
        if isinstance(data.get("cases"), list) and data["cases"]:
            # The cases are checked one by one: a stand-in keeps the head's own check from failing with them.
            head["cases"] = [{"name": "checked", "expect": {}}]
        file = check_shape(CaseFile, head, report, (), {"objective": self._stem})
        return file.objective or self._stem if file is not None else self._stem

    def _case(self, objective: str, entry: Any, at: Location) -> Case | None:
        name = entry.get("name") if isinstance(entry, dict) else None
        report = Report(self._source, self._adder(f"case {name!r}: " if isinstance(name, str) else ""))
        if entry is None:
            report(at, f"{report.name(at)} has no value", "write the case, or delete the item")
            return None
        if isinstance(entry, dict):
            entry = {
                key: with_nothing(value) if key in ("context", "expect") and value is not None else value
                for key, value in entry.items()
            }
        spec = check_shape(CaseSpec, entry, report, at)
        if spec is None:
            return None
        context = dict(spec.context)
        if spec.allocations:
            if "allocations" in context:
                report((*at, "allocations"), "the allocations are given twice", "leave them out of the context")
            context["allocations"] = {str(experiment): cell for experiment, cell in spec.allocations.items()}
        return Case(
            objective,
            spec.name,
            self._source.file,
            self._source.line(at),
            context,
            self._time(spec.at, (*at, "at"), report),
            self._expect(spec.expect, (*at, "expect"), report),
        )

    def _expect(self, spec: ExpectSpec, at: Location, report: Report) -> dict[str, Any]:
        expect = {name: getattr(spec, name) for name in ExpectSpec.model_fields if name in spec.model_fields_set}
        for name in _TEXTUAL & expect.keys():
            expect[name] = None if expect[name] is None else str(expect[name])
        if isinstance(expect.get("shadows"), list):
            expect["shadows"] = sorted(expect["shadows"])
        others = ", ".join(repr(name) for name in expect if name not in ("error", "rule"))
        if not expect and report.is_whole(at):
            report(at, "the case has no expectation", "give at least one key, such as rule or model")
        if "error" in expect and len(expect) > 1:
            report((*at, "error"), "a context that is refused has no decision", "keep 'error' alone")
        elif "rule" in expect and expect["rule"] is None and others:
            report((*at, "rule"), f"where no rule matches there is no {others}", "keep 'rule: null' alone")
        return expect

    def _time(self, text: str | None, at: Location, report: Report) -> float | None:
        if text is None:
            return None
        try:
            return parse_time(text)
        except ValueError:
            report(at, f"'at' is {shown(text)}, which is not a time", EXPECTED_TIME)
            return None

    def _adder(self, prefix: str) -> Any:
        def add(at: Location, message: str, hint: str) -> None:
            line, column = self._source.place(at)
            self._findings.append(Finding(self._source.file, line, "", prefix + message, hint, column))

        return add
