"""The rules of an objective in two revisions as one table of rows, with the masks that values select.

A rule that matches the same contexts in both revisions has its rows once. A row's bit in a mask is its place: the first row has the
lowest bit, so that a mask without the rows below a certain match is short.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, Final

from tidegate.errors import ContextError
from tidegate.rules.compare.alignment import Pair, act_alike, aligned
from tidegate.rules.compare.elements import Need, Ways, taken_apart
from tidegate.rules.compare.revision import Side
from tidegate.rules.conditions import Predicate, from_json, rows
from tidegate.rules.contract import Attribute
from tidegate.rules.dimensions import Dimension, check
from tidegate.rules.indexing import dimension, interval_pieces
from tidegate.rules.masks import PieceTable, bits

OLD, NEW = 0, 1
REFUSED_BY: Final = (1, 2)
"""The flags of a context that the old and the new revision refuse."""


class _ASet:
    """Stands for a set whose elements are not known yet."""


A_SET: Final = _ASet()


class Joint:
    """The rows of two revisions of an objective.

    Attributes:
        sides: the old and the new revision.
        pairs: the places of each row's rule in both (None: not there).
        of: the rows of the old and of the new revision, as masks.
        sampled: the `set` attributes whose conditions cannot be taken apart.
    """

    def __init__(self, old: Side, new: Side) -> None:
        self.sides = (old, new)
        pairs = aligned(old, new)
        written = _written(pairs, old, new)
        self._predicates = _predicates(pairs, written)
        table, self.sampled = _apart(written, pairs, old, new)
        self.pairs: list[Pair] = [pairs[number] for number, _ in table]
        self._ways = [ways for _, ways in table]
        self.count = len(table)
        self.all_rows = (1 << self.count) - 1
        self.of = tuple(
            self.rows(place for place, pair in enumerate(self.pairs) if pair[side] is not None) for side in (OLD, NEW)
        )
        self._dimensions: dict[tuple[int, str], Dimension | None] = {}

    def rows(self, places: Iterable[int]) -> int:
        """The mask of rows by their places."""
        return bits((self.count - 1 - place for place in places), self.count)

    @cached_property
    def changing(self) -> int:
        """The rows that only one of the revisions has, or that do something else in the other."""
        differing = [row for row, pair in enumerate(self.pairs) if not self._act_alike(*pair)]
        return self.rows(differing)

    def _act_alike(self, was: int | None, now: int | None) -> bool:
        return was is not None and now is not None and act_alike(self.sides[OLD], was, self.sides[NEW], now)

    def body(self, row: int) -> Mapping[str, Any]:
        """The rule of a row, as a bundle has it; of one in both revisions, what the old one has. Both match alike."""
        old, new = self.pairs[row]
        return self.sides[OLD].rules[old] if old is not None else self.sides[NEW].rules[new or 0]

    def key_of(self, row: int) -> tuple[str, ...]:
        """The attributes that the choice of a row's rule may hash, in either revision."""
        keys = (side.key_of(rule) for side, rule in zip(self.sides, self.pairs[row], strict=True) if rule is not None)
        return tuple(dict.fromkeys(name for key in keys for name in key))

    def declared(self, name: str) -> list[tuple[int, Attribute]]:
        """The declarations of an attribute, by side."""
        found = ((number, side.objective.attributes.get(name)) for number, side in enumerate(self.sides))
        return [(number, attribute) for number, attribute in found if attribute is not None]

    def predicates(self, name: str, side: int) -> list[Predicate]:
        """Every distinct condition of one revision on an attribute."""
        return list(self._predicates[side].get(name, ()))

    @cached_property
    def looking(self) -> Mapping[str, int]:
        """The rows with conditions on each attribute that is not taken apart."""
        places: dict[str, list[int]] = {}
        for place, ways in enumerate(self._ways):
            for name in {term.attribute for term in ways.terms}:
                places.setdefault(name, []).append(place)
        return {name: self.rows(each) for name, each in places.items()}

    @cached_property
    def needing(self) -> Mapping[Need, int]:
        """The rows that need each presence, absence or element of a set."""
        places: dict[Need, list[int]] = {}
        for place, ways in enumerate(self._ways):
            for need in ways.needs:
                places.setdefault(need, []).append(place)
        return {need: self.rows(each) for need, each in places.items()}

    @cached_property
    def elements(self) -> Mapping[str, Mapping[str, int]]:
        """The rows that need each element of each `set` attribute."""
        found: dict[str, dict[str, int]] = {}
        for (name, element), needing in self.needing.items():
            if isinstance(element, str):
                found.setdefault(name, {})[element] = needing
        return found

    def mask(self, name: str, value: Any) -> tuple[int, int]:
        """The rows that a value (None: absence) of an attribute leaves, and the flags of the revisions that refuse it."""
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
            return self._mask_of_set(name, frozenset(value))
        found = self._dimension(side, attribute)
        if found is None:
            return self.all_rows
        return found.absent if value is None else found.mask(value)

    def _mask_of_set(self, name: str, value: frozenset[str]) -> int:
        lacking = self.needing.get((name, False), 0)
        for element, needing in self.elements.get(name, {}).items():
            if element not in value:
                lacking |= needing
        return self.all_rows & ~lacking

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
            self.count - 1 - row: [_bounds(*self.body(row)["active"])]
            for row in range(self.count)
            if "active" in self.body(row)
        }
        return PieceTable(interval_pieces(windows, self.count), self.count) if windows else None

    def active(self, at: float) -> int:
        """The rows whose time window holds at a moment in Unix seconds."""
        return self.all_rows if self._windows is None else self._windows.get(at)

    def experiments(self, allocate: str) -> dict[int, Mapping[str, Any]]:
        """The experiments that are allocated so, by row."""
        found = {row: self.body(row).get("experiment", {}) for row in range(self.count)}
        return {row: experiment for row, experiment in found.items() if experiment.get("allocate") == allocate}


Table = list[tuple[int, Ways]]
"""Rows of conditions, each with the number of its rule among the aligned ones."""


def _written(pairs: list[Pair], old: Side, new: Side) -> Table:
    """The rows of every rule as its author wrote them."""
    table: Table = []
    for number, (was, now) in enumerate(pairs):
        body = old.rules[was] if was is not None else new.rules[now or 0]
        table += [(number, Ways(row)) for row in rows(from_json(body["when"]))]
    return table


def _predicates(pairs: list[Pair], table: Table) -> tuple[dict[str, dict[Predicate, None]], ...]:
    """Every distinct condition of each side, by attribute."""
    found: tuple[dict[str, dict[Predicate, None]], ...] = ({}, {})
    for number, ways in table:
        for side in (OLD, NEW):
            if pairs[number][side] is not None:
                for term in ways.terms:
                    found[side].setdefault(term.attribute, {})[term] = None
    return found


def _apart(table: Table, pairs: list[Pair], old: Side, new: Side) -> tuple[Table, frozenset[str]]:
    """The rows with the conditions on sets taken apart, and the attributes for which they would be too many."""
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
            apart = taken_apart(mine, attribute)
            if apart is None:
                sampled.add(name)
                break
            made = sorted([*apart, *others], key=lambda row: row[0])
        else:
            table = made
    return table, frozenset(sampled)


def _bounds(start: float | None, end: float | None) -> tuple[float, float]:
    return (float("-inf") if start is None else start, float("inf") if end is None else end)
