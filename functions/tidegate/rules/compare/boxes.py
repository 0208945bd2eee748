"""How much of a region some boxes leave: counted by taking one of them away after the other.

What is left without a box, less what is left *in* that box. Boxes of many attributes seldom meet, so this is cheap exactly
where opening one axis after the other is not. Boxes that look at different axes are independent, so that what they leave is
a product.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tidegate.rules.compare.axis import by_weight, places

MOST_FLIPS = 4_000_000
"""The most ends of runs of cases, over all rows of an axis, that are noted."""

Box = dict[int, int]
"""By axis, the cases that are allowed, as a bitset; axes without a restriction are left out."""

Region = list[int]
"""The cases of every axis, as bitsets."""


class TooMuchError(Exception):
    """Counting takes more than it may."""


@dataclass(slots=True)
class Budget:
    """How many comparisons of a box with a region may still be made."""

    left: int

    def check(self) -> None:
        """Raise `TooMuchError` where the budget is spent."""
        if self.left < 0:
            raise TooMuchError


@dataclass(frozen=True, slots=True)
class Grid:
    """The cases of one axis: the rows that each leaves, their weights, and for the rows that not all leave which ones."""

    masks: Sequence[int]
    weights: Sequence[int]
    is_even: bool
    allowed: Mapping[int, int]
    memo: dict[int, int] = field(default_factory=dict)
    touching: dict[int, int] = field(default_factory=dict)
    drawing: dict[int, Callable[[random.Random], int]] = field(default_factory=dict)

    def draw(self, cases: int, chance: random.Random) -> int:
        """One of some cases, by weight."""
        found = self.drawing.get(cases)
        if found is None:
            found = self.drawing[cases] = by_weight({place: self.weights[place] for place in places(cases)})
        return found(chance)

    def weight(self, cases: int) -> int:
        """The weight of some cases together."""
        if self.is_even:
            return cases.bit_count()
        found = self.memo.get(cases)
        if found is None:
            found = self.memo[cases] = sum(self.weights[place] for place in places(cases))
        return found

    def rows(self, cases: int) -> int:
        """The rows that any of some cases leaves."""
        found = self.touching.get(cases)
        if found is None:
            found = 0
            for place in places(cases):
                found |= self.masks[place]
            self.touching[cases] = found
        return found


@dataclass(frozen=True, slots=True)
class BoxCounter:
    """Counts over the product of some axes."""

    grids: Sequence[Grid]
    budget: Budget

    def left(self, region: Box, boxes: Iterable[Box]) -> int:
        """The weight that `boxes` leave of a region.

        Raises:
            TooMuchError: the budget is spent.
        """
        full = [(1 << len(grid.masks)) - 1 for grid in self.grids]
        return self._count((1 << len(full)) - 1, self._narrow(full, region), boxes)

    @staticmethod
    def _narrow(region: Region, box: Box) -> Region:
        """What of a region is in a box within it."""
        narrowed = list(region)
        for axis, cases in box.items():
            narrowed[axis] = cases
        return narrowed

    def _count(self, axes: int, region: Region, boxes: Iterable[Box]) -> int:
        """The volume, over some axes, of what boxes that restrict no other axes leave of a region."""
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
        for group, members in independent(boxes):
            axes ^= group
            volume *= self._count_connected(group, region, members)
            if not volume:
                return 0
        for axis in places(axes):
            volume *= self.grids[axis].weight(region[axis])
        return volume

    def _narrowed(self, region: Region, boxes: Iterable[Box], single: Box) -> list[Box] | None:
        """What boxes restrict within a region; None where one of them holds all of it. Those that restrict a single axis
        are united in `single` instead."""
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
        """The same for boxes of which each restricts at least two axes, and which are not independent of each other."""
        volume = 1
        for axis in places(axes):
            volume *= self.grids[axis].weight(region[axis])
        # Large boxes first: what they take of the later ones is not counted again.
        boxes.sort(key=len)
        for place, box in enumerate(boxes):
            volume -= self._count(axes, self._narrow(region, box), boxes[:place])
            if not volume:
                return 0
        return volume


def grid_of(cases: Mapping[int, int], rows: int) -> Grid:
    """The grid of an axis: `cases` are the weights of the rows that each case leaves, of all `rows`.

    Raises:
        TooMuchError: more ends of runs of cases than may be noted.
    """
    masks, weights = list(cases), list(cases.values())
    ends: dict[int, list[int]] = {}
    before, count = rows, 0
    for place, mask in enumerate(masks):
        count += (before ^ mask).bit_count()
        if count > MOST_FLIPS:
            raise TooMuchError
        for row in places(before ^ mask):
            ends.setdefault(row, []).append(place)
        before = mask
    allowed = {row: _allowed(at, len(masks)) for row, at in ends.items()}
    return Grid(masks, weights, set(weights) == {1}, allowed)


def _allowed(flips: Sequence[int], size: int) -> int:
    """The cases that a row allows, which does so from the start and changes at some places."""
    allowed, start = 0, 0
    for place, flip in enumerate([*flips, size]):
        if place % 2 == 0:
            allowed |= (1 << flip) - (1 << start)
        start = flip
    return allowed


def within(one: Box | None, other: Box | None) -> Box | None:
    """What two boxes have in common; None where that is nothing."""
    if one is None or other is None:
        return None
    both = dict(one)
    for axis, cases in other.items():
        both[axis] = both.get(axis, cases) & cases
        if not both[axis]:
            return None
    return both


def independent(boxes: Iterable[Box]) -> list[tuple[int, list[Box]]]:
    """Boxes in groups that share no axis, with the axes of each."""
    groups: list[tuple[int, list[Box]]] = []
    for box in boxes:
        axes = 0
        for axis in box:
            axes |= 1 << axis
        members = [box]
        apart = []
        for group, others in groups:
            if group & axes:
                axes |= group
                others.extend(members)
                members = others
            else:
                apart.append((group, others))
        groups = [*apart, (axes, members)]
    return groups
