"""The rules of an objective in two revisions as one table of rows, with the masks that values select.

A rule that matches the same contexts in both revisions has its rows once. A row's bit in a mask is its place: the first row has the
lowest bit, so that a mask without the rows below a certain match is short.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal, TypeVar

from tidegate.analysis.compare.alignment import Pair, act_alike, aligned
from tidegate.analysis.compare.revision import Side
from tidegate.analysis.space.bits import bitset
from tidegate.analysis.space.values import allows_absence, smallest_sets, wants_absence
from tidegate.errors import ContextError
from tidegate.language.indexing import bounds, dimension, interval_pieces
from tidegate.rules.bundle.rule import Experiment, Rule
from tidegate.rules.conditions import Predicate, Row, holds, rows
from tidegate.rules.contract import Attribute
from tidegate.rules.dimensions import Dimension, check
from tidegate.rules.masks import PieceTable

T = TypeVar("T")

OLD, NEW = 0, 1
REFUSED_BY: Final = (1, 2)
"""The flags of a context that the old and the new revision refuse."""


MOST_MORE_ROWS = 20_000
"""Most rows that a set attribute may add; with more it is sampled."""

Need = tuple[str, str | bool]
"""A condition on a set attribute: (attribute, whether it is present), or (attribute, an element that is in it)."""


@dataclass(frozen=True, slots=True)
class Ways:
    """A row: its conditions on other attributes, and what its set attributes need."""

    terms: Row
    needs: frozenset[Need] = frozenset()


A_SET: Final = object()
"""A set whose elements are not known yet."""


class Joint:
    """The rows of two revisions of an objective.

    `pairs` are the places of each row's rule in both (None: not there), `of` the rows of each revision as masks, `sampled` the
    `set` attributes whose conditions cannot be taken apart.
    """

    def __init__(self, old: Side, new: Side) -> None:
        self.sides = (old, new)
        pairs = aligned(old, new)
        written = [
            (number, Ways(row))
            for number, (was, now) in enumerate(pairs)
            for row in rows((old.rules[was] if was is not None else new.rules[now or 0]).when)
        ]
        self._predicates = _predicates(pairs, written)
        table, self.sampled = _apart(written, pairs, old, new)
        self.pairs: list[Pair] = [pairs[number] for number, _ in table]
        self._ways = [ways for _, ways in table]
        self.count = len(table)
        self.all_rows = (1 << self.count) - 1
        self.of = tuple(
            bitset(place for place, pair in enumerate(self.pairs) if pair[side] is not None) for side in (OLD, NEW)
        )
        self._dimensions: dict[tuple[int, str], Dimension | None] = {}

    @cached_property
    def changing(self) -> int:
        """The rows that only one revision has, or that do something else in the other one."""
        old, new = self.sides
        return bitset(
            row
            for row, (was, now) in enumerate(self.pairs)
            if was is None or now is None or not act_alike(old, was, new, now)
        )

    def rule(self, row: int) -> Rule:
        """Return the rule of a row, the old one's if both revisions have it: both match the same contexts."""
        old, new = self.pairs[row]
        return self.sides[OLD].rules[old] if old is not None else self.sides[NEW].rules[new or 0]

    def key_of(self, row: int) -> tuple[str, ...]:
        """Return the attributes that the sticky choice of a row's rule may hash, in either revision."""
        keys = (side.key_of(rule) for side, rule in zip(self.sides, self.pairs[row], strict=True) if rule is not None)
        return tuple(dict.fromkeys(name for key in keys for name in key))

    def declared(self, name: str) -> list[tuple[int, Attribute]]:
        found = ((number, side.objective.attributes.get(name)) for number, side in enumerate(self.sides))
        return [(number, attribute) for number, attribute in found if attribute is not None]

    def predicates(self, name: str, side: int) -> list[Predicate]:
        return list(self._predicates[side].get(name, ()))

    @cached_property
    def looking(self) -> Mapping[str, int]:
        """The rows with conditions on each attribute that is not taken apart."""
        return _places({term.attribute for term in ways.terms} for ways in self._ways)

    @cached_property
    def needing(self) -> Mapping[Need, int]:
        """The rows that need each presence, absence or element of a set."""
        return _places(ways.needs for ways in self._ways)

    @cached_property
    def elements(self) -> Mapping[str, Mapping[str, int]]:
        """The rows that need each element of each `set` attribute."""
        found: dict[str, dict[str, int]] = {}
        for (name, element), needing in self.needing.items():
            if isinstance(element, str):
                found.setdefault(name, {})[element] = needing
        return found

    def mask(self, name: str, value: Any) -> tuple[int, int]:
        """Return the rows that can match with a value (None: absence), and the flags of the revisions that refuse it."""
        left, refused = 0, 0
        for side in (OLD, NEW):
            mask = self._mask_of(side, name, value)
            if mask is None:
                refused |= REFUSED_BY[side]
            else:
                left |= mask & self.of[side]
        return left, refused

    def _mask_of(self, side: int, name: str, value: Any) -> int | None:
        attribute = self.sides[side].objective.attributes.get(name)
        if attribute is None:
            return self.all_rows
        is_apart = attribute.type == "set" and name not in self.sampled
        if value is A_SET:
            return self.all_rows & ~self.needing.get((name, False), 0) if is_apart else None
        if value is None and attribute.required:
            return None
        if value is None and is_apart:
            return self.all_rows & ~self.needing.get((name, True), 0)
        try:
            if value is not None:
                check(attribute, value)
        except ContextError:
            return None
        if is_apart:
            lacking = self.needing.get((name, False), 0)
            for element, needing in self.elements.get(name, {}).items():
                lacking |= 0 if element in value else needing
            return self.all_rows & ~lacking
        found = self._dimension(side, attribute)
        if found is None:
            return self.all_rows
        return found.absent if value is None else found.mask(value)

    def _dimension(self, side: int, attribute: Attribute) -> Dimension | None:
        key = (side, attribute.name)
        if key not in self._dimensions:
            if side == NEW and self.sides[OLD].objective.attributes.get(attribute.name) == attribute:
                self._dimensions[key] = self._dimension(OLD, attribute)
            else:
                is_both = self.sides[1 - side].objective.attributes.get(attribute.name) == attribute
                table = [
                    ways.terms if is_both or pair[side] is not None else ()
                    for pair, ways in zip(reversed(self.pairs), reversed(self._ways), strict=True)
                ]
                data = dimension(attribute, table)
                self._dimensions[key] = None if data is None else Dimension(attribute, data, self.count)
        return self._dimensions[key]

    @cached_property
    def _windows(self) -> PieceTable | None:
        windows = {
            self.count - 1 - row: [bounds(active)]
            for row in range(self.count)
            if (active := self.rule(row).active) is not None
        }
        return PieceTable(interval_pieces(windows, self.count), self.count) if windows else None

    def active(self, at: float) -> int:
        return self.all_rows if self._windows is None else self._windows.get(at)

    def experiments(self, allocate: Literal["layer", "caller"]) -> dict[int, Experiment]:
        found = ((row, self.rule(row).experiment_of(allocate)) for row in range(self.count))
        return {row: experiment for row, experiment in found if experiment is not None}


def _places(rows: Iterable[Iterable[T]]) -> dict[T, int]:
    """Return a mask of the rows for each key."""
    places: dict[T, list[int]] = {}
    for number, row in enumerate(rows):
        for each in row:
            places.setdefault(each, []).append(number)
    return {each: bitset(numbers) for each, numbers in places.items()}


Table = list[tuple[int, Ways]]
"""Rows of conditions, each with the number of its rule among the aligned ones."""


def _predicates(pairs: list[Pair], table: Table) -> tuple[dict[str, dict[Predicate, None]], ...]:
    found: tuple[dict[str, dict[Predicate, None]], ...] = ({}, {})
    for number, ways in table:
        for side in (OLD, NEW):
            if pairs[number][side] is not None:
                for term in ways.terms:
                    found[side].setdefault(term.attribute, {})[term] = None
    return found


def _apart(table: Table, pairs: list[Pair], old: Side, new: Side) -> tuple[Table, frozenset[str]]:
    """Return the rows with their conditions on sets split, and the attributes for which the rows would be too many."""
    sampled: set[str] = set()
    sides = (old.objective.attributes, new.objective.attributes)
    for name in sorted({name for side in sides for name, attribute in side.items() if attribute.type == "set"}):
        made = table
        for side, attributes in enumerate(sides):
            attribute = attributes.get(name)
            if attribute is None or attribute.type != "set":
                continue
            # A rule that is the same in both is read by the old declaration, which reads it alike.
            mine = [row for row in made if (pairs[row[0]][OLD] is None) == (side == NEW)]
            others = [row for row in made if (pairs[row[0]][OLD] is None) != (side == NEW)]
            apart = _taken_apart(mine, attribute)
            if apart is None:
                sampled.add(name)
                break
            made = sorted([*apart, *others], key=lambda row: row[0])
        else:
            table = made
    return table, frozenset(sampled)


def _taken_apart(rows: Table, attribute: Attribute) -> Table | None:
    """Return the rows with the conditions on a set turned into needs; None: they are too many.

    A row becomes several, one for each way to meet its conditions: absent, or present with certain elements in it. An
    element is in the set or not, independently of the others, so that the walk can ask for one element at a time.
    """
    made: Table = []
    for number, ways in rows:
        mine = [term for term in ways.terms if term.attribute == attribute.name]
        if not mine:
            made.append((number, ways))
            continue
        rest = tuple(term for term in ways.terms if term.attribute != attribute.name)
        alternatives = _alternatives(mine, attribute)
        if alternatives is None or len(made) > len(rows) + MOST_MORE_ROWS:
            return None
        made += [(number, Ways(rest, ways.needs | needs)) for needs in alternatives]
    return made


def _alternatives(terms: list[Predicate], attribute: Attribute) -> list[frozenset[Need]] | None:
    found: list[frozenset[Need]] = []
    name, default = attribute.name, attribute.default
    if allows_absence(terms) if default is None else all(holds(each.operator, each.operand, default) for each in terms):
        found.append(frozenset({(name, False)}))
    if wants_absence(terms):
        return found
    smallest = smallest_sets(terms, MOST_MORE_ROWS)
    if smallest is None:
        return None
    return found + [frozenset({(name, True), *((name, each) for each in elements)}) for elements in smallest]
