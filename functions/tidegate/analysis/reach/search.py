"""The exact question behind every finding: is there a point of a region that no box holds?

A depth-first search in the manner of DPLL (Davis, Logemann & Loveland 1962, https://doi.org/10.1145/368273.368557), with
axes of many values for variables and boxes for clauses. A box that holds a part of the region on every axis but one leaves
only what it does not hold there (unit propagation). Where there is none, a point is sought greedily; the boxes that hold it
show where else to look: outside one of them, on one axis after the other.

All boxes are looked at at once, as bits of a mask, which is what makes it fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from tidegate.analysis.reach.axis import EVERY, Axis, Span
from tidegate.analysis.space.bits import lowest


@dataclass(frozen=True, slots=True)
class Outcome:
    """`hole` has the classes, by axis, of a part of the region that no box holds, or is None. Where it is None, the boxes of
    the mask `used` hold the region together, or, with `decided` False, the steps ran out."""

    hole: tuple[int, ...] | None
    used: int = 0
    decided: bool = True


_classes = attrgetter("classes")

UNDECIDED = Outcome(None, decided=False)


def search(axes: Sequence[Axis], region: Sequence[Span], boxes: int, steps: int) -> tuple[Outcome, int]:
    """Look for a part of a region that no box holds, in at most so many steps, of at least 1.

    `region` has classes on every axis, on none of them no class; `boxes` are those that may hold, as a mask.

    Returns:
        The outcome, and how many steps it took.
    """
    alive = boxes
    for span in region:
        alive &= span.touching
        if not alive:
            return Outcome(tuple(map(_classes, region))), 1
    holding = alive
    for span in region:
        holding &= span.containing
        if not holding:
            break
    if holding:
        return Outcome(None, 1 << lowest(holding)), 1
    # An axis on which every box contains the region makes no difference in any part of it.
    active = [axis for axis, span in enumerate(region) if alive & span.containing != alive]
    point, rare = [span.classes for span in region], alive
    for axis in active:
        number = axes[axis].rarest(region[axis].classes)
        point[axis] = 1 << number
        rare &= axes[axis].mask(number)
    if not rare:
        return Outcome(tuple(point)), 1
    return _Search(axes, region, active, steps).run(alive)


class _Part:
    """A part of the region: its classes on every axis, the boxes that contain it there, and the boxes that touch it."""

    __slots__ = ("alive", "classes", "containing")

    def __init__(self, classes: list[int], containing: list[int], alive: int) -> None:
        self.classes, self.containing, self.alive = classes, containing, alive

    def narrowed(self, axis: int, span: Span) -> _Part:
        classes, containing = list(self.classes), list(self.containing)
        classes[axis], containing[axis] = span.classes, span.containing
        return _Part(classes, containing, self.alive & span.touching)


class _Search:
    def __init__(self, axes: Sequence[Axis], region: Sequence[Span], active: Sequence[int], steps: int) -> None:
        self._axes, self._region, self._active, self._left = axes, region, active, steps
        self._steps = steps
        self._used = 0

    def run(self, alive: int) -> tuple[Outcome, int]:
        first = _Part([span.classes for span in self._region], [span.containing for span in self._region], alive)
        parts = [first]
        while parts:
            part = self._propagated(parts.pop())
            if self._left < 0:
                return UNDECIDED, self._steps - self._left
            if part is None:
                continue
            if not part.alive:
                return Outcome(tuple(part.classes)), self._steps - self._left
            point, holding = self._point(part)
            if not holding:
                return Outcome(point), self._steps - self._left
            parts += self._outside(part, self._best(part, holding))
        return Outcome(None, self._used), self._steps - self._left

    def _propagated(self, part: _Part) -> _Part | None:
        """Return a part without the boxes that contain it on every axis but one; None if nothing is left."""
        while part.alive:
            self._left -= 1
            if self._left < 0:
                return part
            active = self._active
            before = []
            every = part.alive
            for axis in active:
                before.append(every)
                every &= part.containing[axis]
            if every:
                if not every & self._used:
                    self._used |= 1 << lowest(every)
                return None
            after = EVERY
            narrowed = part
            for place in range(len(active) - 1, -1, -1):
                axis = active[place]
                taking = before[place] & after
                after &= part.containing[axis]
                if taking:
                    left, self._used = self._axes[axis].remove(part.classes[axis], taking, self._used)
                    if not left:
                        return None
                    narrowed = narrowed.narrowed(axis, self._axes[axis].span(left))
            if narrowed is part:
                return part
            part = narrowed
        return part

    def _point(self, part: _Part) -> tuple[tuple[int, ...], int]:
        """Return a point of a part that few boxes hold (all classes on axes that make no difference), and those boxes."""
        point, holding = list(part.classes), part.alive
        for axis in self._active:
            of = self._axes[axis]
            best, fewest = holding, -1
            for number in of.tried(part.classes[axis]):
                mask = holding & of.mask(number)
                count = mask.bit_count()
                if fewest < 0 or count < fewest:
                    best, fewest = mask, count
                    point[axis] = 1 << number
                    if not mask:
                        break
            holding = best
            if not holding:
                break
        return tuple(point), holding

    def _best(self, part: _Part, holding: int) -> int:
        for axis in self._active:
            containing = holding & part.containing[axis]
            if containing:
                holding = containing
        return lowest(holding)

    def _outside(self, part: _Part, box: int) -> list[_Part]:
        """Return the rest of a part outside a box that touches it, as disjoint parts, the largest first."""
        self._used |= 1 << box
        cuts = []
        for axis in self._active:
            if not part.containing[axis] >> box & 1:
                inside = self._axes[axis].inside(part.classes[axis], box)
                cuts.append((inside.bit_count() / part.classes[axis].bit_count(), axis, inside))
        found = []
        for _, axis, inside in sorted(cuts):
            of = self._axes[axis]
            found.append(part.narrowed(axis, of.span(part.classes[axis] ^ inside)))
            part = part.narrowed(axis, of.span(inside))
        return found
