"""Reports settings that have no effect: their author meant something that the rules do not do.

Only rules without an error are checked. docs/findings.md lists what is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidegate.language.documents import EVERYTHING, ExperimentSpec, FleetFile, ObjectiveFile, RuleSpec
from tidegate.language.semantics import resolve_target
from tidegate.language.shape import Note
from tidegate.language.source import Location, items_at
from tidegate.language.spare_conditions import of_when, repeated, twice
from tidegate.rules.bundle.rule import Rule
from tidegate.rules.conditions import comparable
from tidegate.rules.contract import Attribute


def of_objective(
    spec: ObjectiveFile,
    attributes: Mapping[str, Attribute],
    rules: Sequence[tuple[Location, RuleSpec, Rule]],
    aliases: Mapping[str, str],
    note: Note,
) -> None:
    """Note the settings of one objective that have no effect; `rules` are as places, as written and in normal form."""
    for name, declared in spec.context.items():
        _values(attributes[name], declared.values, ("context", name, "values"), note)
        if isinstance(declared.default, list):
            twice(declared.default, declared.default, ("context", name, "default"), note)
    _sticky_key(spec, attributes, note)
    served = {at: {resolve_target(name, aliases) for name in made.served()} for at, _, made in rules}
    inheriting = [served[at] for at, rule, _ in rules if rule.fallback is None]
    _fallbacks(spec.fallback, ("fallback",), inheriting, aliases, note)
    for key in ("fallback", "timeout_ms"):
        if getattr(spec, key) and all(getattr(rule, key) is not None for _, rule, _ in rules):
            note((key,), f"every rule sets its own {key}, so the one of the objective is never used", "delete it")
    for at, rule, made in rules:
        if rule.when is not None:
            of_when(rule.when, made.when, attributes, (*at, "when"), note)
        variants = list(rule.split or ())
        for index in repeated([resolve_target(variant, aliases) for variant in variants]):
            message = f"variant {variants[index]!r} is the same target as another variant"
            note((*at, "split", variants[index]), message, "add its weight to the other, or name another target")
        for target, percent in rule.shadow.items():
            if percent == 0:
                note((*at, "shadow", target), f"0 % of the requests are copied to {target!r}", "delete it, or raise it")
        if rule.fault is not None and rule.fault.percent == 0:
            note((*at, "fault", "percent"), "0 % of the synthetic requests get the fault", "delete it, or raise it")
        if rule.fallback is not None:
            _fallbacks(rule.fallback, (*at, "fallback"), [served[at]], aliases, note)
        if rule.fallback == [] and not spec.fallback:
            note((*at, "fallback"), "the objective has no fallback to remove", "delete it")
        if rule.experiment is not None:
            _experiment(rule.experiment, rule.parameters, at, note)


def of_fleet(fleet: FleetFile, note: Note) -> None:
    """Note the settings of fleet.yaml that have no effect; models, aliases and steps that nothing uses are found by `analysis`."""
    for shard, each in fleet.shards.items():
        twice(each.alternative_types, each.alternative_types, ("shards", shard, "alternative_types"), note)
        if each.instance_type in each.alternative_types:
            place: Location = ("shards", shard, "alternative_types", each.alternative_types.index(each.instance_type))
            note(place, f"{each.instance_type!r} is the shard's instance_type, which is tried first", "delete it")
    named = {model.tenant for model in fleet.models.values()}
    for tenant, spec in fleet.tenants.items():
        if tenant not in named:
            note(("tenants", tenant), f"no model belongs to tenant {tenant!r}", "delete it, or give a model to it")
        if EVERYTHING in spec.others and len(spec.others) > 1:
            at: Location = ("tenants", tenant, "apart_from", spec.others.index(EVERYTHING))
            note(at, "'*' covers the others", "keep '*' alone, or delete it")


def _values(attribute: Attribute, values: list[Any] | None, at: Location, note: Note) -> None:
    written = values or []
    kind = "string" if attribute.type == "set" else attribute.type
    twice([comparable(kind, value) for value in written], written, at, note)
    if attribute.type == "boolean" and len(set(written)) == 2:
        note(at, "the values are all that a boolean can be", "delete them")


def _sticky_key(spec: ObjectiveFile, attributes: Mapping[str, Attribute], note: Note) -> None:
    if not isinstance(spec.sticky_key, list):
        return
    for index in repeated(spec.sticky_key):
        note(("sticky_key", index), f"the sticky key names {spec.sticky_key[index]!r} twice", "keep one")
    for index, name in enumerate(spec.sticky_key[:-1]):
        attribute = attributes[name]
        # A text may be empty, and then the next attribute counts, unless there is a default.
        if attribute.default not in (None, "") or (attribute.required and attribute.type != "string"):
            message = f"attribute {name!r} always has a value, so those after it never count"
            note(("sticky_key", index + 1), message, "delete them, or write them first")
            return


def _fallbacks(
    value: str | list[str],
    at: Location,
    served: Sequence[set[tuple[str, int | None]]],
    aliases: Mapping[str, str],
    note: Note,
) -> None:
    """Note what a list of fallbacks names again; `served` are the resolved targets of each action that it is for."""
    listed = items_at(value, at)
    resolved = [resolve_target(target, aliases) for _, target in listed]
    again = set(repeated(resolved))
    for index, ((place, target), each) in enumerate(zip(listed, resolved, strict=True)):
        if index in again:
            note(place, f"the fallback {target!r} is listed twice and is tried once", "keep one")
        elif served and all(targets == {each} for targets in served):
            message = f"the fallback {target!r} is the same target as the one that it would replace"
            note(place, message, "delete it, or name another")


def _experiment(spec: ExperimentSpec, common: Mapping[str, Any], rule: Location, note: Note) -> None:
    at: Location = (*rule, "experiment")
    written = {cell: given for cell, given in spec.cells.items() if not isinstance(given, str)}
    if spec.allocate == "caller" and spec.layer is not None:
        message = f"the caller allocates the cells, so layer {spec.layer!r} decides nothing"
        note((*at, "layer"), message, "delete `layer`, or delete `allocate: caller`")
    for cell, given in written.items():
        place: Location = (*at, "cells", cell)
        if "weight" in given.model_fields_set and spec.allocate == "caller":
            note((*place, "weight"), "the caller allocates the cells, so their weights decide nothing", "delete it")
        elif "weight" in given.model_fields_set and len(spec.cells) == 1:
            note((*place, "weight"), "the experiment has one cell, which gets every member", "delete it, or add a cell")
        for name, value in given.parameters.items():
            if name in common and common[name] == value and type(common[name]) is type(value):
                note((*place, "parameters", name), f"the rule gives {name!r} the same value", "delete one of them")
    for name in common:
        if written.keys() == spec.cells.keys() and all(name in given.parameters for given in written.values()):
            message = f"every cell sets its own {name!r}, so the one of the rule is never used"
            note((*rule, "parameters", name), message, "delete it")
