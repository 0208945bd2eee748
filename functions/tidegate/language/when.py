"""Brings a rule's `when` into normal form, checking each condition against its attribute's type and domain."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tidegate.language.documents import OPERATOR_ORDER, Operators, When
from tidegate.language.shape import Report
from tidegate.language.shape_words import shown, why
from tidegate.language.source import Location, items_at
from tidegate.language.words import did_you_mean
from tidegate.rules.conditions import AFFIX, OPERATORS, ORDERED, AnyOf, Conjunction, Operator, Predicate
from tidegate.rules.contract import Attribute
from tidegate.rules.values import EXPECTED, accepts, domain_words, within


def normal_when(
    when: When | None, attributes: Mapping[str, Attribute], declared: Collection[str], at: Location, report: Report
) -> Conjunction:
    """Return the conjunction of a `when` at a place: predicates sorted by attribute, then alternatives as written.

    `attributes` are the sound ones; `declared` also has the names of those that are reported as unsound already.
    """
    if when is None:
        return ()
    predicates: list[Predicate] = []
    for name, condition in sorted((when.model_extra or {}).items()):
        place = (*at, name)
        attribute = attributes.get(name)
        if attribute is not None:
            predicates += _Normal(attribute, place, report).predicates(condition)
        elif name not in declared:
            hint = did_you_mean(name, {*attributes, "any_of"}, "attribute")
            report(place, f"the condition is on the undeclared attribute {name!r}", f"declare it in context; {hint}")
    alternatives = tuple(
        normal_when(item, attributes, declared, (*at, "any_of", index), report)
        for index, item in enumerate(when.any_of or ())
    )
    return (*predicates, AnyOf(alternatives)) if alternatives else tuple(predicates)


def normal_number(value: Any) -> Any:
    """Return a number that is whole as an integer, so that 1.0 and 1 are written alike; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


class _Normal:
    """One condition on one attribute."""

    def __init__(self, attribute: Attribute, at: Location, report: Report) -> None:
        self._attribute, self._at, self._report = attribute, at, report

    def predicates(self, condition: Any) -> list[Predicate]:
        if not isinstance(condition, Operators):
            if self._attribute.type == "set":
                hint = "write {contains_any: […]} or {contains_all: […]}"
                self._report(self._at, f"attribute {self._attribute.name!r} is a set and cannot equal a value", hint)
                return []
            return self._predicate("in", condition, self._at)
        given = condition.given()
        if not given and self._report.is_whole(self._at):
            self._report(self._at, "the condition has no operator", f"use one of {', '.join(self._operators())}")
        if given.get("present") is False and len(given) > 1:
            others = ", ".join(name for name in given if name != "present")
            hint = "an absent attribute matches nothing else: keep one of them"
            name = self._attribute.name
            what = f"`present: false` of {name!r} is combined with {others}, so the rule can never match"
            self._report(self._at, what, hint)
            return []
        found: list[Predicate] = []
        for name, value in given.items():
            place = (*self._at, name)
            if name not in OPERATORS[self._attribute.type]:
                what = f"operator {name!r} does not fit attribute {self._attribute.name!r} ({self._attribute.type})"
                self._report(place, what, f"use one of {', '.join(self._operators())}")
                continue
            found += self._predicate(name, value, place)  # type: ignore[arg-type]
        return found

    def _operators(self) -> list[str]:
        return sorted(OPERATORS[self._attribute.type], key=OPERATOR_ORDER.index)

    def _predicate(self, operator: Operator, value: Any, place: Location) -> list[Predicate]:
        if operator == "present":
            return [Predicate(self._attribute.name, operator, value)]
        sound = [normal_number(each) for at, each in items_at(value, place) if self._fits(operator, each, at)]
        if not sound:
            return []
        if operator in ORDERED:
            return [Predicate(self._attribute.name, operator, sound[0])]
        return [Predicate(self._attribute.name, operator, tuple(sorted(set(sound))))]

    def _fits(self, operator: Operator, value: Any, place: Location) -> bool:
        attribute = self._attribute
        kind = "string" if attribute.type == "set" or operator in AFFIX else attribute.type
        if not accepts(kind, value):
            what = f"{shown(value)} cannot be compared with attribute {attribute.name!r} of type {attribute.type}"
            self._report(place, what, f"write {EXPECTED[kind]}{why(value, EXPECTED[kind])}")
            return False
        if operator in ("in", "not", "contains_any", "contains_all") and not within(
            attribute, [value] if attribute.type == "set" else value
        ):
            what = f"{shown(value)} is not among the values of attribute {attribute.name!r}"
            self._report(place, what, f"use {domain_words(attribute)}, or add it to the attribute's values")
            return False
        return True
