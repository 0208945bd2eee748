"""Checks an objective against what it refers to, and brings its rules into normal form."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from tidegate.language.documents import (
    ActiveWindow,
    AttributeSpec,
    ExperimentSpec,
    FaultSpec,
    LimitSpec,
    ObjectiveFile,
    RuleSpec,
)
from tidegate.language.experiment_runs import ExperimentRuns
from tidegate.language.program import ObjectiveProgram, World
from tidegate.language.shape import Report
from tidegate.language.shape_words import shown, why
from tidegate.language.source import Location, items_at
from tidegate.language.spare_conditions import repeated
from tidegate.language.when import normal_number, normal_when
from tidegate.language.words import did_you_mean, quoted
from tidegate.rules.bundle.rule import Cell, Experiment, Rule, Window
from tidegate.rules.conditions import row_count
from tidegate.rules.contract import (
    NO_LIMIT,
    RESERVED_PARAMETERS,
    Attribute,
    ContextValue,
    Limit,
    Objective,
    Ranking,
    Responses,
    Scalar,
)
from tidegate.rules.decision import Fault
from tidegate.rules.times import EXPECTED_TIME, parse_time
from tidegate.rules.values import EXPECTED, accepts, domain_words, within

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
        """Return the objective in normal form. `rules` are (position in the file, line, rule) of those with a sound shape."""
        spec = self._spec
        self.attributes = {
            name: attribute
            for name, declared in spec.context.items()
            if (attribute := self._attribute(name, declared)) is not None
        }
        sticky = self._key_attributes(spec.sticky_key, ("sticky_key",), "sticky_key") if spec.sticky_key else ()
        fallback = self._target_list(spec.fallback, ("fallback",))
        lines: dict[str, int] = {}
        made = []
        for position, line, rule in rules:
            at: Location = ("rules", position)
            if rule.id in lines:
                self._report(
                    (*at, "id"), f"duplicate rule id {rule.id!r}", f"the first is on line {lines[rule.id]}: rename one"
                )
            lines.setdefault(rule.id, line)
            made.append(self._rule(rule, line, at, fallback))
        allocated = {each.id for rule in made if (each := rule.experiment_of("caller"))}
        contract = Objective(
            spec.objective,
            spec.summary,
            spec.owner,
            self.attributes,
            sticky,
            spec.timeout_ms,
            tuple(sorted(allocated)),
            spec.unknown_attributes == "refuse",
            None if spec.ranking is None else Ranking(spec.ranking.output, spec.ranking.k),
            NO_LIMIT if spec.limits is None else checked_limit(spec.limits, ("limits",), self._report),
            self._loggable(),
            Responses(spec.responses),
            None if spec.degraded is None else self._target(spec.degraded, ("degraded",)),
        )
        return ObjectiveProgram(contract, tuple(made), self._file, lines)

    def _loggable(self) -> tuple[str, ...]:
        for index, name in enumerate(self._spec.loggable):
            if name not in self._declared:
                hint = did_you_mean(name, set(self.attributes), "attribute")
                self._report(
                    ("loggable", index), f"undeclared attribute {quoted(name)}", f"declare it in context; {hint}"
                )
        for index in repeated(self._spec.loggable):
            self._report(("loggable", index), f"{quoted(self._spec.loggable[index])} is listed twice", "keep one")
        return tuple(sorted(set(self._spec.loggable)))

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
        attribute = Attribute(name, spec.type, spec.required, values or None, None, header)
        return replace(attribute, default=self._default(attribute, spec.default, (*at, "default")))

    def _default(self, attribute: Attribute, default: Any, at: Location) -> ContextValue | None:
        name, kind = attribute.name, attribute.type
        if default is None:
            return None
        if attribute.required:
            self._report(at, f"attribute {name!r} is required and has a default", "keep one of them")
        if not accepts(kind, default):
            what = f"{shown(default)} cannot be the default of attribute {name!r} of type {kind}"
            self._report(at, what, f"write {EXPECTED[kind]}{why(default, EXPECTED[kind])}")
            return None
        if not within(attribute, default):
            what = f"{shown(default)} is the default of attribute {name!r} and not among its values"
            self._report(at, what, f"use {domain_words(attribute)}, or add it to the values")
            return None
        return tuple(default) if isinstance(default, list) else normal_number(default)

    def _rule(self, spec: RuleSpec, line: int, at: Location, inherited: tuple[str, ...]) -> Rule:
        when = normal_when(spec.when, self.attributes, self._declared, (*at, "when"), self._report)
        if row_count(when) > MAX_ROWS_PER_RULE:
            self._report(
                (*at, "when"),
                f"the alternatives multiply to {row_count(when)} combinations",
                f"at most {MAX_ROWS_PER_RULE} are allowed: split the rule, or use lists of values",
            )
            when = ()
        self._check_actions(spec, at)
        timeout_ms = self._spec.timeout_ms if spec.timeout_ms is None else spec.timeout_ms
        if spec.hedge_after_ms and timeout_ms and spec.hedge_after_ms >= timeout_ms:
            what = f"hedge_after_ms is {spec.hedge_after_ms}, which is not below timeout_ms, {timeout_ms}"
            self._report((*at, "hedge_after_ms"), what, "make it smaller")
        if spec.hedge_after_ms is not None and spec.hedge_at is not None:
            self._report((*at, "hedge_at"), "hedge_at and hedge_after_ms both say when to hedge", "keep one of them")
        rule = Rule(
            id=spec.id,
            when=when,
            serve=None if spec.serve is None else self._target(spec.serve, (*at, "serve")),
            split=None if spec.split is None else self._weighted(spec.split, (*at, "split")),
            experiment=None
            if spec.experiment is None
            else self._experiment(spec.experiment, (*at, "experiment"), spec.parameters),
            active=None if spec.active is None else self._active(spec.active, (*at, "active")),
            shadow=self._weighted(dict(sorted(spec.shadow.items())), (*at, "shadow")),
            fallback=inherited if spec.fallback is None else self._target_list(spec.fallback, (*at, "fallback")),
            parameters=self._parameters(spec.parameters, (*at, "parameters")),
            timeout_ms=timeout_ms,
            hedge_after_ms=spec.hedge_after_ms,
            hedge_at=spec.hedge_at,
            fault=None if spec.fault is None else self._fault(spec.fault, (*at, "fault")),
        )
        if spec.experiment is not None and rule.experiment is not None:
            self._runs.add(
                rule,
                rule.experiment,
                shared=spec.experiment.shared,
                place=f"rule {rule.id!r} of {self._file}:{line}",
                report=lambda message, hint: self._report((*at, "experiment", "id"), message, hint),
            )
        return rule

    def _check_actions(self, rule: RuleSpec, at: Location) -> None:
        present = [name for name in ("serve", "split", "experiment") if getattr(rule, name) is not None]
        if len(present) > 1 or (not present and self._report.is_whole(at)):
            what = "has no action" if not present else f"has {len(present)} actions ({', '.join(present)})"
            self._report(at, f"the rule {what}", "write exactly one of serve, split, experiment")
        if rule.split is not None and sum(rule.split.values()) == 0:
            self._report((*at, "split"), "the weights of the split sum to 0", "give one a positive weight")

    def _parameters(
        self, given: Mapping[str, Scalar], at: Location, below: Mapping[str, Scalar] | None = None
    ) -> Mapping[str, Scalar]:
        """Check parameters; `below` has those that they are laid over."""
        # They are headers over HTTP, in whose names case does not count, and Envoy writes them in lower case.
        known = {name.lower(): name for name in below or ()}
        for name in given:
            other = known.setdefault(name.lower(), name)
            if other != name:
                what = f"the parameters {name!r} and {other!r} differ only in case, which a model may not see"
                self._report((*at, name), what, "name one of them otherwise")
            if name.lower().startswith(RESERVED_PARAMETERS):
                what = f"parameters whose names begin with {RESERVED_PARAMETERS!r} come from the gateway alone"
                self._report((*at, name), f"the name {name!r} is reserved: {what}", "name it otherwise")
        return given

    def _experiment(self, spec: ExperimentSpec, at: Location, below: Mapping[str, Scalar]) -> Experiment:
        name = str(spec.id)
        cells = []
        for cell in sorted(spec.cells, key=lambda cell: (isinstance(cell, str), cell)):
            given, place = spec.cells[cell], (*at, "cells", cell)
            if isinstance(given, str):
                cells.append(Cell(cell, self._target(given, place), 1))
            else:
                target = self._target(given.serve, (*place, "serve"))
                parameters = self._parameters(given.parameters, (*place, "parameters"), below)
                cells.append(Cell(cell, target, given.weight, parameters))
        if sum(cell.weight for cell in cells) == 0:
            self._report((*at, "cells"), "the weights of the cells sum to 0", "give one a positive weight")
        made = Experiment(name, spec.allocate, tuple(cells))
        layer = self._world.layers.get(spec.layer) if spec.layer is not None else None
        if spec.layer is not None and layer is None:
            hint = did_you_mean(spec.layer, set(self._world.layers), "layer")
            self._report((*at, "layer"), f"unknown layer {spec.layer!r}", f"declare it in layers.yaml; {hint}")
        if spec.allocate == "caller":
            return made
        if spec.layer is None:
            if self._report.is_whole(at):
                hint = "name the `layer` that it owns buckets of, or write `allocate: caller`"
                self._report(at, f"experiment {name!r} has neither a layer nor `allocate: caller`", hint)
        elif layer is not None:
            made = made._replace(layer=spec.layer, ranges=layer.experiments.get(name, ()))
            if name not in layer.experiments:
                hint = f"add it under experiments of {spec.layer!r} in layers.yaml"
                self._report((*at, "id"), f"experiment {name!r} owns no buckets of layer {spec.layer!r}", hint)
            self._key_attributes(list(layer.key), (*at, "layer"), f"the key of layer {spec.layer!r}")
        return made

    def _fault(self, spec: FaultSpec, at: Location) -> Fault:
        if spec.delay_ms is None and spec.abort_status is None and self._report.is_whole(at):
            self._report(at, "the fault does nothing", "write delay_ms, abort_status or both, or delete `fault`")
        return Fault(normal_number(spec.percent), spec.delay_ms, spec.abort_status)

    def _active(self, window: ActiveWindow, at: Location) -> Window:
        bounds: list[float | None] = []
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
        return start, end

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

    def _weighted(self, targets: Mapping[str, Any], at: Location) -> tuple[tuple[str, Any], ...]:
        """Return targets with their weights or percents."""
        return tuple((self._target(name, (*at, name)), normal_number(weight)) for name, weight in targets.items())

    def _target_list(self, targets: str | list[str], at: Location) -> tuple[str, ...]:
        return tuple(self._target(name, place) for place, name in items_at(targets, at))

    def _target(self, name: str, at: Location) -> str:
        problem = target_problem(name, self._world)
        if problem:
            self._report(at, *problem)
        return name


def checked_limit(spec: LimitSpec, at: Location, report: Report) -> Limit:
    if spec.burst is not None and spec.rate_per_s is None and report.is_whole(at):
        report((*at, "burst"), "a burst without rate_per_s limits nothing", "write rate_per_s, or delete `burst`")
    rate_per_s = None if spec.rate_per_s is None else normal_number(spec.rate_per_s)
    return Limit(rate_per_s, spec.burst, spec.concurrency)


def target_problem(name: str, world: World) -> tuple[str, str] | None:
    """Return what is wrong with a target and what would be right; None where nothing is."""
    if not world.known:
        return None
    if "@" in name:
        if name in world.fleet.aliases:
            return None
        return (
            f"unknown alias {name!r}",
            f"declare it in fleet.yaml; {did_you_mean(name, set(world.fleet.aliases), 'alias')}",
        )
    model = name.partition("/")[0]
    if model in world.fleet.models:
        return None
    hint = did_you_mean(model, set(world.fleet.models), "model")
    return f"unknown model {model!r}", f"place it under models in fleet.yaml; {hint}"


def resolve_target(name: str, aliases: Mapping[str, str]) -> tuple[str, int | None]:
    """Return the model and the pinned version (or None) of a valid target."""
    model, _, version = aliases.get(name, name).partition("/")
    return model, int(version) if version else None
