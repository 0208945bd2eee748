"""Reports conditions that decide nothing beside the others of their rule.

Conditions are compared in pairs, with comparable operands: versions as their keys, lists as frozen sets. That several conditions
together imply or refute one is not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tidegate.language.documents import Operators, When
from tidegate.language.shape import Note
from tidegate.language.source import Location
from tidegate.rules.conditions import (
    AFFIX,
    ORDERED,
    AnyOf,
    Conjunction,
    Predicate,
    comparable,
    comparable_operand,
    holds,
)
from tidegate.rules.contract import Attribute
from tidegate.rules.values import json_text

STRICT = frozenset({"gt", "lt"})
MOST_COMPARED = 100
"""Up to this many alternatives are compared in pairs; more are only checked for duplicates."""


def of_when(when: When, terms: Conjunction, attributes: Mapping[str, Attribute], at: Location, note: Note) -> None:
    """Note conditions of a rule that decide nothing; `terms` is the rule's `when` in normal form."""
    if not terms:
        note(at, "it has no condition, so the rule matches every request", "delete it, or write a condition")
    _when(when, with_comparable(terms, attributes), (), attributes, at, note)


def _when(
    when: When,
    terms: Conjunction,
    around: Sequence[Predicate],
    attributes: Mapping[str, Attribute],
    at: Location,
    note: Note,
) -> None:
    """`around` are conditions that hold wherever `when` is asked."""
    conditions = when.model_extra or {}
    own = [term for term in terms if isinstance(term, Predicate)]
    for name, condition in conditions.items():
        _spare(attributes[name], condition, [term for term in own if term.attribute == name], around, (*at, name), note)
        if isinstance(condition, Operators):
            _operators(attributes[name], condition, (*at, name), note)
        else:
            _list(attributes[name], "in", condition, (*at, name), note)
    for term in terms:
        if isinstance(term, AnyOf):
            _alternatives(when.any_of or [], term, [*around, *own], attributes, (*at, "any_of"), note)


def _alternatives(
    written: Sequence[When],
    term: AnyOf,
    around: Sequence[Predicate],
    attributes: Mapping[str, Attribute],
    at: Location,
    note: Note,
) -> None:
    others = set()
    for index, (alternative, made) in enumerate(zip(written, term.alternatives, strict=True)):
        place: Location = (*at, index)
        if not made:
            note(place, "an alternative without a condition always holds, so the others decide nothing", "delete it")
        elif _always(made, around):
            message = "the conditions around the alternatives already imply it, so no alternative decides anything"
            note(place, message, "delete `any_of`, or correct the condition")
        elif _never(made, around):
            note(
                place,
                "it contradicts itself or the conditions around it, so it never holds",
                "delete it, or correct it",
            )
        elif made in others or _covered(term.alternatives, index, around):
            note(place, "another alternative holds wherever this one does", "delete this one, or correct it")
        else:
            _when(alternative, made, around, attributes, place, note)
        others.add(made)


def _covered(alternatives: Sequence[Conjunction], index: int, around: Sequence[Predicate]) -> bool:
    """Return whether an alternative adds nothing to another; of two that are alike in this, only the later one does not."""
    if len(alternatives) > MOST_COMPARED:
        return False

    def is_part(one: Conjunction, other: Conjunction) -> bool:
        return _always(other, [*around, *(term for term in one if isinstance(term, Predicate))])

    made = alternatives[index]
    return any(
        other and is_part(made, other) and (at < index or not is_part(other, made))
        for at, other in enumerate(alternatives)
        if at != index
    )


def _always(terms: Conjunction, around: Iterable[Predicate]) -> bool:
    return all(
        any(_always(each, around) for each in term.alternatives)
        if isinstance(term, AnyOf)
        else any(_is_beside(each, term) and implies(each, term) for each in around)
        for term in terms
    )


def _never(terms: Conjunction, around: Sequence[Predicate]) -> bool:
    beside = [*around, *(term for term in terms if isinstance(term, Predicate))]
    return any(
        all(_never(each, beside) for each in term.alternatives)
        if isinstance(term, AnyOf)
        else any(_is_beside(each, term) and refutes(each, term) for each in beside)
        for term in terms
    )


def _is_beside(one: Predicate, other: Predicate) -> bool:
    return one.attribute == other.attribute


def _spare(
    attribute: Attribute,
    condition: Any,
    own: Sequence[Predicate],
    around: Sequence[Predicate],
    at: Location,
    note: Note,
) -> None:
    """Note conditions on one attribute that others on it, beside or around them, imply."""
    outer = [each for each in around if each.attribute == attribute.name]
    for index, term in enumerate(own):
        # Of two that imply each other, the later one is kept.
        others = [each for j, each in enumerate(own) if j > index or (j < index and not implies(term, each))]
        place: Location = (*at, term.operator) if isinstance(condition, Operators) else at
        found = next((each for each in (*outer, *others) if implies(each, term)), None)
        if found is not None:
            where = "around" if found in outer else "beside"
            note(place, f"it holds wherever the condition `{found.operator}` {where} it does", "delete one of them")
        elif term.operator == "not":
            for position, value in enumerate(written := _as_list(condition.not_)):
                one = replace(term, operand=frozenset({comparable(attribute.type, value)}))
                if any(implies(each, one) for each in (*outer, *others)):
                    item = (*place, position) if written is condition.not_ else place
                    note(item, f"the conditions beside it exclude {json_text(value)!r} already", "delete it")


def _operators(attribute: Attribute, condition: Operators, at: Location, note: Note) -> None:
    given = condition.given()
    for operator, value in given.items():
        _list(attribute, operator, value, (*at, operator), note)
        if operator in ("prefix", "suffix"):
            is_present = attribute.required or attribute.default is not None or len(given) > 1
            _affixes(attribute, operator, _as_list(value), (*at, operator), note, is_present=is_present)
    if given.get("present") and len(given) == 1 and (attribute.required or attribute.default is not None):
        note((*at, "present"), f"attribute {attribute.name!r} is always present", "delete it")


def _list(attribute: Attribute, operator: str, value: Any, at: Location, note: Note) -> None:
    """Note values that are duplicated in a condition's list, and lists of all possible values."""
    values = _as_list(value)
    kind = "string" if attribute.type == "set" or operator in ("prefix", "suffix") else attribute.type
    keys = [comparable(kind, item) for item in values] if operator not in ("present", *ORDERED) else []
    twice(keys, values, at, note)
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
    """Return the shortest other affix that each of some begins with (ends with, where `from_end`), of those that have one."""
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


def twice(keys: Sequence[Any], written: Sequence[Any], at: Location, note: Note) -> None:
    for index in repeated(keys):
        note((*at, index), f"{json_text(written[index])!r} is in the list twice", "keep one")


def repeated(values: Iterable[Any]) -> list[int]:
    """Return the positions of values that occur earlier."""
    seen: set[Any] = set()
    found = []
    for index, value in enumerate(values):
        if value in seen:
            found.append(index)
        seen.add(value)
    return found


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def with_comparable(conjunction: Conjunction, attributes: Mapping[str, Attribute]) -> Conjunction:
    """Return a conjunction whose operands can be compared."""
    made: list[Predicate | AnyOf] = []
    for term in conjunction:
        if isinstance(term, AnyOf):
            made.append(AnyOf(tuple(with_comparable(each, attributes) for each in term.alternatives)))
        else:
            operand = comparable_operand("string" if term.operator in AFFIX else attributes[term.attribute].type, term)
            made.append(replace(term, operand=frozenset(operand) if isinstance(term.operand, tuple) else operand))
    return tuple(made)


def implies(given: Predicate, term: Predicate) -> bool:
    """Return whether every value that `given` accepts is one that `term` accepts."""
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
    """Return whether no value that `given` accepts is one that `term` accepts."""
    if "present" in (given.operator, term.operator):
        return {True, False} == {each.operator != "present" or each.operand for each in (given, term)}
    for one, other in ((given, term), (term, given)):
        if one.operator == "in":
            return not any(holds(other.operator, other.operand, value) for value in one.operand)
        if one.operator in ("gt", "gte") and other.operator in ("lt", "lte"):
            low, high = one.operand, other.operand
            return bool(low > high or (low == high and not STRICT.isdisjoint((one.operator, other.operator))))
    return False
