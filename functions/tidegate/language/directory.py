"""Reads a rules directory: every file, its shape, and its references. All findings come in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

from tidegate.errors import Finding, printable
from tidegate.language import no_effect
from tidegate.language.callers import check_callers
from tidegate.language.documents import ObjectiveFile, RuleSpec
from tidegate.language.experiment_runs import ExperimentRuns
from tidegate.language.fleet import check_fleet, check_images
from tidegate.language.layers import check_layers
from tidegate.language.layout import IMAGES, OBJECTIVES, RulesLayout, read_layout
from tidegate.language.program import NO_FLEET, ObjectiveProgram, Program, World
from tidegate.language.semantics import ObjectiveCheck
from tidegate.language.shape import Note, Report, check_shape
from tidegate.language.source import UNREAD, Location, Source, read_source
from tidegate.rules.bundle.rule import Rule
from tidegate.rules.contract import Traffic

LONGEST_ID = 128


def read_directory(path: str | PathLike[str]) -> tuple[Program, list[Finding]]:
    """Read the rules of a directory in normal form, with every finding; the program is complete only without findings."""
    root = Path(path)
    if not root.is_dir():
        hint = "name the directory that holds fleet.yaml and objectives/"
        return Program(World(NO_FLEET, {}, known=False), ()), [Finding(str(path), 0, "", "not a directory", hint)]
    reading = _Reading(read_layout(root))
    return reading.program(), sorted(set(reading.findings))


def places(path: str | PathLike[str]) -> Callable[[str, Location], tuple[str, int]]:
    """Return a function from `fleet` or `layers` and a path of keys to the file's name and the line; it reads a file on first
    use."""
    layout = read_layout(Path(path))

    @cache
    def source(stem: str) -> Source:
        file = layout.named(stem)
        return Source(f"{stem}.yaml") if file is None else read_source(file, file.name)

    return lambda stem, at: (source(stem).file, source(stem).line(at))


class _Reading:
    """One run through the files of a directory; `findings` are the mistakes so far."""

    def __init__(self, layout: RulesLayout) -> None:
        self._layout = layout
        self.findings = list(layout.findings)
        self._no_effect: list[tuple[str, Finding]] = []
        self._runs = ExperimentRuns()
        # The experiments that say `shared: true`, each with its place, which can only be judged at the end.
        self._shared: list[tuple[str, Location, Note]] = []
        # The faults of each objective, which only synthetic callers get.
        self._faults: list[tuple[str, Location, Note]] = []

    def program(self) -> Program:
        world = self._world()
        objectives: list[ObjectiveProgram] = []
        seen: dict[str, str] = {}
        unreadable: set[str] = set()
        files = self._layout.of(OBJECTIVES)
        if not files:
            hint = "write objectives/<objective>.yaml"
            self.findings.append(Finding(OBJECTIVES, 0, "", "no objective is declared", hint))
        for file in files:
            declaring = self._read(file)
            objective = self._objective(declaring, world)
            if objective is None:
                unreadable.add(file.stem)
                continue
            if objective.name in seen:
                hint = f"it is declared in {seen[objective.name]}: keep one"
                self._reporter(declaring)(("objective",), f"duplicate objective {objective.name!r}", hint)
            seen.setdefault(objective.name, declaring.file)
            objectives.append(objective)
        for experiment, place, note in self._shared:
            if self._runs.is_run_once(experiment):
                note(place, f"no other rule runs experiment {experiment!r}", "delete `shared`, or correct the id")
        callers = None
        source = self._named("callers")
        if source is not None and source.data is not None:
            known = seen.keys() | unreadable
            callers = check_callers(source.data, known, world, self._reporter(source), self._noter(source))
        testers = [each for each in (callers or {}).values() if Traffic.SYNTHETIC in (each.traffic, *each.marks)]
        for name, place, note in self._faults:
            if not any(each.may_use(name) for each in testers):
                hint = (
                    "give a caller of this objective `traffic: synthetic`, or the mark, in callers.yaml, or delete it"
                )
                note(place, "no caller sends synthetic requests for this objective, so none gets the fault", hint)
        return Program(world, tuple(objectives), callers, tuple(self._no_effect))

    def _read(self, file: Path) -> Source:
        source = read_source(file, printable(file.relative_to(self._layout.root).as_posix()))
        self.findings.extend(source.findings())
        return source

    def _named(self, stem: str) -> Source | None:
        file = self._layout.named(stem)
        return None if file is None else self._read(file)

    def _reporter(self, source: Source, rules: Mapping[int, str] | None = None) -> Report:
        """Return the receiver of a file's mistakes; `rules` are the names of its rules by their position."""
        return Report(source, lambda at, *words: self.findings.append(_finding(source, rules, at, *words)))

    def _noter(self, source: Source, objective: str = "", rules: Mapping[int, str] | None = None) -> Note:
        """Return the receiver of a file's settings without an effect."""
        return lambda at, *words: self._no_effect.append((objective, _finding(source, rules, at, *words)))

    def _world(self) -> World:
        source = self._named("layers")
        layers = {} if source is None else check_layers(source.data, self._reporter(source), self._noter(source))
        source = self._named("fleet")
        if source is None:
            hint = "write it: shards, models and where they are placed, aliases; `tidegate init` writes a whole first project"
            self.findings.append(Finding("fleet.yaml", 0, "", "the file is missing", hint))
            report = self._reporter(Source("fleet.yaml"))
            world = World(NO_FLEET, layers, known=False)
        else:
            report = self._reporter(source)
            world = check_fleet(source, layers, report, self._noter(source))
        manifests = [self._read(each) for each in self._layout.of(IMAGES)]
        check_images(world, [(each, self._reporter(each), self._noter(each)) for each in manifests], report)
        return world

    def _objective(self, source: Source, world: World) -> ObjectiveProgram | None:
        data = source.data
        if data is None:
            return None
        rules = data.get("rules") if isinstance(data, dict) else None
        entries: list[Any] = rules if isinstance(rules, list) else []
        ids = {index: _rule_name(entry, index) for index, entry in enumerate(entries)}
        report = self._reporter(source, ids)
        sound = list(_sound_rules(entries, source, report))
        head: Any = data
        stand_ins = {"objective": Path(source.file).stem, "rules": [{"id": "checked", "serve": "above"}]}
        if isinstance(data, dict) and entries:
            # The rules have been checked one by one: a stand-in keeps the head's own check from failing with them.
            head = {**data, "rules": stand_ins["rules"]}
        file = check_shape(ObjectiveFile, head, report, (), stand_ins)
        if file is None:
            return None
        context = data.get("context")
        declared = frozenset(map(str, context)) if isinstance(context, dict) else frozenset()
        check = ObjectiveCheck(source.file, file, declared, world, report, self._runs)
        program = check.program(sound)
        if not (report.count or source.problems):
            rules_at: list[tuple[Location, RuleSpec, Rule]] = [
                (("rules", index), rule, made) for (index, _, rule), made in zip(sound, program.rules, strict=True)
            ]
            note = self._noter(source, file.objective, ids)
            self._shared += [
                (str(rule.experiment.id), (*at, "experiment", "shared"), note)
                for at, rule, _ in rules_at
                if rule.experiment is not None and rule.experiment.shared
            ]
            self._faults += [
                (file.objective, (*at, "fault"), note) for at, rule, _ in rules_at if rule.fault is not None
            ]
            no_effect.of_objective(file, check.attributes, rules_at, world.fleet.aliases, note)
        return program


def _finding(source: Source, rules: Mapping[int, str] | None, at: Location, message: str, hint: str) -> Finding:
    rule = ""
    if rules and len(at) > 1 and at[0] == "rules" and isinstance(at[1], int):
        rule = rules.get(at[1], "")
    line, column = source.place(at)
    return Finding(source.file, line, rule, message, hint, column)


def _rule_name(entry: Any, index: int) -> str:
    """Return the name of a rule in findings: its id if that can be read, else its position."""
    name = entry.get("id") if isinstance(entry, dict) else None
    return str(name) if isinstance(name, str | int) and len(str(name)) <= LONGEST_ID else f"#{index + 1}"


def _sound_rules(entries: list[Any], source: Source, report: Report) -> Iterator[tuple[int, int, RuleSpec]]:
    """Yield the rules with a valid shape, each with its position and its line."""
    for index, entry in enumerate(entries):
        at: Location = ("rules", index)
        if entry is None:
            report(at, f"{report.name(at)} has no value", "write the rule, or delete the item")
        if entry is None or entry is UNREAD:
            continue
        spec = check_shape(RuleSpec, entry, report, at, {"id": f"rule-{index + 1}"})
        if spec is not None:
            yield index, source.line(at), spec
