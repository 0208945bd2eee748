"""A context that meets a rule's conditions, for a command that shows which rule decides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidegate.rules.bundle.rule import Rule
from tidegate.rules.conditions import AnyOf, Conjunction, Predicate
from tidegate.rules.contract import Attribute, AttributeType, Objective

_OF_TYPE: Mapping[AttributeType, Sequence[Any]] = {
    "string": ("x", "y"), "integer": (0, 1), "number": (0, 1), "boolean": (False, True), "version": ("1", "2"), "set": (["x"],),
}  # fmt: skip


def example(objective: Objective, rule: Rule) -> dict[str, Any]:
    """Return a context that meets the rule's conditions one by one, of alternatives the first, and has what is required; without the
    sticky key, which has members of its own. Conditions on one attribute that only one value meets together may be missed."""
    found = dict(_meeting(objective, rule.when))
    for name, attribute in objective.attributes.items():
        if attribute.required and name not in found and name not in objective.sticky_key:
            found[name] = _candidates(attribute)[0]
    return found


def _meeting(objective: Objective, when: Conjunction) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for term in when:
        if isinstance(term, AnyOf):
            found += _meeting(objective, term.alternatives[0])
        elif term.operator != "present" or term.operand:
            found.append((term.attribute, _value(objective.attributes[term.attribute], term)))
    return found


def _value(attribute: Attribute, term: Predicate) -> Any:
    operand = term.operand
    match term.operator:
        case "in" | "prefix" | "suffix":
            return operand[0]
        case "contains_any" | "contains_all":
            return list(operand)
        case "gte" | "lte":
            return operand
        case "gt":
            return f"{operand}.1" if attribute.type == "version" else operand + 1
        case "lt":
            return "0" if attribute.type == "version" else operand - 1
    candidates = _candidates(attribute)
    return next((each for each in candidates if term.operator != "not" or each not in operand), candidates[0])


def _candidates(attribute: Attribute) -> Sequence[Any]:
    return attribute.values or _OF_TYPE[attribute.type]
