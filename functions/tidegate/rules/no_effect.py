"""Settings that change nothing where they are: their author meant something that the rules do not do.

Only rules without an error are looked at. docs/checking.md lists what is found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tidegate.rules.conditions import ORDERED, comparable, holds
from tidegate.rules.contract import Attribute
from tidegate.rules.language import (
    EVERYTHING,
    CallerSpec,
    ExperimentSpec,
    FleetFile,
    ObjectiveFile,
    Operators,
    RuleSpec,
    When,
)
from tidegate.rules.semantics import resolve_target
from tidegate.rules.source import Location
from tidegate.rules.values import json_text

Note = Callable[[Location, str, str], None]
"""Takes where a setting is, why it has no effect, and what would be right."""


def of_objective(
    spec: ObjectiveFile,
    attributes: Mapping[str, Attribute],
    rules: Sequence[tuple[Location, RuleSpec]],
    aliases: Mapping[str, str],
    note: Note,
) -> None:
    """Note the settings of one objective that have no effect; `rules` are with their places."""
    for name, declared in spec.context.items():
        _values(attributes[name], declared.values, ("context", name, "values"), note)
    _sticky_key(spec, attributes, note)
    _fallbacks(spec.fallback, ("fallback",), aliases, note)
    for key in ("fallback", "timeout_ms"):
        if getattr(spec, key) and all(getattr(rule, key) is not None for _, rule in rules):
            note((key,), f"every rule sets its own {key}, so that of the objective is never used", "delete it")
    for at, rule in rules:
        if rule.when is not None:
            _when(rule.when, attributes, (*at, "when"), note)
        _beside_action(spec, rule, at, aliases, note)
        if rule.experiment is not None:
            _experiment(rule.experiment, rule.parameters, at, note)


def of_fleet(fleet: FleetFile, note: Note) -> None:
    """Note the settings of fleet.yaml that have no effect; models, aliases and steps that nothing uses are not for here."""
    named = {model.tenant for model in fleet.models.values()}
    for tenant, spec in fleet.tenants.items():
        apart = spec.apart_from if isinstance(spec.apart_from, list) else [spec.apart_from]
        if tenant not in named:
            note(("tenants", tenant), f"no model belongs to tenant {tenant!r}", "delete it, or give a model to it")
        if EVERYTHING in apart and len(apart) > 1:
            at: Location = ("tenants", tenant, "apart_from", apart.index(EVERYTHING))
            note(at, "'*' covers the others", "keep '*' alone, or delete it")


def of_layer(name: str, key: Sequence[str], note: Note) -> None:
    """Note attributes that a layer's key names twice."""
    for index in _repeated(key):
        note((name, "key", index), f"the key names {key[index]!r} twice", "keep one")


def of_caller(name: str, spec: CallerSpec, note: Note) -> None:
    """Note overrides that others of the caller cover."""
    for index, target in enumerate(spec.overrides if isinstance(spec.overrides, list) else ()):
        model, _, version = target.partition("/")
        if version and model in spec.overrides:
            hint = f"delete it, or {model!r}"
            note(("callers", name, "overrides", index), f"{model!r} covers all its versions, {target!r} too", hint)


def _values(attribute: Attribute, values: list[Any] | None, at: Location, note: Note) -> None:
    written = values or []
    kind = "string" if attribute.type == "set" else attribute.type
    _twice([comparable(kind, value) for value in written], written, at, note)
    if attribute.type == "boolean" and len(set(written)) == 2:
        note(at, "the values are all that a boolean can be", "delete them")


def _sticky_key(spec: ObjectiveFile, attributes: Mapping[str, Attribute], note: Note) -> None:
    if not isinstance(spec.sticky_key, list):
        return
    for index in _repeated(spec.sticky_key):
        note(("sticky_key", index), f"the sticky key names {spec.sticky_key[index]!r} twice", "keep one")
    for index, name in enumerate(spec.sticky_key[:-1]):
        attribute = attributes[name]
        # A text may be empty, and then the next attribute counts, unless there is a default.
        if attribute.default not in (None, "") or (attribute.required and attribute.type != "string"):
            message = f"attribute {name!r} always has a value, so those after it never count"
            note(("sticky_key", index + 1), message, "delete them, or write them first")
            return


def _beside_action(spec: ObjectiveFile, rule: RuleSpec, at: Location, aliases: Mapping[str, str], note: Note) -> None:
    for target, percent in rule.shadow.items():
        if percent == 0:
            note((*at, "shadow", target), f"0 % of the requests are copied to {target!r}", "delete it, or raise it")
    if rule.fallback is None:
        return
    _fallbacks(rule.fallback, (*at, "fallback"), aliases, note)
    if rule.fallback == [] and not spec.fallback:
        note((*at, "fallback"), "there is no fallback of the objective to take away", "delete it")
    if rule.serve is not None:
        for place, target in _listed(rule.fallback, (*at, "fallback")):
            if resolve_target(target, aliases) == resolve_target(rule.serve, aliases):
                note(place, f"the fallback {target!r} is what the rule serves", "delete it, or name another")


def _fallbacks(value: str | list[str], at: Location, aliases: Mapping[str, str], note: Note) -> None:
    listed = _listed(value, at)
    resolved = [resolve_target(target, aliases) for _, target in listed]
    for index in _repeated(resolved):
        place, target = listed[index]
        note(place, f"the fallback {target!r} is in the list before, and is tried once", "keep one")


def _listed(value: str | list[str], at: Location) -> list[tuple[Location, str]]:
    return [(at, value)] if isinstance(value, str) else [((*at, index), item) for index, item in enumerate(value)]


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
            message = f"every cell has its own {name!r}, so that of the rule is never used"
            note((*rule, "parameters", name), message, "delete it")


def _when(when: When, attributes: Mapping[str, Attribute], at: Location, note: Note) -> None:
    conditions = when.model_extra or {}
    if not conditions and when.any_of is None and at[-1] == "when":
        note(at, "there is no condition in it, so the rule matches every request", "delete it, or write a condition")
    for name, condition in conditions.items():
        if isinstance(condition, Operators):
            _operators(attributes[name], condition, (*at, name), note)
        else:
            _list(attributes[name], "in", condition, (*at, name), note)
    for index, alternative in enumerate(when.any_of or ()):
        place: Location = (*at, "any_of", index)
        if not alternative.model_extra and alternative.any_of is None:
            note(place, "an alternative without a condition always holds, so the others decide nothing", "delete it")
        elif alternative in (when.any_of or ())[:index]:
            note(place, "the same alternative is above", "keep one")
        _when(alternative, attributes, place, note)


def _operators(attribute: Attribute, condition: Operators, at: Location, note: Note) -> None:
    given: dict[str, Any] = {
        field.alias or name: value
        for name, field in Operators.model_fields.items()
        if (value := getattr(condition, name)) is not None
    }
    for operator, value in given.items():
        _list(attribute, operator, value, (*at, operator), note)
        if operator in ("prefix", "suffix"):
            is_present = attribute.required or attribute.default is not None or len(given) > 1
            _affixes(attribute, operator, _as_list(value), (*at, operator), note, is_present=is_present)
    if given.get("present"):
        if len(given) > 1:
            note((*at, "present"), "the other conditions on it hold only where it is present", "delete it")
        elif attribute.required or attribute.default is not None:
            note((*at, "present"), f"attribute {attribute.name!r} is always present", "delete it")
    for one, other in (("gt", "gte"), ("lt", "lte")):
        if one in given and other in given:
            bound, limit = (comparable(attribute.type, given[each]) for each in (one, other))
            is_spare = bound >= limit if one == "gt" else bound <= limit
            spare, strict = (other, one) if is_spare else (one, other)
            note((*at, spare), f"`{strict}` beside it refuses more", "keep one of them")
    _spare_values(attribute, given, at, note)


def _spare_values(attribute: Attribute, given: Mapping[str, Any], at: Location, note: Note) -> None:
    """Note conditions on single values that others beside them decide already."""
    operands = {
        operator: [comparable(attribute.type, item) for item in _as_list(value)]
        for operator, value in given.items()
        if operator in ("in", "not", "prefix", "suffix", *ORDERED)
    }
    if attribute.type == "set":
        both = set(_as_list(given.get("contains_any"))) & set(_as_list(given.get("contains_all")))
        if both:
            message = f"{json_text(min(both))!r} is in `contains_all` too, so this always holds beside it"
            note((*at, "contains_any"), message, "delete it, or take the element out of one")
        return
    others = {name: tuple(values) if name not in ORDERED else values[0] for name, values in operands.items()}
    for name, operand in others.items():
        if name != "in" and "in" in operands and all(holds(name, operand, value) for value in operands["in"]):
            note((*at, name), "every value of `in` beside it passes it", "delete it")
    for index, value in enumerate(operands.get("not", ())):
        if "in" not in operands and any(not holds(n, operand, value) for n, operand in others.items() if n != "not"):
            written = _as_list(given["not"])[index]
            place = (*at, "not", index) if isinstance(given["not"], list) else (*at, "not")
            note(place, f"the conditions beside it exclude {json_text(written)!r} already", "delete it")


def _list(attribute: Attribute, operator: str, value: Any, at: Location, note: Note) -> None:
    """Note what is twice in a condition's list, and lists of every value that there can be."""
    values = _as_list(value)
    kind = "string" if attribute.type == "set" or operator in ("prefix", "suffix") else attribute.type
    keys = [comparable(kind, item) for item in values] if operator not in ("present", *ORDERED) else []
    _twice(keys, values, at, note)
    domain = {comparable(kind, item) for item in attribute.values or ()} if operator == "in" else set()
    if domain and domain <= set(keys) and (attribute.required or attribute.default is not None):
        note(at, f"these are all values of attribute {attribute.name!r}, so it always holds", "delete it")


def _affixes(
    attribute: Attribute, operator: str, values: list[str], at: Location, note: Note, *, is_present: bool
) -> None:
    """Note affixes that others cover, and the one that every text has. `is_present`: without the condition too, the rule
    matches only where the attribute is present."""
    covers = _covers(values, from_end=operator == "suffix")
    for index, item in enumerate(values):
        if item in covers:
            note((*at, index), f"{covers[item]!r} beside it covers {item!r}", "delete one of them")
        elif item == "":
            hint = "delete it" if is_present else f"write `{attribute.name}: {{present: true}}`, which says the same"
            note(at, f"every text has the {operator} ''", hint)


def _covers(affixes: Iterable[str], *, from_end: bool) -> dict[str, str]:
    """The shortest other affix that each of some begins with (ends with, where `from_end`), of those that have one."""
    step = -1 if from_end else 1
    found: dict[str, str] = {}
    shortest: str | None = None
    # In order, what begins with a text follows it directly.
    for read in sorted({each[::step] for each in affixes}):
        if shortest is not None and read.startswith(shortest):
            found[read[::step]] = shortest[::step]
        else:
            shortest = read
    return found


def _twice(keys: Sequence[Any], written: Sequence[Any], at: Location, note: Note) -> None:
    for index in _repeated(keys):
        note((*at, index), f"{json_text(written[index])!r} is in the list twice", "keep one")


def _repeated(values: Iterable[Any]) -> list[int]:
    """The positions of values that are there before."""
    seen: set[Any] = set()
    found = []
    for index, value in enumerate(values):
        if value in seen:
            found.append(index)
        seen.add(value)
    return found


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
