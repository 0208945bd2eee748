"""An axis of an objective's space: its classes, numbered from 0, and the boxes that hold each class.

A class is a set of values that no condition tells apart. Where one class is held by all the boxes that hold another, the
other is more telling: a context that no box holds stays unheld in it. So of the classes within a condition, an axis may offer
only those that are worth looking at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tidegate.analysis.space.bits import between, bitset, lowest, members, runs

ABSENT = 0
"""The class of an absent attribute, on the axes of attributes."""

TRIED = 8
"""Approximate number of classes that are tried to find one that few boxes contain."""

FEW = 4
"""Up to this many boxes remove their classes one after the other."""

REMEMBERED = 1_000

SHIFT = 4
BLOCK = 1 << SHIFT
EVERY = -1
"""The mask of all boxes, however many."""

MAX_BITS = 2_000_000_000
"""Most bits of all masks of an axis (250 MB)."""

Owners = tuple[int, ...]
"""For each layer that an attribute keys, the class on the layer's axis that a value's bucket belongs to."""

NO_KEY: Owners = ()
"""The owners of the buckets of what is not a key: an absent attribute, or an empty text."""

AxisConditions = Mapping[int, int]
"""By axis, the number of a condition on it."""


class Span(NamedTuple):
    """Some classes of an axis; the boxes that hold at least one of them, and those that hold all of them."""

    classes: int
    touching: int
    containing: int


class Conditions(NamedTuple):
    """The conditions of boxes on one axis: the distinct ones, which of them a box has (boxes without one are not in it),
    and how many boxes there are."""

    distinct: Sequence[Any]
    of_box: Mapping[int, int]
    total: int


class TooManyClassesError(Exception):
    """An axis has more classes than the analysis permits."""


class Blocks:
    """The boxes that hold each class (`masks`), over blocks of classes and blocks of blocks, so that ten thousand classes
    cost little more than ten."""

    def __init__(self, masks: list[int]) -> None:
        self.masks = masks
        self._counts = [mask.bit_count() for mask in masks]
        # For every block of one size, the boxes that hold at least one of its classes, and those that hold all of them.
        self._levels: list[tuple[list[int], list[int]]] = [(masks, masks)]
        self._rarest: list[Sequence[int]] = [range(len(masks))]
        while len(self._levels[-1][0]) > 1:
            self._add_level()

    def touching_and_containing(self, classes: int) -> tuple[int, int]:
        """Return the boxes that hold at least one of some classes, and those that hold all of them."""
        touching, containing = 0, EVERY
        for depth, number in self._cover(classes):
            either, both = self._levels[depth]
            touching |= either[number]
            containing &= both[number]
        return touching, containing

    def rarest(self, classes: int) -> int:
        found = (self._rarest[depth][number] for depth, number in self._cover(classes))
        return min(found, key=self._counts.__getitem__)

    def held(self, classes: int, boxes: int, chosen: int) -> tuple[int, int]:
        """Return the classes that any of some boxes contains, and `chosen` with boxes that contain them together.

        No box is added for what one of `chosen` holds."""
        held = 0
        todo = list(self._cover(classes))
        while todo:
            depth, number = todo.pop()
            either, both = self._levels[depth]
            if not either[number] & boxes:
                continue
            holding = both[number] & boxes
            if holding:
                first = number << SHIFT * depth
                held |= between(first, min(first + (1 << SHIFT * depth), len(self.masks)))
                if not holding & chosen:
                    chosen |= 1 << lowest(holding)
            else:
                below = number << SHIFT
                end = min(below + BLOCK, len(self._levels[depth - 1][0]))
                todo += [(depth - 1, each) for each in range(below, end)]
        return held, chosen

    def _cover(self, classes: int) -> Iterator[tuple[int, int]]:
        """Yield few blocks, by level and number, that make up some classes."""
        for start, end in runs(classes):
            for depth in range(len(self._levels)):
                while start < end and start % BLOCK:
                    yield depth, start
                    start += 1
                while start < end and end % BLOCK:
                    end -= 1
                    yield depth, end
                if start == end:
                    break
                start >>= SHIFT
                end >>= SHIFT

    def _add_level(self) -> None:
        below_either, below_both = self._levels[-1]
        eithers, boths, rarest = [], [], []
        for start in range(0, len(below_either), BLOCK):
            either, both = 0, EVERY
            for number in range(start, min(start + BLOCK, len(below_either))):
                either |= below_either[number]
                both &= below_both[number]
            eithers.append(either)
            boths.append(both)
            rarest.append(min(self._rarest[-1][start : start + BLOCK], key=self._counts.__getitem__))
        self._levels.append((eithers, boths))
        self._rarest.append(rarest)


class Axis(ABC):
    """One axis; what sort of values it has, subclasses know. They call `_begin` with the masks of the classes that they know
    from the start; more may come up later (`_late_mask`)."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        of: list[list[int]] = [[] for _ in conditions.distinct]
        for box, condition in conditions.of_box.items():
            of[condition].append(box)
        self.boxes = [bitset(each) for each in of]
        """The boxes that have each condition."""
        self.free = (1 << conditions.total) - 1 ^ bitset(conditions.of_box)
        """The boxes without a condition."""
        self._within: dict[int | None, Span] = {}
        self._rarest: dict[int, int] = {}
        self._late: dict[int, int] = {}

    def _begin(self, masks: list[int]) -> None:
        self._blocks = Blocks(masks)
        self._known = len(masks)
        self._all_known = (1 << len(masks)) - 1

    @abstractmethod
    def candidates(self, condition: int | None) -> int:
        """Return the classes to try within a condition (None: without one); 0: nothing meets it."""

    def mask(self, number: int) -> int:
        if number < self._known:
            return self._blocks.masks[number]
        mask = self._late.get(number)
        if mask is None:
            mask = self._late[number] = self._late_mask(number)
        return mask

    def within(self, condition: int | None) -> Span:
        """Return the classes to try within a condition (None: without one)."""
        found = self._within.get(condition)
        if found is None:
            found = self.span(self.candidates(condition))
            if condition is None or self.boxes[condition].bit_count() > 1:
                self._within[condition] = found
        return found

    def span(self, classes: int) -> Span:
        touching, containing = self._blocks.touching_and_containing(classes & self._all_known)
        for number in self._late_classes(classes):
            mask = self.mask(number)
            touching |= mask
            containing &= mask
        return Span(classes, touching, containing)

    def rarest(self, classes: int) -> int:
        found = self._rarest.get(classes)
        if found is None:
            some = list(self._late_classes(classes))
            if known := classes & self._all_known:
                some.append(self._blocks.rarest(known))
            found = min(some, key=lambda number: self.mask(number).bit_count()) if len(some) > 1 else some[0]
            if len(self._rarest) < REMEMBERED:
                self._rarest[classes] = found
        return found

    def tried(self, classes: int) -> Iterable[int]:
        """Return a few classes, of which one may be in few boxes."""
        found: dict[int, None] = {}
        for start, end in runs(classes):
            step = max(1, (end - start) // TRIED)
            found.update(dict.fromkeys((start, end - 1, *range(start, end, step))))
            if len(found) >= TRIED:
                break
        return found

    def inside(self, classes: int, box: int) -> int:
        """Return the classes that a box contains."""
        return bitset([number for number in members(classes) if self.mask(number) >> box & 1])

    def remove(self, classes: int, boxes: int, chosen: int) -> tuple[int, int]:
        """Take away the classes that any of some boxes holds, if possible by boxes that are `chosen` already.

        Returns:
            The classes that are left, and `chosen` with the boxes that took.
        """
        if boxes.bit_count() <= FEW:
            for box in sorted(members(boxes), key=lambda each: not chosen >> each & 1):
                inside = self.inside(classes, box)
                if inside:
                    classes ^= inside
                    chosen |= 1 << box
            return classes, chosen
        held, chosen = self._blocks.held(classes & self._all_known, boxes, chosen)
        for number in self._late_classes(classes):
            taking = self.mask(number) & boxes
            if taking:
                held |= 1 << number
                if not taking & chosen:
                    chosen |= 1 << lowest(taking)
        return classes ^ held, chosen

    def _late_classes(self, classes: int) -> Iterable[int]:
        if classes <= self._all_known:
            return ()
        return [number + self._known for number in members(classes >> self._known)]

    def _late_mask(self, number: int) -> int:
        """Return the boxes that contain a class that was added later. An axis that knows all of its classes has none."""
        raise AssertionError(f"class {number} of an axis that knows all of its {self._known} classes")

    def _check_size(self, classes: int) -> None:
        """Raise `TooManyClassesError` where the masks of so many classes take too much memory."""
        if classes * self.conditions.total > MAX_BITS:
            raise TooManyClassesError


Slot = tuple[int, dict[str, int]]


def slots(conditions: Conditions, boxes: Sequence[int], wanted: Sequence[Sequence[Sequence[str]]]) -> list[Slot]:
    """Return the boxes that do not look at a text, and by text those that it meets, of the first term of each condition, of
    the second … The terms of a condition are ANDed, the texts of a term ORed. `boxes` are the boxes that have each condition,
    `wanted` are, by condition, the texts of each of its terms.
    """
    found: list[Slot] = []
    for place in range(max(map(len, wanted), default=0)):
        free, table = (1 << conditions.total) - 1, dict[str, int]()
        for mask, terms in zip(boxes, wanted, strict=True):
            if place < len(terms):
                free ^= mask
                for text in terms[place]:
                    table[text] = table.get(text, 0) | mask
        found.append((free, table))
    return found


class AttributeAxis(Axis):
    keyless = 1 << ABSENT
    """The classes whose values are no key of a sticky choice."""

    @abstractmethod
    def owners(self, number: int) -> Iterable[Owners | None]:
        """Return whose buckets the values of a class have, of the layers that the attribute keys; None: for any owners a
        value exists; `NO_KEY`: they are no key."""

    @abstractmethod
    def values(self, number: int) -> Iterator[Any]:
        """Return values of a class, the most telling first; endless where the class is."""
