"""Counts how much of a region is outside some boxes, by removing one box after the other.

What is left without a box, less what is left *in* that box. Boxes of many attributes seldom meet, so this is cheap exactly
where opening one axis after the other is not. Boxes that look at different axes are independent, so that what they leave is
a product.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from operator import or_

from tidegate.analysis.compare.axis import by_weight, flips_of
from tidegate.analysis.space.bits import members

MOST_FLIPS = 4_000_000
"""Most ends of runs of cases that are stored, over all rows of an axis."""

Box = dict[int, int]
"""By axis, the cases that are allowed, as a bitset; axes without a restriction are left out."""

Region = list[int]
"""The cases of every axis, as bitsets."""


class TooMuchError(Exception):
    """Counting exceeds its budget."""


@dataclass(slots=True)
class Budget:
    """The number of comparisons of a box with a region that are left."""

    left: int

    def check(self) -> None:
        if self.left < 0:
            raise TooMuchError


class Grid:
    """The cases of one axis: the rows that each leaves (`masks`), and for the rows that not all leave which ones (`allowed`)."""

    def __init__(self, masks: Sequence[int], weights: Sequence[int], allowed: Mapping[int, int]) -> None:
        self.masks, self.allowed = masks, allowed
        self._weights, self._is_even = weights, set(weights) == {1}
        self._sum, self.rows, self._picker = cache(self._sum_of), cache(self._rows_of), cache(self._picker_of)

    def draw(self, cases: int, chance: random.Random) -> int:
        return self._picker(cases)(chance)

    def weight(self, cases: int) -> int:
        return cases.bit_count() if self._is_even else self._sum(cases)

    def _sum_of(self, cases: int) -> int:
        return sum(self._weights[place] for place in members(cases))

    def _rows_of(self, cases: int) -> int:
        """Return the rows that can match in any of some cases."""
        return reduce(or_, (self.masks[place] for place in members(cases)), 0)

    def _picker_of(self, cases: int) -> Callable[[random.Random], int]:
        return by_weight({place: self._weights[place] for place in members(cases)})


@dataclass(frozen=True, slots=True)
class BoxCounter:
    grids: Sequence[Grid]
    budget: Budget

    def left(self, region: Box, boxes: Iterable[Box]) -> int:
        """Return the weight of a region outside `boxes`.

        Raises:
            TooMuchError: the budget is spent.
        """
        full = [(1 << len(grid.masks)) - 1 for grid in self.grids]
        return self._count((1 << len(full)) - 1, _narrow(full, region), boxes)

    def _count(self, axes: int, region: Region, boxes: Iterable[Box]) -> int:
        """Return the volume of a region outside boxes, over the axes that the boxes restrict."""
        single: Box = {}
        while True:
            found = self._narrowed(region, boxes, single)
            if found is None:
                return 0
            boxes = found
            if not single:
                break
            region = list(region)
            for axis, inside in single.items():
                region[axis] &= ~inside
                if not region[axis]:
                    return 0
            single = {}
        volume = 1
        for group, together in independent(boxes):
            axes ^= group
            volume *= self._count_connected(group, region, together)
            if not volume:
                return 0
        for axis in members(axes):
            volume *= self.grids[axis].weight(region[axis])
        return volume

    def _narrowed(self, region: Region, boxes: Iterable[Box], single: Box) -> list[Box] | None:
        """Return the restrictions of boxes within a region; None if one box contains all of it.

        Those that restrict a single axis are united in `single` instead."""
        narrow = []
        for box in boxes:
            self.budget.left -= 1
            part = {}
            for axis, cases in box.items():
                here = region[axis]
                inside = cases & here
                if not inside:
                    break
                if inside != here:
                    part[axis] = inside
            else:
                if not part:
                    return None
                if len(part) == 1:
                    ((axis, inside),) = part.items()
                    single[axis] = single.get(axis, 0) | inside
                else:
                    narrow.append(part)
        self.budget.check()
        return narrow

    def _count_connected(self, axes: int, region: Region, boxes: list[Box]) -> int:
        """As `_count`, for boxes that restrict at least two axes each and are not independent of each other."""
        volume = 1
        for axis in members(axes):
            volume *= self.grids[axis].weight(region[axis])
        # Large boxes first: what they take of the later ones is not counted again.
        boxes.sort(key=len)
        for place, box in enumerate(boxes):
            volume -= self._count(axes, _narrow(region, box), boxes[:place])
            if not volume:
                return 0
        return volume


def _narrow(region: Region, box: Box) -> Region:
    narrowed = list(region)
    for axis, cases in box.items():
        narrowed[axis] = cases
    return narrowed


def grid_of(cases: Mapping[int, int], rows: int) -> Grid:
    """Return the grid of an axis: `cases` are the weights of the rows that each case leaves, of all `rows`.

    Raises:
        TooMuchError: more ends of runs of cases than may be noted.
    """
    masks, weights = list(cases), list(cases.values())
    ends = flips_of(masks, rows, MOST_FLIPS)
    if ends is None:
        raise TooMuchError
    allowed = {row: _allowed(at, len(masks)) for row, at in ends.items()}
    return Grid(masks, weights, allowed)


def _allowed(flips: Sequence[int], size: int) -> int:
    """Return the cases that a row allows, which does so from the start and changes at some places."""
    allowed, start = 0, 0
    for place, flip in enumerate([*flips, size]):
        if place % 2 == 0:
            allowed |= (1 << flip) - (1 << start)
        start = flip
    return allowed


def within(one: Box | None, other: Box | None) -> Box | None:
    """Return the intersection of two boxes; None if it is empty."""
    if one is None or other is None:
        return None
    both = dict(one)
    for axis, cases in other.items():
        both[axis] = both.get(axis, cases) & cases
        if not both[axis]:
            return None
    return both


def independent(boxes: Iterable[Box]) -> list[tuple[int, list[Box]]]:
    """Return boxes in groups that share no axis, with the axes of each."""
    groups: list[tuple[int, list[Box]]] = []
    for box in boxes:
        axes = 0
        for axis in box:
            axes |= 1 << axis
        mine = [box]
        apart = []
        for group, others in groups:
            if group & axes:
                axes |= group
                others.extend(mine)
                mine = others
            else:
                apart.append((group, others))
        groups = [*apart, (axes, mine)]
    return groups
