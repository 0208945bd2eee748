"""What one condition says about another on the same attribute, for advice about conditions that decide nothing.

Conditions here have comparable operands: versions as their keys, lists as frozen sets. Both functions compare pairs and
err on the side of False: that several conditions together imply or refute one is not found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tidegate.rules.conditions import AFFIX, ORDERED, AnyOf, Conjunction, Predicate, comparable_operand, holds
from tidegate.rules.contract import Attribute

STRICT = frozenset({"gt", "lt"})


def with_comparable(conjunction: Conjunction, attributes: Mapping[str, Attribute]) -> Conjunction:
    """A conjunction whose operands can be compared."""
    return tuple(
        AnyOf(tuple(with_comparable(each, attributes) for each in term.alternatives))
        if isinstance(term, AnyOf)
        else _comparable(term, attributes[term.attribute])
        for term in conjunction
    )


def _comparable(term: Predicate, attribute: Attribute) -> Predicate:
    operand = comparable_operand("string" if term.operator in AFFIX else attribute.type, term)
    return replace(term, operand=frozenset(operand) if isinstance(term.operand, tuple) else operand)


def implies(given: Predicate, term: Predicate) -> bool:
    """Whether every value that `given` accepts is one that `term` accepts."""
    (operator, operand), (asked, wanted) = (given.operator, given.operand), (term.operator, term.operand)
    if given == term:
        return True
    if operator == "present":
        return False
    if asked == "present":
        return bool(wanted)
    if operator == "in":
        return all(holds(asked, wanted, value) for value in operand)
    if asked == "not":
        return wanted <= operand if operator == "not" else not any(holds(operator, operand, each) for each in wanted)
    if operator in AFFIX:
        return asked == operator and all(holds(asked, wanted, value) for value in operand)
    if operator in ORDERED:
        if asked not in ORDERED or asked[0] != operator[0]:
            return False
        return holds(asked, wanted, operand) or (operand == wanted and operator in STRICT)
    if operator == "contains_all":
        return asked in ("contains_all", "contains_any") and holds(asked, wanted, operand)
    return operator == asked == "contains_any" and operand <= wanted


def refutes(given: Predicate, term: Predicate) -> bool:
    """Whether no value that `given` accepts is one that `term` accepts."""
    if "present" in (given.operator, term.operator):
        return {True, False} == {each.operator != "present" or each.operand for each in (given, term)}
    for one, other in ((given, term), (term, given)):
        if one.operator == "in":
            return not any(holds(other.operator, other.operand, value) for value in one.operand)
        if one.operator in ("gt", "gte") and other.operator in ("lt", "lte"):
            low, high = one.operand, other.operand
            return bool(low > high or (low == high and not STRICT.isdisjoint((one.operator, other.operator))))
    return False
