"""Brings a rule's `when` into normal form, checking each condition against its attribute's type and domain."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tidegate.rules.conditions import AFFIX, OPERATORS, ORDERED, AnyOf, Conjunction, Operator, Predicate
from tidegate.rules.contract import Attribute
from tidegate.rules.language import Operators, When
from tidegate.rules.shape import Report, did_you_mean
from tidegate.rules.shape_words import shown, why
from tidegate.rules.source import Location
from tidegate.rules.values import EXPECTED, accepts, domain_words, within

_ORDER: dict[str, int] = {name: position for position, name in enumerate(Operators.model_fields)}


def normal_when(
    when: When | None, attributes: Mapping[str, Attribute], declared: Collection[str], at: Location, report: Report
) -> Conjunction:
    """The conjunction of a `when`: predicates sorted by attribute, then alternatives as written.

    Args:
        when: the conditions, of sound shape.
        attributes: the sound attributes of the objective.
        declared: every attribute's name, also of those that are reported as unsound already.
        at: where `when` stands.
        report: takes what is wrong.
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
    """A number that is whole as an integer, so that 1.0 and 1 are written alike; anything else as it is."""
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
            values = condition if isinstance(condition, list) else [condition]
            return self._predicate("in", values, self._at, isinstance(condition, list))
        given = {
            field.alias or name: value
            for name, field in Operators.model_fields.items()
            if (value := getattr(condition, name)) is not None
        }
        if not given and self._report.is_whole(self._at):
            self._report(self._at, "the condition has no operator", f"use one of {', '.join(self._operators())}")
        if given.get("present") is False and len(given) > 1:
            others = ", ".join(name for name in given if name != "present")
            hint = "an absent attribute matches nothing else: keep one of them"
            what = (
                f"`present: false` of {self._attribute.name!r} is combined with {others}, so the rule can never match"
            )
            self._report(self._at, what, hint)
            return []
        found: list[Predicate] = []
        for name in given:
            place = (*self._at, name)
            if name not in OPERATORS[self._attribute.type]:
                what = f"operator {name!r} does not fit attribute {self._attribute.name!r} ({self._attribute.type})"
                self._report(place, what, f"use one of {', '.join(self._operators())}")
                continue
            value = given[name]
            listed = isinstance(value, list)
            found += self._predicate(name, value if listed else [value], place, listed)  # type: ignore[arg-type]
        return found

    def _operators(self) -> list[str]:
        return sorted(OPERATORS[self._attribute.type], key=lambda name: _ORDER.get(name, _ORDER.get(f"{name}_", 99)))

    def _predicate(self, operator: Operator, values: list[Any], place: Location, listed: bool) -> list[Predicate]:
        if operator == "present":
            return [Predicate(self._attribute.name, operator, values[0])]
        sound = [
            normal_number(value)
            for index, value in enumerate(values)
            if self._fits(operator, value, (*place, index) if listed else place)
        ]
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
