"""The share that moves with contexts weighted as a recorded log has them, and still exact over the hash.

A recorded context says which rules may match; its sticky key is taken as any key, so that the share is what the rules
do to all members with such contexts and not only to those in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from tidegate.rules.compare.axes import allocated, build_axes
from tidegate.rules.compare.axis import ABSENT, ANY, Marker
from tidegate.rules.compare.joint import REFUSED_BY, Joint
from tidegate.rules.compare.revision import Side
from tidegate.rules.compare.shares import ObjectiveShares, summary
from tidegate.rules.compare.space import REFUSED_BY_BOTH, Leaf, State
from tidegate.rules.sticky import key_text

WAITING_STATES = 20_000
REMEMBERED_VALUES = 50_000

Selected = tuple[int, int]
"""The rows that a value leaves, and the flags of the revisions that refuse it."""


class LoggedShares:
    """Gathers the contexts of one objective, in memory that depends on the rules and not on the log's length."""

    def __init__(self, old: Side, new: Side) -> None:
        self._axes = axes = build_axes(old, new)
        self._joint = joint = axes.joint
        self._waiting: dict[State, int] = {}
        self._leaves: dict[Leaf, int] = {}
        self.count = 0
        self._names = tuple(dict.fromkeys(name for side in joint.sides for name in side.objective.attributes))
        self._absent = {name: joint.mask(name, None) for name in self._names}
        # A null is of no type, so a revision that declares the attribute refuses it.
        declaring = {name: sum(REFUSED_BY[side] for side, _ in joint.declared(name)) for name in self._names}
        self._null = {name: (joint.all_rows, refused) for name, refused in declaring.items()}
        self._selected: dict[tuple[str, type, Any], Selected] = {}
        self._cells = [_rows_by_cell(joint, name) for name in axes.cells]

    def add(self, context: Mapping[str, Any], at: float) -> None:
        """Count one context of a request made at a moment in Unix seconds."""
        _, rows, refused, keys, cells = self._axes.start(at)
        for name in self._names:
            left, refusing = self._select(name, context[name]) if name in context else self._absent[name]
            rows &= left
            refused |= refusing
        allocations = context.get("allocations", {})
        if not _is_sound(allocations):
            refused = REFUSED_BY_BOTH
        elif cells:
            given = [allocations.get(name) for name in self._axes.cells]
            texts = [None if cell is None else str(cell) for cell in given]
            cells = tuple(text if text in known else None for text, known in zip(texts, self._cells, strict=True))
            for cell, known in zip(cells, self._cells, strict=True):
                rows &= known[cell]
        if refused == REFUSED_BY_BOTH:
            state: State = (0, 0, refused, (ABSENT,) * len(keys), (None,) * len(cells))
        else:
            if keys:
                keys = tuple(self._marker(name, context.get(name)) for name in self._axes.keys)
            state = (self._axes.layers, rows, refused, keys, cells)
        self._waiting[state] = self._waiting.get(state, 0) + 1
        self.count += 1
        if len(self._waiting) > WAITING_STATES:
            self._flush()

    def shares(self) -> ObjectiveShares:
        """What has been gathered: at least one context."""
        self._flush()
        total = sum(self._leaves.values())
        leaves = {leaf: Fraction(weight, total) for leaf, weight in self._leaves.items()}
        return summary(self._axes, "log", leaves, contexts=self.count)

    def _marker(self, name: str, value: Any) -> Marker:
        if value is None or value == "":
            return ABSENT
        return key_text(value) if name in self._axes.closed_keys else ANY

    def _select(self, name: str, value: Any) -> Selected:
        if value is None:
            return self._null[name]
        if not isinstance(value, str | int | float):
            return self._joint.mask(name, value)
        key = (name, value.__class__, value)
        found = self._selected.get(key)
        if found is None:
            found = self._joint.mask(name, value)
            if len(self._selected) >= REMEMBERED_VALUES:
                self._selected.clear()
            self._selected[key] = found
        return found

    def _flush(self) -> None:
        space, layers = self._axes.space, self._axes.layers
        whole = space.weight(layers)
        start = {state: count * (whole // space.weight(state[0])) for state, count in self._waiting.items()}
        # Layers list all their cases, so without a budget nothing stays undecided.
        for leaf, weight in space.walk(start, into_alike=True).leaves.items():
            self._leaves[leaf] = self._leaves.get(leaf, 0) + weight
        self._waiting.clear()


def _rows_by_cell(joint: Joint, experiment: str) -> dict[str | None, int]:
    """The rows that each cell of a caller's experiment leaves; None: the caller is in none of its cells."""
    experiments = {row: each for row, each in joint.experiments("caller").items() if each["id"] == experiment}
    texts = [str(cell["cell"]) for each in experiments.values() for cell in each["cells"]]
    return {cell: allocated(joint, experiments, cell) for cell in [None, *texts]}


def _is_sound(allocations: Any) -> bool:
    return isinstance(allocations, Mapping) and all(
        isinstance(name, str) and isinstance(cell, int | str) and not isinstance(cell, bool)
        for name, cell in allocations.items()
    )
