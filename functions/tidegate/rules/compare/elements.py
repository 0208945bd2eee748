"""Conditions on `set` attributes, taken apart: an element is in the set or not, independently of the others.

A row of conditions becomes several rows, one for each way to meet its conditions on a set: absent, or present with certain
elements in it. Each then needs nothing but that, so that the walk can ask for one element at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

from tidegate.rules.conditions import Predicate, Row, holds
from tidegate.rules.contract import Attribute

MOST_MORE_ROWS = 20_000
"""How many more rows a set attribute may make; beyond this it is sampled."""

Need = tuple[str, str | bool]
"""What a set attribute must be: (attribute, whether it is present), or (attribute, an element that is in it)."""


@dataclass(frozen=True, slots=True)
class Ways:
    """A row: its conditions on other attributes, and what its set attributes need."""

    terms: Row
    needs: frozenset[Need] = frozenset()


def taken_apart(rows: Sequence[tuple[int, Ways]], attribute: Attribute) -> list[tuple[int, Ways]] | None:
    """The rows with an attribute's conditions turned into needs; each row's number is kept.

    Returns:
        The rows, in order, or None where they are too many.
    """
    made: list[tuple[int, Ways]] = []
    for number, ways in rows:
        mine = [term for term in ways.terms if term.attribute == attribute.name]
        if not mine:
            made.append((number, ways))
            continue
        rest = tuple(term for term in ways.terms if term.attribute != attribute.name)
        if _count(mine) > MOST_MORE_ROWS:
            return None
        made += [(number, Ways(rest, ways.needs | needs)) for needs in _alternatives(mine, attribute)]
        if len(made) > len(rows) + MOST_MORE_ROWS:
            return None
    return made


def _count(terms: Iterable[Predicate]) -> int:
    count = 1
    for term in terms:
        if term.operator == "contains_any":
            count *= len(term.operand)
    return count


def _alternatives(terms: Sequence[Predicate], attribute: Attribute) -> list[frozenset[Need]]:
    found: list[frozenset[Need]] = []
    name, default = attribute.name, attribute.default
    if default is None:
        absent = all(term.operator == "present" and not term.operand for term in terms)
    else:
        absent = not any(_wants_absence(term) for term in terms) and all(
            holds(term.operator, term.operand, default) for term in terms
        )
    if absent:
        found.append(frozenset({(name, False)}))
    if any(_wants_absence(term) for term in terms):
        return found
    wanted = {(name, element) for term in terms if term.operator == "contains_all" for element in term.operand}
    choices = [term.operand for term in terms if term.operator == "contains_any"]
    chosen = (frozenset({(name, True), *wanted, *((name, each) for each in one)}) for one in product(*choices))
    found += dict.fromkeys(chosen)
    return found


def _wants_absence(term: Predicate) -> bool:
    return term.operator == "present" and not term.operand
