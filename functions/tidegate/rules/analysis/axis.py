"""The axes of an objective's space. An axis has classes, numbered from 0, and knows the boxes that hold each class.

A class is a set of values that no condition tells apart. Where one class is held by all the boxes that hold another, the
other says more: a context that no box holds stays unheld in it. So of the classes within a condition, an axis may offer
only those that are worth looking at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tidegate.rules.analysis.bitsets import bitset, lowest, members, runs
from tidegate.rules.analysis.blocks import EVERY, MAX_BITS, Blocks, TooManyClassesError

ABSENT = 0
"""The class of an absent attribute, on the axes of attributes."""

TRIED = 8
"""About how many classes are tried in search of one that few boxes hold."""

FEW = 4
"""So few boxes take away classes one after the other."""

REMEMBERED = 1_000

Owners = tuple[int, ...]
"""For each layer that an attribute keys, the class on the layer's axis that a value's bucket belongs to."""


class Span(NamedTuple):
    """Some classes of an axis; the boxes that hold at least one of them, and those that hold all of them."""

    classes: int
    touching: int
    containing: int


class Conditions(NamedTuple):
    """What boxes ask of one axis: the distinct conditions, which of them a box has (boxes without one are not in it),
    and how many boxes there are."""

    distinct: Sequence[Any]
    of_box: Mapping[int, int]
    total: int

    def masks(self) -> list[int]:
        """The boxes that have each condition."""
        numbers: list[list[int]] = [[] for _ in self.distinct]
        for box, condition in self.of_box.items():
            numbers[condition].append(box)
        return [bitset(each) for each in numbers]


class Axis(ABC):
    """One axis; what sort of values it has, subclasses know. They call `_begin` with the masks of the classes that they know
    from the start; more may come up later (`_late_mask`)."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.boxes = conditions.masks()
        constrained = 0
        for mask in self.boxes:
            constrained |= mask
        self.free = (1 << conditions.total) - 1 ^ constrained
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
        """The classes worth looking at within a condition (None: within none); 0: nothing meets it."""

    def mask(self, number: int) -> int:
        """The boxes that hold a class."""
        if number < self._known:
            return self._blocks.masks[number]
        mask = self._late.get(number)
        if mask is None:
            mask = self._late[number] = self._late_mask(number)
        return mask

    def within(self, condition: int | None) -> Span:
        """The classes worth looking at within a condition (None: within none)."""
        found = self._within.get(condition)
        if found is None:
            found = self.span(self.candidates(condition))
            if condition is None or self.boxes[condition].bit_count() > 1:
                self._within[condition] = found
        return found

    def span(self, classes: int) -> Span:
        """Some classes, with their boxes."""
        touching, containing = self._blocks.touching_and_containing(classes & self._all_known)
        for number in self._late_classes(classes):
            mask = self.mask(number)
            touching |= mask
            containing &= mask
        return Span(classes, touching, containing)

    def rarest(self, classes: int) -> int:
        """Which of some classes the fewest boxes hold."""
        found = self._rarest.get(classes)
        if found is None:
            found = self._find_rarest(classes)
            if len(self._rarest) < REMEMBERED:
                self._rarest[classes] = found
        return found

    def _find_rarest(self, classes: int) -> int:
        known = classes & self._all_known
        late = list(self._late_classes(classes))
        if known:
            late.append(self._blocks.rarest(known))
        return min(late, key=lambda number: self.mask(number).bit_count()) if len(late) > 1 else late[0]

    def tried(self, classes: int) -> Iterable[int]:
        """A few of some classes, of which one may be held by few boxes."""
        found: dict[int, None] = {}
        for start, end in runs(classes):
            step = max(1, (end - start) // TRIED)
            found.update(dict.fromkeys((start, end - 1, *range(start, end, step))))
            if len(found) >= TRIED:
                break
        return found

    def inside(self, classes: int, box: int) -> int:
        """Those of some classes that a box holds."""
        return bitset([number for number in members(classes) if self.mask(number) >> box & 1])

    def remove(self, classes: int, boxes: int, chosen: int) -> tuple[int, int]:
        """Take away the classes that any of some boxes holds.

        Args:
            classes: the classes.
            boxes: the boxes that may take.
            chosen: boxes that are preferred, since they have taken elsewhere.

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
        """Those of some classes that came up later."""
        if classes <= self._all_known:
            return ()
        return [number + self._known for number in members(classes >> self._known)]

    def _late_mask(self, number: int) -> int:
        """The boxes that hold a class that came up later. An axis that knows all of its classes has none."""
        raise AssertionError(f"class {number} of an axis that knows all of its {self._known} classes")

    def _check_size(self, classes: int) -> None:
        """Refuse to make the masks of too many classes.

        Raises:
            TooManyClassesError: there are too many.
        """
        if classes * self.conditions.total > MAX_BITS:
            raise TooManyClassesError


NO_KEY: Owners = ()
"""The owners of the buckets of what is not a key: an absent attribute, or an empty text."""


class AttributeAxis(Axis):
    """The axis of an attribute."""

    keyless = 1 << ABSENT
    """The classes whose values are no key of a sticky choice."""

    @abstractmethod
    def owners(self, number: int) -> Iterable[Owners | None]:
        """Whose buckets the values of a class have, of the layers that the attribute keys; None: for any owners a value
        exists; `NO_KEY`: they are no key."""

    @abstractmethod
    def values(self, number: int) -> Iterator[Any]:
        """Values of a class, the most telling first; endless where the class is."""


__all__ = ["ABSENT", "EVERY", "NO_KEY", "AttributeAxis", "Axis", "Conditions", "Owners", "Span", "TooManyClassesError"]
