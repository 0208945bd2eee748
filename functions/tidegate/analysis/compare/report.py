"""Compares two revisions: the changes, and the traffic that moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

from tidegate.analysis.compare.alignment import same_json
from tidegate.analysis.compare.axes import allocated, build_axes
from tidegate.analysis.compare.axis import ABSENT, ANY, Marker
from tidegate.analysis.compare.changes import Change, changes_between
from tidegate.analysis.compare.joint import REFUSED_BY
from tidegate.analysis.compare.revision import Revision, Side
from tidegate.analysis.compare.shares import STEP_BUDGET, ObjectiveShares, summary, uniform_shares
from tidegate.analysis.compare.space import REFUSED_BY_BOTH, Leaf, State
from tidegate.analysis.space.outcomes import NO_OBJECTIVE, Example
from tidegate.rules.bundle.manifest import OBJECTIVE
from tidegate.rules.sticky import key_text
from tidegate.rules.times import utc_text

MOST_TOLD_ALIKE = 100
"""Most rules of an objective without changes whose shares are reported."""

WAITING_STATES = 20_000
REMEMBERED_VALUES = 50_000

Selected = tuple[int, int]
"""The rows that can match with a value, and the flags of the revisions that refuse it."""


@dataclass(frozen=True, slots=True)
class Diff:
    """Result of a comparison. `shares` has every objective of either revision, sorted by name, but for those that the
    log has no context of, which are `unseen`."""

    old_revision: str
    new_revision: str
    changes: tuple[Change, ...]
    shares: tuple[ObjectiveShares, ...]
    unseen: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether neither the rules changed, nor the versions that their targets were resolved to."""
        return not self.changes and not any(each.moved or each.retuned for each in self.shares)

    def as_dict(self) -> dict[str, Any]:
        """Return the changes and the shares as plain JSON values, in the form that docs/diff.md documents."""
        return {
            "changed": not self.is_empty,
            "changes": [asdict(change) for change in self.changes],
            "objectives": [_shares_dict(each) for each in self.shares],
            "unseen": list(self.unseen),
        }


def _shares_dict(shares: ObjectiveShares) -> dict[str, Any]:
    return {
        "objective": shares.objective,
        "contexts": shares.contexts,
        "moved": shares.moved,
        "retuned": shares.retuned,
        "exact": shares.changing.drawn == 0,
        "bound": shares.changing.bound,
        "unmoved_bound": shares.staying.bound,
        "drawn": shares.staying.drawn,
        "undecided": shares.undecided,
        "flows": [
            {"from": old, "to": new, "share": share, "retuned": retuned}
            for old, new, share, retuned in shares.by_target()
        ],
        "rules": [
            {
                "old_rule": flow.old_rule,
                "new_rule": flow.new_rule,
                "from": flow.old_target,
                "to": flow.new_target,
                "share": flow.share,
                "retuned": flow.retuned,
                "example": _example_dict(flow.example),
            }
            for flow in shares.flows
        ],
    }


def _example_dict(example: Example | None) -> dict[str, Any] | None:
    if example is None:
        return None
    return {"context": dict(example.context), "at": utc_text(example.at) if example.has_windows else None}


def compare(
    old: Revision,
    new: Revision,
    at: float,
    *,
    objective: str | None = None,
    budget: int = STEP_BUDGET,
    with_examples: bool = False,
) -> Diff:
    """Compare two revisions at a moment in Unix seconds, with every case of every attribute weighted alike.

    `objective`: compare this one alone, beside the fleet, the layers and the callers. `budget`: the steps of the walk that
    each objective may take (see `uniform_shares`). `with_examples`: find a context for each flow that changes.
    """
    shares = []
    engines = (old.engine, new.engine) if with_examples else None
    for name in _objectives(old, new, objective):
        if _is_alike(old, new, name) and len(old.rules[name]) > MOST_TOLD_ALIKE:
            shares.append(ObjectiveShares(name, 0.0, 0.0, 1.0, ()))
            continue
        sides = [each.side(name) for each in (old, new) if name in each.objectives]
        found = uniform_shares(sides[0], sides[-1], at, budget, engines if len(sides) == 2 else None)
        shares.append(_with_sides(found, old, new))
    return _diff(old, new, objective, shares)


def _is_alike(old: Revision, new: Revision, objective: str) -> bool:
    return (
        objective in old.objectives
        and objective in new.objectives
        and old.targets == new.targets
        and old.manifest.layers == new.manifest.layers
        and same_json(*(OBJECTIVE.write(each.manifest.objectives[objective].contract) for each in (old, new)))
        and _lines(old, objective) == _lines(new, objective)
    )


def _lines(revision: Revision, objective: str) -> Sequence[bytes]:
    return revision.bundle.rule_lines(revision.manifest.objectives[objective], len(revision.rules[objective]))


class LoggedComparison:
    """Compares two revisions with contexts weighted as a recorded log has them.

    `add` has, by objective of either revision, what counts a context of it, at a moment in Unix seconds.
    """

    def __init__(self, old: Revision, new: Revision, objective: str | None = None) -> None:
        self._old, self._new, self._objective = old, new, objective
        self._gathered: dict[str, LoggedShares] = {}
        for name in _objectives(old, new, objective):
            sides = [each.side(name) for each in (old, new) if name in each.objectives]
            self._gathered[name] = LoggedShares(sides[0], sides[-1])
        self.add: Mapping[str, Callable[[Mapping[str, Any], float], None]] = {
            name: gathered.add for name, gathered in self._gathered.items()
        }

    def diff(self) -> Diff:
        shares = [_with_sides(each.shares(), self._old, self._new) for each in self._gathered.values() if each.count]
        unseen = [name for name, gathered in self._gathered.items() if not gathered.count]
        return _diff(self._old, self._new, self._objective, shares, unseen)


def _objectives(old: Revision, new: Revision, objective: str | None) -> list[str]:
    return [name for name in sorted({*old.objectives, *new.objectives}) if objective in (None, name)]


def _with_sides(shares: ObjectiveShares, old: Revision, new: Revision) -> ObjectiveShares:
    """Return the shares of an objective; where one revision lacks it, from those of its comparison with itself."""
    if shares.objective not in old.objectives:
        flows = [replace(flow, old_rule=None, old_target=NO_OBJECTIVE) for flow in shares.flows]
    elif shares.objective not in new.objectives:
        flows = [replace(flow, new_rule=None, new_target=NO_OBJECTIVE) for flow in shares.flows]
    else:
        return shares
    return replace(shares, flows=tuple(flows), moved=1.0, unchanged=0.0, changing=shares.staying)


def _diff(
    old: Revision,
    new: Revision,
    objective: str | None,
    shares: Sequence[ObjectiveShares],
    unseen: Sequence[str] = (),
) -> Diff:
    changes = [each for each in changes_between(old, new) if objective is None or each.objective in (None, objective)]
    return Diff(old.bundle.rules, new.bundle.rules, tuple(changes), tuple(shares), tuple(unseen))


class LoggedShares:
    """Gathers the contexts of one objective, in memory that depends on the rules and not on the log's length.

    A recorded context decides which rules may match; its sticky key is taken as any key, so that the share is that of all
    members with such contexts and not only of those in the log: exact over the hash.
    """

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
        self._cells = [self._rows_by_cell(name) for name in axes.cells]

    def add(self, context: Mapping[str, Any], at: float) -> None:
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
        """Return the shares; at least one context must have been added."""
        self._flush()
        total = sum(self._leaves.values())
        leaves = {leaf: Fraction(weight, total) for leaf, weight in self._leaves.items()}
        return summary(self._axes, leaves, contexts=self.count)

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

    def _rows_by_cell(self, experiment: str) -> dict[str | None, int]:
        """Return the rows that can match in each cell of a caller's experiment; None: the caller is in none of its cells."""
        experiments = {row: each for row, each in self._joint.experiments("caller").items() if each.id == experiment}
        texts = [str(cell.cell) for each in experiments.values() for cell in each.cells]
        return {cell: allocated(self._joint, experiments, cell) for cell in [None, *texts]}

    def _flush(self) -> None:
        space, layers = self._axes.space, self._axes.layers
        whole = space.weight(layers)
        start = {state: count * (whole // space.weight(state[0])) for state, count in self._waiting.items()}
        # Layers list all their cases, so without a budget nothing stays undecided.
        for leaf, weight in space.walk(start, into_alike=True).leaves.items():
            self._leaves[leaf] = self._leaves.get(leaf, 0) + weight
        self._waiting.clear()


def _is_sound(allocations: Any) -> bool:
    return isinstance(allocations, Mapping) and all(
        isinstance(name, str) and isinstance(cell, int | str) and not isinstance(cell, bool)
        for name, cell in allocations.items()
    )
