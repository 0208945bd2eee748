"""Which of the rules that cover a region together are needed for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tidegate.rules.analysis.axis import Axis, Conditions
from tidegate.rules.analysis.bitsets import between, bitset, members
from tidegate.rules.analysis.keys import Region
from tidegate.rules.analysis.search import search
from tidegate.rules.analysis.space import Space

MOST_BOXES = 256
"""A cover of more boxes is reported as it was found."""


def minimal_cover(
    space: Space, regions: Sequence[Region], boxes: int, above: int, steps: int
) -> tuple[tuple[int, ...], bool]:
    """Rules that cover regions and of which none can be left out.

    Args:
        space: the space.
        regions: what is covered.
        boxes: a mask of boxes that hold the regions together.
        above: a mask of the boxes that may hold. A rule may hold more by its other boxes than by those of `boxes`.
        steps: how many steps may be taken.

    Returns:
        The rules' positions, ascending, and whether none of them can be left out: not where the steps ran out.
    """
    rules = sorted({space.boxes[box].rule for box in members(boxes)})
    if len(rules) == 1:
        return tuple(rules), True
    mine = 0
    for rule in rules:
        mine |= between(*space.boxes_of[rule])
    numbers = list(members(mine & above))
    if len(numbers) > MOST_BOXES or steps < 1:
        return tuple(rules), False
    # On the other axes these boxes tell nothing apart.
    axes_of = sorted({axis for box in numbers for axis in space.boxes[box].conditions})
    small = [[_Small(space.axes[axis], region.spans[axis].classes, numbers) for axis in axes_of] for region in regions]
    of_rule = dict.fromkeys(rules, 0)
    for place, box in enumerate(numbers):
        of_rule[space.boxes[box].rule] |= 1 << place
    kept = list(rules)
    for rule in reversed(rules):
        if rule not in kept:
            continue
        trial = 0
        for other in kept:
            trial |= of_rule[other] if other != rule else 0
        used = 0
        for axes in small:
            outcome, taken = search(axes, [axis.within(None) for axis in axes], trial, max(steps, 1))
            steps -= taken
            if outcome.hole is not None:
                break
            if not outcome.decided:
                return tuple(kept), False
            used |= outcome.used
        else:
            kept = [other for other in kept if of_rule[other] & used]
    return tuple(kept), True


class _Small(Axis):
    """What a few boxes, numbered again, tell apart on an axis within some classes."""

    def __init__(self, axis: Axis, classes: int, boxes: Sequence[int]) -> None:
        super().__init__(Conditions((), {}, len(boxes)))
        parts = {0: classes}
        for place, box in enumerate(boxes):
            inside = axis.inside(classes, box)
            if inside == classes:
                parts = {mask | 1 << place: part for mask, part in parts.items()}
            elif inside:
                parts = dict(_parted(parts, inside, 1 << place))
        # What is held by all the boxes that hold another part says less than it.
        masks: list[int] = []
        for mask in sorted(parts, key=int.bit_count):
            if not any(other & mask == other for other in masks):
                masks.append(mask)
        self._begin(masks)
        self._inside = [
            bitset([number for number, mask in enumerate(masks) if mask >> place & 1]) for place in range(len(boxes))
        ]

    def candidates(self, condition: int | None) -> int:  # noqa: ARG002
        """All classes."""
        return self._all_known

    def inside(self, classes: int, box: int) -> int:
        """Those of some classes that a box holds."""
        return classes & self._inside[box]


def _parted(parts: dict[int, int], inside: int, bit: int) -> Iterable[tuple[int, int]]:
    for mask, part in parts.items():
        if part & inside:
            yield mask | bit, part & inside
        if part & ~inside:
            yield mask, part & ~inside
