"""Masks of boxes by class, over blocks of classes and blocks of blocks, so that ten thousand classes cost little more than
ten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tidegate.rules.analysis.bitsets import between, lowest, runs

SHIFT = 4
BLOCK = 1 << SHIFT
EVERY = -1
"""The mask of all boxes, however many."""

MAX_BITS = 2_000_000_000
"""No more masks than these bits (250 MB) are made of an axis."""

Level = tuple[list[int], list[int]]
"""For every block of one size, the boxes that hold at least one of its classes, and those that hold all of them."""


class TooManyClassesError(Exception):
    """An axis has more classes than are looked at."""


class Blocks:
    """The boxes that hold each class, `masks`."""

    def __init__(self, masks: list[int]) -> None:
        self.masks = masks
        self._counts = [mask.bit_count() for mask in masks]
        self._levels: list[Level] = [(masks, masks)]
        self._rarest: list[Sequence[int]] = [range(len(masks))]
        while len(self._levels[-1][0]) > 1:
            self._add_level()

    def touching_and_containing(self, classes: int) -> tuple[int, int]:
        """The boxes that hold at least one of some classes, and those that hold all of them."""
        touching, containing = 0, EVERY
        for start, end in runs(classes):
            for either, both in self._levels:
                while start < end and start % BLOCK:
                    touching |= either[start]
                    containing &= both[start]
                    start += 1
                while start < end and end % BLOCK:
                    end -= 1
                    touching |= either[end]
                    containing &= both[end]
                if start == end:
                    break
                start >>= SHIFT
                end >>= SHIFT
        return touching, containing

    def rarest(self, classes: int) -> int:
        """Which of some classes the fewest boxes hold."""
        found = (self._rarest[depth][number] for depth, number in self._cover(classes))
        return min(found, key=self._counts.__getitem__)

    def held(self, classes: int, boxes: int, chosen: int) -> tuple[int, int]:
        """Those of some classes that any of some boxes holds, and `chosen` with boxes added that hold them together;
        none is added for what one of `chosen` holds."""
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
        """Few blocks, by level and number, that make up some classes."""
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
