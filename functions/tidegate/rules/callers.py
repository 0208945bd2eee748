"""Checks callers.yaml against the objectives and the fleet."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from tidegate.rules import no_effect
from tidegate.rules.contract import Caller
from tidegate.rules.language import EVERYTHING, CallersFile, CallerSpec
from tidegate.rules.program import World
from tidegate.rules.semantics import target_problem
from tidegate.rules.shape import Report, check_shape, did_you_mean
from tidegate.rules.source import Location
from tidegate.rules.spare_conditions import Note
from tidegate.rules.when import normal_number


def check_callers(
    data: Any, objectives: Set[str], world: World, report: Report, note: Note
) -> Mapping[str, Caller] | None:
    """The callers by name; None where the file has no callers. `objectives` are the names that grants may hold."""
    if isinstance(data, dict) and "callers" not in data and any(map(_is_caller, data.values())):
        first = next(iter(data))
        hint = f"indent them below one key: callers: {{{first}: {{…}}}}"
        report((first,), f"{str(first)!r} is not under the key 'callers'", hint)
        return None
    file = check_shape(CallersFile, data, report)
    if file is None:
        return None
    for name, spec in file.callers.items():
        no_effect.of_caller(name, spec, note)
    return {name: _caller(name, spec, objectives, world, report) for name, spec in file.callers.items()}


def _is_caller(value: Any) -> bool:
    return isinstance(value, dict) and not CallerSpec.model_fields.keys().isdisjoint(value)


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
            model = world.aliases.get(target)
            hint = f"write {model!r}, which it points to now" if model else "write model or model/version"
            report(place, f"{target!r} is an alias, and a caller pins a model", hint)
        elif target != EVERYTHING and (problem := target_problem(target, world)):
            report(place, *problem)
    return Caller(
        name,
        _normal(granted),
        _normal(pins),
        None if spec.rate_per_s is None else normal_number(spec.rate_per_s),
        spec.concurrency,
        spec.traffic,
    )


def _grants(value: str | list[str], at: Location, report: Report) -> list[tuple[Location, str]]:
    """What a grant lists, each with its place."""
    if isinstance(value, str):
        return [(at, value)]
    for index, item in enumerate(value):
        if item in value[:index]:
            report((*at, index), f"{item!r} is granted twice", "keep one")
    if EVERYTHING in value and len(set(value)) > 1:
        report((*at, value.index(EVERYTHING)), "'*' covers the others", "keep '*' alone, or delete it")
    return [((*at, index), item) for index, item in enumerate(value)]


def _normal(grants: list[tuple[Location, str]]) -> tuple[str, ...] | None:
    names = {name for _, name in grants}
    return None if EVERYTHING in names else tuple(sorted(names))
