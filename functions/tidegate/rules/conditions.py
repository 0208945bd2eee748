"""Conditions in their normal form, which the compiler writes into a bundle, and `explain` and the index read.

A conjunction is a tuple of predicates and of `AnyOf`s; all must hold. Equality is `in` with one value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

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
_HOLDS: Mapping[str, Callable[[Any, Any], Any]] = {
    "in": lambda operand, value: value in operand,
    "not": lambda operand, value: value not in operand,
    "gt": lambda operand, value: value > operand,
    "gte": lambda operand, value: value >= operand,
    "lt": lambda operand, value: value < operand,
    "lte": lambda operand, value: value <= operand,
    "prefix": lambda operand, value: value.startswith(tuple(operand)),
    "suffix": lambda operand, value: value.endswith(tuple(operand)),
    "present": lambda operand, _: operand,
    "contains_any": lambda operand, value: not set(operand).isdisjoint(value),
    "contains_all": lambda operand, value: set(operand).issubset(value),
}
_PHRASES: Final = {
    "in": "must be one of",
    "not": "must be none of",
    "gt": "must be >",
    "gte": "must be >=",
    "lt": "must be <",
    "lte": "must be <=",
    "prefix": "must begin with one of",
    "suffix": "must end with one of",
    "contains_any": "must contain one of",
    "contains_all": "must contain all of",
}


@dataclass(frozen=True, slots=True)
class Predicate:
    """One condition on one attribute. `operand` is a tuple, but for the ordered operators and `present` one value."""

    attribute: str
    operator: Operator
    operand: Any

    def words(self) -> str:
        """Describe the condition, without the value of a context."""
        if self.operator == "present":
            return "must be present" if self.operand else "must be absent"
        operands = self.operand if isinstance(self.operand, tuple) else (self.operand,)
        phrase = "must be" if self.operator == "in" and len(operands) == 1 else _PHRASES[self.operator]
        return f"{phrase} {', '.join(map(json_text, operands))}"


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Alternatives: at least one conjunction must hold."""

    alternatives: tuple[Conjunction, ...]


Conjunction = tuple[Predicate | AnyOf, ...]
Row = tuple[Predicate, ...]


def comparable(kind: AttributeType, value: Any) -> Any:
    """Return the value in the form that compares: a version as its sort key, anything else as it is."""
    return version_key(value) if kind == "version" else value


def holds(operator: str, operand: Any, value: Any) -> bool:
    """Return whether a predicate holds for a present value; both sides are `comparable`."""
    return bool(_HOLDS[operator](operand, value))


def comparable_operand(kind: AttributeType, predicate: Predicate) -> Any:
    """Return the operand of a predicate in the form that compares."""
    if kind != "version" or predicate.operator == "present":
        return predicate.operand
    if predicate.operator in ORDERED:
        return version_key(predicate.operand)
    return tuple(version_key(value) for value in predicate.operand)


def row_count(conjunction: Conjunction) -> int:
    """Count the rows that `rows` yields."""
    count = 1
    for term in conjunction:
        if isinstance(term, AnyOf):
            count *= sum(row_count(alternative) for alternative in term.alternatives)
    return count


def rows(conjunction: Conjunction) -> Iterator[Row]:
    """Yield the disjunctive normal form: conjunctions of predicates alone, of which at least one must hold."""
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
