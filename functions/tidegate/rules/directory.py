"""Reads a rules directory: every file, its shape, and what it refers to. All findings come in one run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

from tidegate.errors import Finding, printable
from tidegate.rules import no_effect
from tidegate.rules.arms import ExperimentRuns
from tidegate.rules.callers import check_callers
from tidegate.rules.contract import Caller
from tidegate.rules.fleet import read_fleet
from tidegate.rules.images import ImageFile, other_image
from tidegate.rules.language import NAME, LayerSpec, ObjectiveFile, RuleSpec
from tidegate.rules.layout import IMAGES, OBJECTIVES, RulesLayout, read_layout
from tidegate.rules.program import Layer, ObjectiveProgram, Program, Rule, World
from tidegate.rules.semantics import ObjectiveCheck
from tidegate.rules.shape import Report, check_shape
from tidegate.rules.shape_words import shown
from tidegate.rules.source import UNREAD, Location, Source, read_source
from tidegate.rules.spare_conditions import Note

LONGEST_ID = 128

_Notes = list[tuple[str, Finding]]
"""Settings without effect, each with its objective (empty: of none)."""

_Shared = list[tuple[str, Location, Note]]
"""The experiments that say `shared: true`, and where."""


def read_directory(path: str | PathLike[str]) -> tuple[Program, list[Finding]]:
    """The rules of a directory in normal form, and every finding; the program is whole only where there is none."""
    root = Path(path)
    findings: list[Finding] = []
    if not root.is_dir():
        hint = "name the directory that holds fleet.yaml and objectives/"
        return Program(World({}, {}, {}, {}, False), ()), [Finding(str(path), 0, "", "not a directory", hint)]
    layout = read_layout(root)
    findings += layout.findings
    notes: _Notes = []
    runs = ExperimentRuns()
    shared: _Shared = []
    world = _world(layout, findings, notes)
    objectives: list[ObjectiveProgram] = []
    seen: dict[str, str] = {}
    unreadable: set[str] = set()
    files = layout.of(OBJECTIVES)
    if not files:
        findings.append(Finding(OBJECTIVES, 0, "", "no objective is declared", "write objectives/<objective>.yaml"))
    for file in files:
        source = _read(root, file, findings)
        objective = _objective(source, world, findings, runs, notes, shared)
        if objective is None:
            unreadable.add(file.stem)
            continue
        if objective.name in seen:
            line, column = source.place(("objective",))
            hint = f"it is declared in {seen[objective.name]}: keep one"
            findings.append(Finding(source.file, line, "", f"duplicate objective {objective.name!r}", hint, column))
        seen.setdefault(objective.name, source.file)
        objectives.append(objective)
    for experiment, place, note in shared:
        if runs.is_run_once(experiment):
            note(place, f"no other rule runs experiment {experiment!r}", "delete `shared`, or correct the id")
    callers = _callers(layout, seen.keys() | unreadable, world, findings, notes)
    return Program(world, tuple(objectives), callers, tuple(notes)), sorted(set(findings))


def places(path: str | PathLike[str]) -> Callable[[str, Location], tuple[str, int]]:
    """Where the entries of a directory's `fleet` and `layers` files stand.

    Returns:
        A function from the stem of a file and a path of keys to the file's name and the line. A file is read when it is
        first asked for.
    """
    layout = read_layout(Path(path))

    @cache
    def source(stem: str) -> Source:
        file = layout.named(stem)
        return Source(f"{stem}.yaml") if file is None else read_source(file, file.name)

    return lambda stem, at: (source(stem).file, source(stem).line(at))


def _read(root: Path, file: Path, findings: list[Finding]) -> Source:
    source = read_source(file, printable(file.relative_to(root).as_posix()))
    findings.extend(source.findings())
    return source


def _reporter(source: Source, findings: list[Finding], rules: Mapping[int, str] | None = None) -> Report:
    def add(at: Location, message: str, hint: str) -> None:
        rule = ""
        if rules and len(at) > 1 and at[0] == "rules" and isinstance(at[1], int):
            rule = rules.get(at[1], "")
        line, column = source.place(at)
        findings.append(Finding(source.file, line, rule, message, hint, column))

    return Report(source, add)


def _noter(source: Source, notes: _Notes, objective: str = "", rules: Mapping[int, str] | None = None) -> Note:
    """Takes settings of a file that have no effect."""
    found: list[Finding] = []
    report = _reporter(source, found, rules)

    def add(at: Location, message: str, hint: str) -> None:
        report(at, message, hint)
        notes.append((objective, found.pop()))

    return add


def _world(layout: RulesLayout, findings: list[Finding], notes: _Notes) -> World:
    layers = _layers(layout, findings, notes)
    file = layout.named("fleet")
    if file is None:
        hint = (
            "write it: shards, models and where they are placed, aliases; `tidegate init` writes a whole first project"
        )
        findings.append(Finding("fleet.yaml", 0, "", "the file is missing", hint))
        world = World({}, {}, {}, layers, known=False)
        _images(layout, world, _reporter(Source("fleet.yaml"), findings), findings, notes)
        return world
    source = _read(layout.root, file, findings)
    report = _reporter(source, findings)
    world = read_fleet(source, report, layers, _noter(source, notes))
    _images(layout, world, report, findings, notes)
    return world


def _images(layout: RulesLayout, world: World, report: Report, findings: list[Finding], notes: _Notes) -> None:
    """Check every manifest, and that each shard's is of the image that it runs; `report` takes mistakes of the fleet."""
    names: dict[str, str | None] = {}
    named = {manifest for _, manifest in world.images.values()}
    for file in layout.of(IMAGES):
        source = _read(layout.root, file, findings)
        own = _reporter(source, findings)
        spec = check_shape(ImageFile, source.data, own) if source.data is not None else None
        path = f"{IMAGES}/{file.name}"
        names[path] = None if spec is None else spec.image
        if world.known and path not in named:
            _noter(source, notes)((), "no shard names this manifest", "name it in the image of a shard, or delete it")
    for shard, (image, manifest) in world.images.items():
        at: Location = ("shards", shard, "image")
        if manifest is None:
            continue
        if manifest not in names:
            report((*at, "manifest"), f"there is no {manifest}", "write it, or correct the name")
        elif (other := names[manifest]) is not None and other != image:
            report((*at, "name"), *other_image(shard, image, manifest, other))


def _layers(layout: RulesLayout, findings: list[Finding], notes: _Notes) -> dict[str, Layer]:
    file = layout.named("layers")
    if file is None:
        return {}
    source = _read(layout.root, file, findings)
    report = _reporter(source, findings)
    if not isinstance(source.data, dict):
        if source.data is not None:
            report(
                (),
                f"the file is {shown(source.data)}",
                "write a mapping of layers by name: {home: {key: member_id, …}}",
            )
        return {}
    layers: dict[str, Layer] = {}
    owner: dict[str, str] = {}
    for name, data in source.data.items():
        spec = check_shape(LayerSpec, data, report, (name,)) if data is not None and data is not UNREAD else None
        if data is None:
            report((name,), f"layer {name!r} has no value", "give it a key and experiments")
        if re.fullmatch(NAME[1:-1], str(name)) is None:
            hint = "write letters, digits, '.', '_' and '-', a letter or digit first"
            report((name,), f"{shown(name)} is not a name for a layer", hint)
        if spec is None:
            continue
        key = (spec.key,) if isinstance(spec.key, str) else tuple(spec.key)
        experiments = {str(each): _pairs(ranges) for each, ranges in spec.experiments.items()}
        layer = Layer(key, _pairs(spec.holdout or []), experiments)
        _check_ranges(str(name), layer, source.data[name], report)
        no_effect.of_layer(str(name), key, _noter(source, notes))
        for experiment in experiments:
            if experiment in owner:
                hint = f"it is in layer {owner[experiment]!r}: an experiment belongs to one layer"
                report((name, "experiments", experiment), f"experiment {experiment!r} is in two layers", hint)
            owner.setdefault(experiment, str(name))
        layers[str(name)] = layer
    return layers


def _callers(
    layout: RulesLayout, objectives: Set[str], world: World, findings: list[Finding], notes: _Notes
) -> Mapping[str, Caller] | None:
    file = layout.named("callers")
    if file is None:
        return None
    source = _read(layout.root, file, findings)
    if source.data is None:
        return None
    return check_callers(source.data, objectives, world, _reporter(source, findings), _noter(source, notes))


def _pairs(ranges: list[Any]) -> tuple[tuple[int, int], ...]:
    pairs = ranges if ranges and isinstance(ranges[0], list) else [ranges] if ranges else []
    return tuple(sorted((first, last) for first, last in pairs))


def _check_ranges(name: str, layer: Layer, data: Any, report: Report) -> None:
    experiments = data.get("experiments") if isinstance(data, dict) else None
    written = {str(key): key for key in experiments} if isinstance(experiments, dict) else {}
    owned: list[tuple[str, Location, tuple[int, int]]] = [("the holdout", ("holdout",), pair) for pair in layer.holdout]
    owned += [
        (f"experiment {experiment!r}", ("experiments", written.get(experiment, experiment)), pair)
        for experiment, pairs in layer.experiments.items()
        for pair in pairs
    ]
    owned.sort(key=lambda each: each[2])
    reach: tuple[str, int] | None = None
    for who, place, (first, last) in owned:
        at: Location = (name, *place)
        if first > last:
            report(at, f"the bucket range [{first}, {last}] of {who} is inverted", "write the smaller bucket first")
            continue
        if reach is not None and first <= reach[1]:
            shared = f"[{first}, {min(last, reach[1])}]"
            hint = "move one: experiments of a layer exclude each other and the holdout"
            report(at, f"{who} and {reach[0]} of layer {name!r} both own the buckets {shared}", hint)
        if reach is None or last > reach[1]:
            reach = (who, last)


def _rule_name(entry: Any, index: int) -> str:
    """What findings call a rule: its id where it has one that can be read, else its position."""
    name = entry.get("id") if isinstance(entry, dict) else None
    return str(name) if isinstance(name, str | int) and len(str(name)) <= LONGEST_ID else f"#{index + 1}"


def _objective(
    source: Source, world: World, findings: list[Finding], runs: ExperimentRuns, notes: _Notes, shared: _Shared
) -> ObjectiveProgram | None:
    data = source.data
    if data is None:
        return None
    rules = data.get("rules") if isinstance(data, dict) else None
    entries: list[Any] = rules if isinstance(rules, list) else []
    ids = {index: _rule_name(entry, index) for index, entry in enumerate(entries)}
    report = _reporter(source, findings, ids)
    sound: list[tuple[int, int, RuleSpec]] = []
    for index, entry in enumerate(entries):
        at: Location = ("rules", index)
        if entry is None:
            report(at, f"{report.name(at)} has no value", "write the rule, or delete the item")
        if entry is None or entry is UNREAD:
            continue
        spec = check_shape(RuleSpec, entry, report, at, {"id": f"rule-{index + 1}"})
        if spec is not None:
            sound.append((index, source.line(at), spec))
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
    check = ObjectiveCheck(source.file, file, declared, world, report, runs)
    program = check.program(sound)
    if not (report.count or source.problems):
        rules_at: list[tuple[Location, RuleSpec, Rule]] = [
            (("rules", index), rule, made) for (index, _, rule), made in zip(sound, program.rules, strict=True)
        ]
        note = _noter(source, notes, file.objective, ids)
        shared += [
            (str(rule.experiment.id), (*at, "experiment", "shared"), note)
            for at, rule, _ in rules_at
            if rule.experiment is not None and rule.experiment.shared
        ]
        no_effect.of_objective(file, check.attributes, rules_at, world.aliases, note)
    return program
