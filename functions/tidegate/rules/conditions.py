"""Conditions in their normal form: what the compiler writes into a bundle and what `explain` and the index read.

A conjunction is a tuple of predicates and of `AnyOf`s; all must hold. Equality is `in` with one value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tidegate.rules.contract import AttributeType
from tidegate.rules.values import json_text, version_key

Operator = Literal["in", "not", "gt", "gte", "lt", "lte", "prefix", "suffix", "present", "contains_any", "contains_all"]

ORDERED: frozenset[str] = frozenset({"gt", "gte", "lt", "lte"})
AFFIX: frozenset[str] = frozenset({"prefix", "suffix"})

OPERATORS: Mapping[AttributeType, frozenset[str]] = {
    "string": frozenset({"in", "not", "prefix", "suffix", "present"}),
    "integer": frozenset({"in", "not", "present"}) | ORDERED,
    "number": frozenset({"in", "not", "present"}) | ORDERED,
    "boolean": frozenset({"in", "not", "present"}),
    "version": frozenset({"in", "not", "present"}) | ORDERED,
    "set": frozenset({"contains_any", "contains_all", "present"}),
}
"""The operators that fit each attribute type."""


@dataclass(frozen=True, slots=True)
class Predicate:
    """One condition on one attribute. `operand` is a tuple, but for the ordered operators and `present` one value."""

    attribute: str
    operator: Operator
    operand: Any

    def words(self) -> str:
        """The condition in words, from the rule's side alone."""
        match self.operator:
            case "present":
                return "must be present" if self.operand else "must be absent"
            case "gt" | "gte" | "lt" | "lte":
                sign = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}[self.operator]
                return f"must be {sign} {json_text(self.operand)}"
            case "in" if len(self.operand) == 1:
                return f"must be {json_text(self.operand[0])}"
        values = ", ".join(json_text(value) for value in self.operand)
        phrase = {
            "in": "must be one of",
            "not": "must be none of",
            "prefix": "must begin with one of",
            "suffix": "must end with one of",
            "contains_any": "must contain one of",
            "contains_all": "must contain all of",
        }[self.operator]
        return f"{phrase} {values}"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Alternatives: at least one conjunction must hold."""

    alternatives: tuple[Conjunction, ...]


Conjunction = tuple[Predicate | AnyOf, ...]
Row = tuple[Predicate, ...]


def comparable(kind: AttributeType, value: Any) -> Any:
    """The value in the form that compares: a version as its sort key, anything else as it is."""
    return version_key(value) if kind == "version" else value


def holds(operator: str, operand: Any, value: Any) -> bool:
    """Whether a predicate holds for a present value; both sides are `comparable`."""
    match operator:
        case "in":
            return value in operand
        case "not":
            return value not in operand
        case "gt":
            return bool(value > operand)
        case "gte":
            return bool(value >= operand)
        case "lt":
            return bool(value < operand)
        case "lte":
            return bool(value <= operand)
        case "prefix":
            return bool(value.startswith(tuple(operand)))
        case "suffix":
            return bool(value.endswith(tuple(operand)))
        case "contains_any":
            return not set(operand).isdisjoint(value)
        case "contains_all":
            return set(operand).issubset(value)
        case _:
            return bool(operand)


def comparable_operand(kind: AttributeType, predicate: Predicate) -> Any:
    """The operand of a predicate in the form that compares."""
    if kind != "version" or predicate.operator == "present":
        return predicate.operand
    if predicate.operator in ORDERED:
        return version_key(predicate.operand)
    return tuple(version_key(value) for value in predicate.operand)


def row_count(conjunction: Conjunction) -> int:
    """How many rows `rows` gives."""
    count = 1
    for term in conjunction:
        if isinstance(term, AnyOf):
            count *= sum(row_count(alternative) for alternative in term.alternatives)
    return count


def rows(conjunction: Conjunction) -> Iterator[Row]:
    """The disjunctive normal form: conjunctions of predicates alone, of which at least one must hold."""
    if not conjunction:
        yield ()
        return
    first, rest = conjunction[0], conjunction[1:]
    for tail in rows(rest):
        if isinstance(first, Predicate):
            yield (first, *tail)
        else:
            for alternative in first.alternatives:
                for head in rows(alternative):
                    yield (*head, *tail)


def to_json(conjunction: Conjunction) -> list[Any]:
    """A conjunction as JSON values."""
    return [
        [term.attribute, term.operator, list(term.operand) if isinstance(term.operand, tuple) else term.operand]
        if isinstance(term, Predicate)
        else [to_json(alternative) for alternative in term.alternatives]
        for term in conjunction
    ]


def from_json(terms: list[Any]) -> Conjunction:
    """The inverse of `to_json`."""
    return tuple(
        Predicate(term[0], term[1], tuple(term[2]) if isinstance(term[2], list) else term[2])
        if term and isinstance(term[0], str)
        else AnyOf(tuple(from_json(alternative) for alternative in term))
        for term in terms
    )
