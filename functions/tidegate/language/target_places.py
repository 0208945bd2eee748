"""Where the files of a rules directory name targets: for findings about what a target resolves to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate.errors import printable
from tidegate.language.layout import SUFFIXES, read_layout
from tidegate.language.program import ObjectiveProgram
from tidegate.language.source import Location, Source, items_at, read_source


@dataclass(frozen=True, slots=True)
class TargetPlace:
    """A place that names a target. `line` and `column` count from 1; `rule` is empty outside of a rule."""

    file: str
    line: int
    column: int
    rule: str = ""


class TargetPlaces:
    """The places of targets in a rules directory without an author's error. A file is read on first use."""

    def __init__(self, directory: Path) -> None:
        self._files = {printable(name): path for name, path in read_layout(directory).read.items()}
        self._sources: dict[str, Source] = {}

    def of_objective(self, objective: ObjectiveProgram, target: str) -> Iterator[TargetPlace]:
        """Yield every place in the file of an objective that names the target as it is written."""
        source = self._source(objective.file)
        for at, name in _targets(source):
            if name == target:
                rule = objective.rules[at[1]].id if at[0] == "rules" and isinstance(at[1], int) else ""
                yield TargetPlace(source.file, *source.place(at), rule)

    def of_responses(self, objective: ObjectiveProgram) -> TargetPlace:
        """Return the place where an objective says what its responses are."""
        return self._place(objective.file, ("responses",))

    def of_alias(self, name: str) -> Iterator[TargetPlace]:
        for file in self._named("fleet"):
            yield self._place(file, ("aliases", name))

    def of_overrides(self, target: str) -> Iterator[TargetPlace]:
        """Yield every place that lets a caller pin the target."""
        for file in self._named("callers"):
            for name, spec in self._source(file).data["callers"].items():
                for at, pinned in items_at(spec.get("overrides"), ("callers", name, "overrides")):
                    if pinned == target:
                        yield self._place(file, at)

    def _named(self, stem: str) -> list[str]:
        return [name for suffix in SUFFIXES if (name := stem + suffix) in self._files]

    def _place(self, file: str, at: Location) -> TargetPlace:
        return TargetPlace(file, *self._source(file).place(at))

    def _source(self, file: str) -> Source:
        if file not in self._sources:
            self._sources[file] = read_source(self._files[file], file)
        return self._sources[file]


def _targets(source: Source) -> Iterator[tuple[Location, str]]:
    """Yield every target in the file of an objective, with its place. A key without a value yields None."""
    yield from items_at(source.data.get("fallback"), ("fallback",))
    yield from items_at(source.data.get("degraded"), ("degraded",))
    for index, rule in enumerate(source.data["rules"]):
        at: Location = ("rules", index)
        if "serve" in rule:
            yield (*at, "serve"), rule["serve"]
        for key in ("split", "shadow"):
            for name in rule.get(key) or ():
                yield (*at, key, name), name
        for cell, given in (rule.get("experiment") or {}).get("cells", {}).items():
            place = (*at, "experiment", "cells", cell)
            yield (place, given) if isinstance(given, str) else ((*place, "serve"), given["serve"])
        yield from items_at(rule.get("fallback"), (*at, "fallback"))
