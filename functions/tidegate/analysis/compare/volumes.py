"""Exact shares by the volumes of boxes, where the walk would take too long.

A row of conditions is a box: on every axis, the cases that it allows. What decides is what the boxes above it leave of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tidegate.analysis.compare.axes import Axes
from tidegate.analysis.compare.axis import ABSENT, Effect, Known, by_weight
from tidegate.analysis.compare.boxes import Box, BoxCounter, Budget, Grid, TooMuchError, grid_of, within
from tidegate.analysis.compare.joint import NEW, OLD
from tidegate.analysis.compare.space import Leaf, State
from tidegate.analysis.space.bits import lowest, members

MOST_PARTS = 64
"""Most combinations of sticky attributes and allocations that are counted one by one."""


@dataclass(frozen=True, slots=True)
class Counted:
    """The weight of every leaf at which another rule, or a changed one, decides in the new revision, and of every other
    leaf; None: counting these takes more than it may."""

    changing: Mapping[Leaf, int]
    staying: Mapping[Leaf, int] | None


@dataclass(frozen=True, slots=True)
class Drawn:
    """The number of draws of each leaf, from the boxes of the changed rows, whose total weight is `whole`."""

    counts: Mapping[Leaf, int]
    whole: int


class Volumes:
    def __init__(self, axes: Axes, start: State, budget: int) -> None:
        """Prepare; `budget` is how many comparisons of a box with a region may be made.

        Raises:
            TooMuchError: the space is not a product of few parts, or has too many cases.
        """
        self._axes, self._joint = axes, axes.joint
        if any(axis.may_refuse or axis.cases is None for axis in axes.space.axes):
            raise TooMuchError
        shared = Budget(budget)
        self._parts = [_Part(shared, axes, start, known) for known in _known(axes)]

    def count(self) -> Counted:
        """Count the weights of all leaves.

        Raises:
            TooMuchError: counting what changes takes more than it may.
        """
        changing: dict[Leaf, int] = {}
        staying: dict[Leaf, int] = {}
        counted = [0] * len(self._parts)
        for number, part in enumerate(self._parts):
            for was, now, weight in part.changing():
                counted[number] += weight
                self._add(changing, part, was, now, weight)
        needs_rest = [part.last is not None and bool(self._joint.changing >> part.last & 1) for part in self._parts]
        try:
            for number, part in enumerate(self._parts):
                for was, now, weight in part.staying():
                    counted[number] += weight
                    self._add(staying, part, was, now, weight)
        except TooMuchError:
            if any(needs_rest):
                raise
            return Counted(changing, None)
        for part, is_changing, weight in zip(self._parts, needs_rest, counted, strict=True):
            if part.last is not None:
                self._add(changing if is_changing else staying, part, part.last, part.last, part.volume - weight)
        return Counted(changing, staying)

    def drawn(self, size: int, chance: random.Random) -> Drawn:
        """Estimate the weights of the leaves at which something may change: contexts are drawn from the boxes of the changed
        rows alone, which are a small part of all where few rows change, or rows of many attributes do."""
        strata = {(number, row): weight for number, part in enumerate(self._parts) for row, weight in part.strata()}
        whole = sum(strata.values())
        found: dict[Leaf, int] = {}
        if whole:
            pick = by_weight(strata)
            for _ in range(size):
                number, row = pick(chance)
                part = self._parts[number]
                pair = part.draw(row, chance)
                if pair is not None:
                    self._add(found, part, *pair, 1)
        return Drawn(found, whole)

    def _add(self, found: dict[Leaf, int], part: _Part, was: int, now: int, weight: int) -> None:
        if weight:
            leaf = self._axes.space.tidied((was, now, *part.known))
            found[leaf] = found.get(leaf, 0) + weight


def _known(axes: Axes) -> list[Known]:
    """Return every combination of sticky attributes and allocated cells that cases produce."""
    found: list[Known] = [((ABSENT,) * len(axes.keys), (None,) * len(axes.cells))]
    for axis in axes.space.axes:
        if axis.key is None and axis.cell is None:
            continue
        assert axis.cases is not None
        # Only the axes of layers depend on the sticky attributes.
        given = dict.fromkeys((effect.marker, effect.cell) for _, effect, _ in axis.cases(()).of(0))
        effects = [Effect(0, marker, cell) for marker, cell in given]
        if len(found) * len(effects) > MOST_PARTS:
            raise TooMuchError
        found = [axis.known_after(effect, *known) for known in found for effect in effects]
    return found


class _Part:
    """The contexts with the same sticky attributes and allocated cells."""

    def __init__(self, budget: Budget, axes: Axes, start: State, known: Known) -> None:
        self.known, self._budget, self._joint = known, budget, axes.joint
        self._rows, self._factor = start[1], 1
        self._grids: list[Grid] = []
        for axis in axes.space.axes:
            assert axis.cases is not None
            cases: dict[int, int] = {}
            for mask, effect, weight in axis.cases(known[0]).of(start[1]):
                if axis.key is not None and effect.marker is not None and effect.marker != known[0][axis.key]:
                    continue
                if axis.cell is not None and effect.cell != known[1][axis.cell]:
                    continue
                cases[mask] = cases.get(mask, 0) + weight
            if len(cases) > 1:
                self._grids.append(grid_of(cases, start[1]))
            else:
                for mask, weight in cases.items():
                    self._rows, self._factor = self._rows & mask, self._factor * weight
                if not cases:
                    self._factor = 0
        self._counter = BoxCounter(self._grids, budget)
        self._full = [(1 << len(grid.masks)) - 1 for grid in self._grids]
        self._boxes: dict[int, Box | None] = {}
        self.volume = self._weight({})
        both = self._joint.of[OLD] & self._joint.of[NEW] & self._rows
        self.last = next((row for row in members(both) if self._box(row) == {}), None)
        """The first row of both revisions that matches everything: what no other pair gets is its own."""

    def changing(self) -> Iterator[tuple[int, int, int]]:
        """Yield the changing pairs of (old row, new row), -1: none, and their weights."""
        of_old, of_new = self._joint.of[OLD] & self._rows, self._joint.of[NEW] & self._rows
        both = of_old & of_new
        rows, budget = list(self._reached(both & self._joint.changing)), self._budget.left
        for done, row in enumerate(rows, 1):
            yield row, row, self._left(self._box(row), _above(of_old | of_new, row))
            used = budget - self._budget.left
            # The first rows have few above them: a count that is far over budget at a quarter does not recover.
            if 4 * used > budget and used * len(rows) > 2 * budget * done:
                raise TooMuchError
        for mine, others, partners in ((of_old, of_new, of_new), (of_new, of_old, both)):
            # A pair of rows that one revision alone has belongs to the old one's row.
            for row in self._reached(mine & ~both):
                box, above = self._box(row), _above(mine, row)
                for other in members(self._touching(box) & partners & ~_above(both, row)):
                    left = self._left(within(box, self._box(other)), above | _above(others, other))
                    yield (row, other, left) if mine is of_old else (other, row, left)
                if self.last is None:
                    left = self._left(box, above | others)
                    yield (row, -1, left) if mine is of_old else (-1, row, left)

    def staying(self) -> Iterator[tuple[int, int, int]]:
        """Yield the other pairs: rows that both revisions have, and contexts that no row of either matches."""
        rows = (self._joint.of[OLD] | self._joint.of[NEW]) & self._rows
        for row in self._reached(self._joint.of[OLD] & self._joint.of[NEW] & self._rows & ~self._joint.changing):
            yield row, row, self._left(self._box(row), _above(rows, row))
        if self.last is None:
            yield -1, -1, self._left({}, rows)

    def strata(self) -> Iterator[tuple[int, int]]:
        """Yield the rows at which something may change, and the weights of their boxes."""
        of_old, of_new = self._joint.of[OLD] & self._rows, self._joint.of[NEW] & self._rows
        for row in self._reached(of_old & of_new & self._joint.changing | of_old ^ of_new):
            box = self._box(row)
            if box is not None:
                yield row, self._weight(box)
        if self.last is not None and self._joint.changing >> self.last & 1:
            yield self.last, self.volume

    def draw(self, row: int, chance: random.Random) -> tuple[int, int] | None:
        """Return the rows that decide a context drawn from the box of a row; None: it is another row's share."""
        box, rows = self._box(row) or {}, self._rows
        for axis, grid in enumerate(self._grids):
            rows &= grid.masks[grid.draw(box.get(axis, self._full[axis]), chance)]
        was, now = (lowest(mine) for mine in (rows & of for of in self._joint.of))
        both = self._joint.of[OLD] & self._joint.of[NEW]
        # A pair belongs to the row that one revision alone has, the old one's first.
        owner = was if was >= 0 and not both >> was & 1 else now
        return (was, now) if owner == row else None

    def _reached(self, rows: int) -> Iterator[int]:
        """Return the rows of a mask above the one that matches everything."""
        return members(rows if self.last is None else _above(rows, self.last))

    def _box(self, row: int) -> Box | None:
        """Return the box of a row; None if it is empty."""
        if row not in self._boxes:
            box = {axis: grid.allowed[row] for axis, grid in enumerate(self._grids) if row in grid.allowed}
            self._boxes[row] = box if all(box.values()) else None
        return self._boxes[row]

    def _weight(self, box: Box) -> int:
        weight = self._factor
        for axis, grid in enumerate(self._grids):
            weight *= grid.weight(box.get(axis, self._full[axis]))
        return weight

    def _touching(self, region: Box | None) -> int:
        """Return the rows whose boxes may meet a region."""
        rows = 0 if region is None else self._rows
        for axis, cases in (region or {}).items():
            rows &= self._grids[axis].rows(cases)
        return rows

    def _left(self, region: Box | None, above: int) -> int:
        """Return the weight of a region outside the rows of a mask."""
        if region is None or not self._factor:
            return 0
        rows = self._touching(region) & above
        self._budget.left -= rows.bit_count()
        self._budget.check()
        boxes = [box for row in members(rows) if (box := self._box(row)) is not None]
        return self._factor * self._counter.left(region, boxes)


def _above(rows: int, row: int) -> int:
    """Return the rows of a mask that come before a row."""
    return rows & ((1 << row) - 1)
