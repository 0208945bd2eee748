"""The axes of experiments: the owner of a request's bucket in a layer, and the cell that its caller allocates."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from tidegate.analysis.reach.axis import Axis, Conditions
from tidegate.analysis.space.bits import bitset
from tidegate.rules.sticky import BUCKETS, key_text, layer_bucket

NOBODY = 0
"""The class of buckets that no experiment of the objective owns."""

KEYLESS = 1
"""The class of a request without the layer's key."""

_FIRST = 2


class LayerAxis(Axis):
    """The experiment that owns a request's bucket in a layer. A condition is an experiment's id."""

    def __init__(
        self,
        name: str,
        key: Sequence[str],
        conditions: Conditions,
        ranges: Mapping[str, Sequence[Sequence[int]]],
    ) -> None:
        """`key` are the attributes of the layer's key, `ranges` the inclusive bucket ranges of every experiment that boxes ask for."""
        super().__init__(conditions)
        self.name, self.key = name, tuple(key)
        owned = sorted(
            (first, last + 1, _FIRST + number)
            for number, experiment in enumerate(conditions.distinct)
            for first, last in ranges[experiment]
        )
        self._starts: list[int] = []
        self._owner: list[int] = []
        start = 0
        for first, end, number in owned:
            if start < first:
                self._begin_at(start, NOBODY)
            self._begin_at(first, number)
            start = end
        if start < BUCKETS:
            self._begin_at(start, NOBODY)
        self._owners = bitset(set(self._owner))
        self._begin([self.free, self.free, *(self.free | mask for mask in self.boxes)])

    def candidates(self, condition: int | None) -> int:
        """Return the classes to try if the key may have any bucket."""
        if condition is not None:
            return 1 << _FIRST + condition & self._owners
        # Buckets outside all experiments are in the fewest boxes.
        return 1 << NOBODY if self._owners >> NOBODY & 1 else self._owners

    def candidates_at(self, condition: int | None, number: int) -> int:
        return 1 << number if condition is None or number == _FIRST + condition else 0

    def class_of(self, value: Any) -> int:
        return self._owner[bisect_right(self._starts, layer_bucket(self.name, key_text(value))) - 1]

    def _begin_at(self, bucket: int, owner: int) -> None:
        self._starts.append(bucket)
        self._owner.append(owner)


class AllocationAxis(Axis):
    """Which cell a caller allocates a request to, of all experiments whose callers do. A condition is an experiment's id
    and its cells, in the order of the rule.

    A class is no cell at all, or one cell of one experiment: a context with more allocations is in more boxes.
    """

    def __init__(self, conditions: Conditions) -> None:
        super().__init__(conditions)
        self._cells: list[tuple[str, Any] | None] = [None]
        self._number_of: dict[tuple[str, str], int] = {}
        masks = [self.free]
        for (experiment, cells), boxes in zip(conditions.distinct, self.boxes, strict=True):
            for cell in cells:
                number = self._number_of.setdefault((experiment, str(cell)), len(masks))
                if number == len(masks):
                    self._cells.append((experiment, cell))
                    masks.append(self.free)
                masks[number] |= boxes
        self._begin(masks)

    def candidates(self, condition: int | None) -> int:
        """Return the classes to try within a condition: its experiment's cells, or no cell at all."""
        if condition is None:
            return 1
        experiment, cells = self.conditions.distinct[condition]
        return bitset([self._number_of[experiment, str(cell)] for cell in cells])

    def allocations(self, number: int) -> dict[str, Any]:
        cell = self._cells[number]
        return {} if cell is None else dict([cell])
