"""Checks an objective against what it refers to, and brings its rules into normal form."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from tidegate.rules.arms import ExperimentRuns
from tidegate.rules.conditions import row_count, to_json
from tidegate.rules.contract import Attribute
from tidegate.rules.language import ActiveWindow, AttributeSpec, ExperimentSpec, ObjectiveFile, RuleSpec
from tidegate.rules.program import ObjectiveProgram, Rule, World
from tidegate.rules.shape import Report, did_you_mean
from tidegate.rules.shape_words import quoted, shown, why
from tidegate.rules.source import Location
from tidegate.rules.times import EXPECTED_TIME, parse_time
from tidegate.rules.values import EXPECTED, accepts, domain_words, within
from tidegate.rules.when import normal_number, normal_when

MAX_ROWS_PER_RULE = 1024
RESERVED = {
    "allocations": "the caller's experiment allocations are always part of the context",
    "any_of": "it holds the alternatives of a condition",
}
KEY_TYPES = ("string", "integer", "version")


class ObjectiveCheck:
    """The checks of one objective file. `report` takes a location within the file."""

    def __init__(
        self,
        file: str,
        spec: ObjectiveFile,
        declared: Collection[str],
        world: World,
        report: Report,
        runs: ExperimentRuns,
    ) -> None:
        self._file, self._spec, self._world, self._report, self._runs = file, spec, world, report, runs
        self._declared = declared
        self.attributes: dict[str, Attribute] = {}

    def program(self, rules: list[tuple[int, int, RuleSpec]]) -> ObjectiveProgram:
        """The objective in normal form. `rules` are (position in the file, line, rule) of those with a sound shape."""
        spec = self._spec
        self.attributes = {
            name: attribute
            for name, declared in spec.context.items()
            if (attribute := self._attribute(name, declared)) is not None
        }
        sticky = self._key_attributes(spec.sticky_key, ("sticky_key",), "sticky_key") if spec.sticky_key else ()
        fallback = self._target_list(spec.fallback, ("fallback",))
        seen: dict[str, int] = {}
        made = []
        for position, line, rule in rules:
            at: Location = ("rules", position)
            if rule.id in seen:
                self._report(
                    (*at, "id"), f"duplicate rule id {rule.id!r}", f"the first is on line {seen[rule.id]}: rename one"
                )
            seen.setdefault(rule.id, line)
            made.append(self._rule(rule, line, at, fallback))
        return ObjectiveProgram(
            spec.objective,
            self._file,
            spec.summary,
            spec.owner,
            self.attributes,
            sticky,
            spec.timeout_ms,
            tuple(made),
            tuple(sorted({target for rule in made for target in body_targets(rule.body)})),
            spec.unknown_attributes,
        )

    def _attribute(self, name: str, spec: AttributeSpec) -> Attribute | None:
        at: Location = ("context", name)
        if name in RESERVED:
            self._report(at, f"the attribute name {name!r} is reserved: {RESERVED[name]}", "choose another name")
            return None
        header = spec.from_.removeprefix("header:").lower() if spec.from_ else None
        values = None
        if spec.values is not None:
            element = "string" if spec.type == "set" else spec.type
            for index, value in enumerate(spec.values):
                if not accepts(element, value):
                    self._report(
                        (*at, "values", index),
                        f"{shown(value)} cannot be a value of attribute {name!r} of type {spec.type}",
                        f"write {EXPECTED[element]}{why(value, EXPECTED[element])}",
                    )
            sound = {normal_number(value) for value in spec.values if accepts(element, value)}
            # Without a key, as `float` overflows for an integer beyond a double's range.
            values = tuple(sorted(sound))
        default: Any = spec.default
        attribute = Attribute(name, spec.type, spec.required, values or None, None, header)
        if default is not None:
            if spec.required:
                self._report((*at, "default"), f"attribute {name!r} is required and has a default", "keep one of them")
            if not accepts(spec.type, default):
                what = f"{shown(default)} cannot be the default of attribute {name!r} of type {spec.type}"
                hint = f"write {EXPECTED[spec.type]}{why(default, EXPECTED[spec.type])}"
                self._report((*at, "default"), what, hint)
            elif not within(attribute, default):
                what = f"{shown(default)} is the default of attribute {name!r} and not among its values"
                self._report((*at, "default"), what, f"use {domain_words(attribute)}, or add it to the values")
            else:
                default = tuple(default) if isinstance(default, list) else normal_number(default)
                attribute = Attribute(name, spec.type, spec.required, values or None, default, header)
        return attribute

    def _rule(self, rule: RuleSpec, line: int, at: Location, inherited: list[str]) -> Rule:
        body: dict[str, Any] = {"id": rule.id}
        when = normal_when(rule.when, self.attributes, self._declared, (*at, "when"), self._report)
        if row_count(when) > MAX_ROWS_PER_RULE:
            self._report(
                (*at, "when"),
                f"the alternatives multiply to {row_count(when)} combinations",
                f"at most {MAX_ROWS_PER_RULE} are allowed: split the rule, or use lists of values",
            )
            when = ()
        body["when"] = to_json(when)
        if rule.active is not None:
            body["active"] = self._active(rule.active, (*at, "active"))
        self._action(rule, at, body)
        if rule.shadow:
            body["shadow"] = [
                [self._target(name, (*at, "shadow", name)), normal_number(percent)]
                for name, percent in sorted(rule.shadow.items())
            ]
        fallback = inherited if rule.fallback is None else self._target_list(rule.fallback, (*at, "fallback"))
        timeout_ms = self._spec.timeout_ms if rule.timeout_ms is None else rule.timeout_ms
        if rule.hedge_after_ms and timeout_ms and rule.hedge_after_ms >= timeout_ms:
            what = f"hedge_after_ms is {rule.hedge_after_ms}, which is not below timeout_ms, {timeout_ms}"
            self._report((*at, "hedge_after_ms"), what, "make it smaller")
        optional = {
            "fallback": fallback,
            "parameters": rule.parameters,
            "timeout_ms": timeout_ms,
            "hedge_after_ms": rule.hedge_after_ms,
        }
        body.update({key: value for key, value in optional.items() if value})
        if rule.experiment is not None:
            self._runs.add(
                body,
                shared=rule.experiment.shared,
                place=f"rule {rule.id!r} of {self._file}:{line}",
                report=lambda message, hint: self._report((*at, "experiment", "id"), message, hint),
            )
        return Rule(rule.id, line, when, body)

    def _action(self, rule: RuleSpec, at: Location, body: dict[str, Any]) -> None:
        present = [name for name in ("serve", "split", "experiment") if getattr(rule, name) is not None]
        if len(present) > 1 or (not present and self._report.is_whole(at)):
            what = "has no action" if not present else f"has {len(present)} actions ({', '.join(present)})"
            self._report(at, f"the rule {what}", "write exactly one of serve, split, experiment")
        if rule.serve is not None:
            body["serve"] = self._target(rule.serve, (*at, "serve"))
        if rule.split is not None:
            if sum(rule.split.values()) == 0:
                self._report((*at, "split"), "the weights of the split sum to 0", "give one a positive weight")
            body["split"] = [[self._target(name, (*at, "split", name)), weight] for name, weight in rule.split.items()]
        if rule.experiment is not None:
            body["experiment"] = self._experiment(rule.experiment, (*at, "experiment"))

    def _experiment(self, spec: ExperimentSpec, at: Location) -> dict[str, Any]:
        name = str(spec.id)
        cells = []
        for cell in sorted(spec.cells, key=lambda cell: (isinstance(cell, str), cell)):
            given = spec.cells[cell]
            target = given if isinstance(given, str) else given.serve
            place = (*at, "cells", cell) if isinstance(given, str) else (*at, "cells", cell, "serve")
            made: dict[str, Any] = {"cell": cell, "serve": self._target(target, place), "weight": 1}
            if not isinstance(given, str):
                made["weight"] = given.weight
                if given.parameters:
                    made["parameters"] = given.parameters
            cells.append(made)
        if sum(cell["weight"] for cell in cells) == 0:
            self._report((*at, "cells"), "the weights of the cells sum to 0", "give one a positive weight")
        body: dict[str, Any] = {"id": name, "allocate": spec.allocate, "cells": cells}
        layer = self._world.layers.get(spec.layer) if spec.layer is not None else None
        if spec.layer is not None and layer is None:
            hint = did_you_mean(spec.layer, set(self._world.layers), "layer")
            self._report((*at, "layer"), f"unknown layer {spec.layer!r}", f"declare it in layers.yaml; {hint}")
        if spec.allocate == "caller":
            return body
        if spec.layer is None:
            if not self._report.is_whole(at):
                return body
            hint = "name the `layer` that it owns buckets of, or write `allocate: caller`"
            self._report(at, f"experiment {name!r} says neither a layer nor that the caller allocates", hint)
        elif layer is not None:
            body |= {"layer": spec.layer, "ranges": [list(pair) for pair in layer.experiments.get(name, ())]}
            if name not in layer.experiments:
                hint = f"add it under experiments of {spec.layer!r} in layers.yaml"
                self._report((*at, "id"), f"experiment {name!r} owns no buckets of layer {spec.layer!r}", hint)
            self._key_attributes(list(layer.key), (*at, "layer"), f"the key of layer {spec.layer!r}")
        return body

    def _active(self, window: ActiveWindow, at: Location) -> list[float | int | None]:
        bounds: list[float | int | None] = []
        for key, text in (("from", window.from_), ("until", window.until)):
            try:
                bounds.append(None if text is None else normal_number(parse_time(text)))
            except ValueError:
                self._report((*at, key), f"{key!r} is {shown(text)}, which is not a time", EXPECTED_TIME)
                bounds.append(None)
        if window.from_ is None and window.until is None and self._report.is_whole(at):
            self._report(at, "the time window has neither from nor until", "write one of them, or delete `active`")
        start, end = bounds
        if start is not None and end is not None and start >= end:
            self._report(at, "the time window ends before it begins", "make `until` later than `from`")
        return bounds

    def _key_attributes(self, names: str | list[str], at: Location, what: str) -> tuple[str, ...]:
        found = []
        for name in [names] if isinstance(names, str) else names:
            attribute = self.attributes.get(name)
            if attribute is None:
                if name not in self._declared:
                    hint = did_you_mean(name, set(self.attributes), "attribute")
                    self._report(
                        at, f"{what} names the undeclared attribute {quoted(name)}", f"declare it in context; {hint}"
                    )
            elif attribute.type not in KEY_TYPES:
                self._report(at, f"{what} names {name!r}, which is {attribute.type}", f"use {' or '.join(KEY_TYPES)}")
            else:
                found.append(name)
        return tuple(found)

    def _target_list(self, targets: str | list[str], at: Location) -> list[str]:
        if isinstance(targets, str):
            return [self._target(targets, at)]
        return [self._target(name, (*at, index)) for index, name in enumerate(targets)]

    def _target(self, name: str, at: Location) -> str:
        problem = target_problem(name, self._world)
        if problem:
            self._report(at, *problem)
        return name


def action_targets(body: Mapping[str, Any]) -> Iterable[str]:
    """Every target, as written, that the action of a rule in normal form serves."""
    if "serve" in body:
        yield body["serve"]
    yield from (name for name, _ in body.get("split", ()))
    yield from (cell["serve"] for cell in body.get("experiment", {}).get("cells", ()))


def body_targets(body: Mapping[str, Any]) -> Iterable[str]:
    """Every target, as written, that a rule in normal form can reach."""
    yield from action_targets(body)
    yield from (name for name, _ in body.get("shadow", ()))
    yield from body.get("fallback", ())


def target_problem(name: str, world: World) -> tuple[str, str] | None:
    """What is wrong with a target and what would be right, or None."""
    if not world.known:
        return None
    if "@" in name:
        if name in world.aliases:
            return None
        return f"unknown alias {name!r}", f"declare it in fleet.yaml; {did_you_mean(name, set(world.aliases), 'alias')}"
    model = name.partition("/")[0]
    if model in world.models:
        return None
    hint = did_you_mean(model, set(world.models), "model")
    return f"unknown model {model!r}", f"place it under models in fleet.yaml; {hint}"


def resolve_target(name: str, aliases: Mapping[str, str]) -> tuple[str, int | None]:
    """The model and the pinned version (or None) that a sound target stands for."""
    model, _, version = aliases.get(name, name).partition("/")
    return model, int(version) if version else None
