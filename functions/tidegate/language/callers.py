"""Checks callers.yaml against the objectives and the fleet."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from tidegate.language.documents import EVERYTHING, CallersFile, CallerSpec
from tidegate.language.program import World
from tidegate.language.semantics import checked_limit, target_problem
from tidegate.language.shape import Note, Report, check_shape
from tidegate.language.source import Location, items_at
from tidegate.language.spare_conditions import repeated
from tidegate.language.words import did_you_mean
from tidegate.rules.contract import NO_LIMIT, Caller, Limit, Priority, Traffic


def check_callers(
    data: Any, objectives: Set[str], world: World, report: Report, note: Note
) -> Mapping[str, Caller] | None:
    """Return the callers by name; None if the file has no callers. `objectives` are the names that grants may hold."""
    keys = CallerSpec.model_fields.keys()
    entries = data.values() if isinstance(data, dict) and "callers" not in data else ()
    if any(isinstance(entry, dict) and not keys.isdisjoint(entry) for entry in entries):
        first = next(iter(data))
        hint = f"indent them below one key: callers: {{{first}: {{…}}}}"
        report((first,), f"{str(first)!r} is not under the key 'callers'", hint)
        return None
    file = check_shape(CallersFile, data, report)
    if file is None:
        return None
    for name, spec in file.callers.items():
        for index, target in enumerate(spec.overrides if isinstance(spec.overrides, list) else ()):
            model, _, version = target.partition("/")
            if version and model in spec.overrides:
                hint = f"delete it, or {model!r}"
                note(("callers", name, "overrides", index), f"{model!r} covers all its versions, {target!r} too", hint)
    return {name: _caller(name, spec, objectives, world, report) for name, spec in file.callers.items()}


def _caller(name: str, spec: CallerSpec, objectives: Set[str], world: World, report: Report) -> Caller:
    at: Location = ("callers", name)
    granted = _grants(spec.objectives, (*at, "objectives"), report)
    for place, objective in granted:
        if objective != EVERYTHING and objective not in objectives:
            hint = did_you_mean(objective, set(objectives), "objective")
            report(place, f"unknown objective {objective!r}", hint)
    pins = _grants(spec.overrides, (*at, "overrides"), report)
    for place, target in pins:
        if "@" in target:
            model = world.fleet.aliases.get(target)
            hint = f"write {model!r}, which it points to now" if model else "write model or model/version"
            report(place, f"{target!r} is an alias, and a caller pins a model", hint)
        elif target != EVERYTHING and (problem := target_problem(target, world)):
            report(place, *problem)
    return Caller(
        name,
        _normal(granted),
        _normal(pins),
        checked_limit(spec, at, report),
        Traffic(spec.traffic),
        _limits(spec, objectives, (*at, "limits"), report) or None,
        Priority(spec.priority),
        tuple(sorted({Traffic(mark) for mark in spec.marks})),
        spec.bundle,
    )


def _limits(spec: CallerSpec, objectives: Set[str], at: Location, report: Report) -> Mapping[str, Limit]:
    granted = {spec.objectives} if isinstance(spec.objectives, str) else set(spec.objectives)
    usable = objectives if EVERYTHING in granted else granted & objectives
    for name in spec.limits:
        if name not in usable:
            hint = did_you_mean(name, usable, "objective")
            report(
                (*at, name), f"a limit for {name!r}, which the caller may not use", f"grant it in `objectives`; {hint}"
            )
    checked = {name: checked_limit(limit, (*at, name), report) for name, limit in sorted(spec.limits.items())}
    return {name: limit for name, limit in checked.items() if limit != NO_LIMIT}


def _grants(value: str | list[str], at: Location, report: Report) -> list[tuple[Location, str]]:
    """Return the names of a grant, each with its place."""
    grants = items_at(value, at)
    names = [name for _, name in grants]
    for index in repeated(names):
        report(grants[index][0], f"{names[index]!r} is granted twice", "keep one")
    if EVERYTHING in names and len(set(names)) > 1:
        report(grants[names.index(EVERYTHING)][0], "'*' covers the others", "keep '*' alone, or delete it")
    return grants


def _normal(grants: list[tuple[Location, str]]) -> tuple[str, ...] | None:
    names = {name for _, name in grants}
    return None if EVERYTHING in names else tuple(sorted(names))
