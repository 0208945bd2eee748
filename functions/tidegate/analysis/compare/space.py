"""The space of contexts as independent axes, and a walk that splits it.

An axis is an attribute, an element of a set, a caller's allocation to an experiment, or the bucket of a layer. A state is
what is known of a context: which rows may still match, and which axes are open. The walk opens the axis that decides most
about the first undecided row, groups its cases by the rows that they leave, and goes on with each group. States that are
alike are one, and a state whose first rows match whatever comes is a leaf, so the walk costs what the rules tell apart and
not the product of all values. Weights are whole numbers, so shares are exact.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf

from tidegate.analysis.compare.axis import ABSENT, PLAIN, Axis, Cells, Effect, Markers
from tidegate.analysis.compare.joint import NEW, OLD, REFUSED_BY, Joint
from tidegate.analysis.space.bits import lowest, members

State = tuple[int, int, int, Markers, Cells]
"""The open axes and the rows that may match (masks), who refuses, the sticky attributes, the allocated cells."""

Leaf = tuple[int | None, int | None, Markers, Cells]
"""The matching row of each revision (None: it refuses, -1: there is none), the sticky attributes, the allocated cells."""

REFUSED_BY_BOTH = REFUSED_BY[OLD] | REFUSED_BY[NEW]

MOST_LOOKED_AT = 64
"""Most rows that are searched for one that certainly matches."""

CASES_PER_STEP = 64
STEP_BITS = 8192
STEP_AXES = 64
"""A budget's step is one part that a state is taken into, or so many cases that are looked at, of rows so wide, and of so
many axes."""


@dataclass(frozen=True, slots=True)
class Walked:
    """Result of a walk: states and leaves with their weights.

    `leaves` are decided but for the hash; in `alike` no rule is left that only one revision has, so that nothing moves
    there; `undecided` are what the budget, or axes without a list of cases, left.
    """

    leaves: Mapping[Leaf, int]
    alike: Mapping[State, int]
    undecided: Mapping[State, int]


class Space:
    """The axes of two revisions and the walk through them."""

    def __init__(self, joint: Joint, axes: Sequence[Axis], hashing: int, allocated: Sequence[int]) -> None:
        """`hashing` are the rows whose choice hashes a sticky attribute, `allocated` those of each caller's experiment."""
        self.axes = tuple(axes)
        self._of, self._changing = joint.of, joint.changing
        self._hashing, self._allocated = hashing, tuple(allocated)
        self.all_axes = (1 << len(axes)) - 1
        self._refusing = 0
        for place, axis in enumerate(axes):
            if axis.may_refuse:
                self._refusing |= 1 << place | axis.after
        self._of_two = sum(1 << place for place, axis in enumerate(axes) if axis.total == 2)
        self._axes_of_row = [0] * joint.count
        for place, axis in enumerate(axes):
            for row in members(axis.rows):
                self._axes_of_row[row] |= 1 << place

    @property
    def total(self) -> int:
        return self.weight(self.all_axes)

    def walk(self, start: Mapping[State, int], budget: float = inf, *, into_alike: bool = False) -> Walked:
        """Take states, with their weights, apart, most open axes first.

        `budget` is how many cases are looked at before the walk ends. `into_alike`: go on where nothing moves, to tell which
        rules decide there.
        """
        levels: list[dict[State, int]] = [{} for _ in range(len(self.axes) + 1)]
        leaves: dict[Leaf, int] = {}
        alike: dict[State, int] = {}
        undecided: dict[State, int] = {}

        def put(state: State, weight: int) -> None:
            settled, factor = self._settled(state)
            weight *= factor
            if settled[0] == 0:
                leaf = self.leaf_of(settled)
                leaves[leaf] = leaves.get(leaf, 0) + weight
            elif not (into_alike or settled[0] & self._refusing or settled[2] or settled[1] & self._changing):
                alike[settled] = alike.get(settled, 0) + weight
            else:
                level = levels[settled[0].bit_count()]
                level[settled] = level.get(settled, 0) + weight

        for state, weight in start.items():
            put(state, weight)
        for level in reversed(levels):
            while level:
                state, weight = level.popitem()
                axis = self._next_axis(state) if budget > 0 else None
                if axis is None:
                    undecided[state] = weight
                    continue
                parts = self._parts(state, axis)
                cost = len(parts) + self.axes[axis].size // CASES_PER_STEP
                budget -= cost * (1 + state[1].bit_length() // STEP_BITS + len(self.axes) // STEP_AXES)
                for after, share in parts.items():
                    put(after, weight * share)
        return Walked(leaves, alike, undecided)

    def complete(self, state: State, chance: random.Random) -> Leaf:
        for place in members(state[0] & self._refusing):
            state = self._drawn(state, place, chance)
        for side in (OLD, NEW):
            while not state[2] & REFUSED_BY[side] and (mine := state[1] & self._of[side]):
                looked = self._axes_of_row[lowest(mine)] & state[0]
                if not looked:
                    break
                # Only what the first row looks at decides whether it matches.
                place = next(members(looked))
                while before := self.axes[place].after & state[0]:
                    place = next(members(before))
                state = self._drawn(state, place, chance)
        return self.tidied(self.leaf_of(state))

    def _drawn(self, state: State, place: int, chance: random.Random) -> State:
        if not state[0] >> place & 1:
            return state
        rows, effect = self.axes[place].draw(state[3], chance)
        return self._taken(state, place, state[1] & rows, effect)

    def leaf_of(self, state: State) -> Leaf:
        """Return the leaf of a state without open axes."""
        was, now = (None if state[2] & REFUSED_BY[side] else lowest(state[1] & self._of[side]) for side in (OLD, NEW))
        return was, now, state[3], state[4]

    def tidied(self, leaf: Leaf) -> Leaf:
        """Return a leaf without the sticky attributes and allocated cells that its rows do not use."""
        was, now, keys, cells = leaf
        rows = sum(1 << row for row in {was, now} if row is not None and row >= 0)
        if keys and not rows & self._hashing:
            keys = (ABSENT,) * len(keys)
        allocated = zip(cells, self._allocated, strict=True)
        return was, now, keys, tuple(cell if rows & mine else None for cell, mine in allocated)

    def _settled(self, state: State) -> tuple[State, int]:
        """Return the state without rows below a certain match and without axes that the others do not use, and the weight of
        these axes."""
        axes, rows, refused, keys, cells = state
        kept = axes
        if refused == REFUSED_BY_BOTH:
            rows = kept = 0
        else:
            if refused:
                rows &= self._of[NEW if refused == REFUSED_BY[OLD] else OLD]
            found = self._relevant(axes, rows, refused)
            if found is not None:
                rows, looked = found
                kept = looked | axes & self._refusing
        if keys and not rows & self._hashing:
            keys = (ABSENT,) * len(keys)
        if cells:
            cells = tuple(cell if rows & mine else None for cell, mine in zip(cells, self._allocated, strict=True))
        return (kept, rows, refused, keys, cells), self.weight(axes ^ kept)

    def _relevant(self, axes: int, rows: int, refused: int) -> tuple[int, int] | None:
        """Return the rows that may match, down to the first of each revision that must, and the axes they look at.

        None: there is more to look at than is worth it.
        """
        relevant, looked = 0, 0
        for side in (OLD, NEW):
            if refused & REFUSED_BY[side]:
                continue
            mine = rows & self._of[side]
            for count, row in enumerate(members(mine)):
                if count == MOST_LOOKED_AT:
                    return None
                open_axes = self._axes_of_row[row] & axes
                looked |= open_axes
                if not open_axes:
                    mine &= (2 << row) - 1
                    break
            relevant |= mine
        return relevant, looked

    def weight(self, axes: int) -> int:
        weight = 1 << (axes & self._of_two).bit_count()
        for place in members(axes & ~self._of_two):
            weight *= self.axes[place].total
        return weight

    def _next_axis(self, state: State) -> int | None:
        """Return the axis to open; None where it has too many cases to list.

        One that may refuse comes first, else of the first undecided row, if possible of one revision alone, the axis that
        most rows look at."""
        axes, rows, _, _, _ = state
        candidates = axes & self._refusing or self._axes_of_first(axes, rows & self._changing)
        candidates = candidates or self._axes_of_first(axes, rows)
        for chosen in (candidates, axes):
            listed = [place for place in members(chosen) if self.axes[place].cases is not None]
            if listed:
                best = max(listed, key=lambda at: ((self.axes[at].rows & rows).bit_count(), -self.axes[at].size))
                return self._first_of(best, axes)
        return None

    def _axes_of_first(self, axes: int, rows: int) -> int:
        """Return the open axes with a condition of the first undecided row."""
        return next((found for row in members(rows) if (found := self._axes_of_row[row] & axes)), 0)

    def _first_of(self, place: int, axes: int) -> int | None:
        """Return the axis itself, or one that must be closed before it."""
        before = self.axes[place].after & axes
        if not before:
            return place
        earlier = next(members(before))
        return self._first_of(earlier, axes) if self.axes[earlier].cases is not None else None

    def _parts(self, state: State, place: int) -> dict[State, int]:
        axis = self.axes[place]
        assert axis.cases is not None
        parts: dict[State, int] = {}
        for rows, effect, weight in axis.cases(state[3]).of(state[1]):
            after = self._taken(state, place, rows, effect)
            parts[after] = parts.get(after, 0) + weight * self.weight(effect.closes & state[0])
        return parts

    def _taken(self, state: State, place: int, rows: int, effect: Effect) -> State:
        axes, _, refused, keys, cells = state
        if effect is not PLAIN:
            keys, cells = self.axes[place].known_after(effect, keys, cells)
        return axes & ~(1 << place | effect.closes), rows, refused | effect.refused, keys, cells
