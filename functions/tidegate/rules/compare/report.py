"""The whole comparison of two revisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tidegate.rules.compare.alignment import same_json
from tidegate.rules.compare.changes import Change, changes_between
from tidegate.rules.compare.examples import Example
from tidegate.rules.compare.logged import LoggedShares
from tidegate.rules.compare.revision import Revision
from tidegate.rules.compare.shares import STEP_BUDGET, Flow, ObjectiveShares, uniform_shares
from tidegate.rules.times import utc_text

FORMAT_VERSION = 1
MOST_TOLD_ALIKE = 100
"""Of an objective that is the same in both revisions, the share of each rule is reported up to so many rules."""

NO_OBJECTIVE = "(no objective)"


@dataclass(frozen=True, slots=True)
class Diff:
    """What changed and what moves. `shares` has every objective of either revision, sorted by name, but for those that the
    log has no context of, which are `unseen`."""

    old_revision: str
    new_revision: str
    changes: tuple[Change, ...]
    shares: tuple[ObjectiveShares, ...]
    unseen: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing changed: neither the rules, nor the versions that their targets were resolved to."""
        return not self.changes and not any(each.moved or each.retuned for each in self.shares)

    def as_dict(self) -> dict[str, Any]:
        """The changes and the shares as plain JSON values, in the documented form."""
        return {
            "changed": not self.is_empty,
            "changes": [change.as_dict() for change in self.changes],
            "objectives": [_shares_dict(each) for each in self.shares],
            "unseen": list(self.unseen),
        }


def _shares_dict(shares: ObjectiveShares) -> dict[str, Any]:
    return {
        "objective": shares.objective,
        "contexts": shares.contexts or None,
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
        "rules": [_flow_dict(flow) for flow in shares.flows],
    }


def _flow_dict(flow: Flow) -> dict[str, Any]:
    return {
        "old_rule": flow.old_rule or None,
        "new_rule": flow.new_rule or None,
        "from": flow.old_target,
        "to": flow.new_target,
        "share": flow.share,
        "retuned": flow.retuned,
        "example": None if flow.example is None else _example_dict(flow.example),
    }


def _example_dict(example: Example) -> dict[str, Any]:
    at = None if example.at is None else utc_text(example.at)
    return {"context": dict(example.context), "at": at}


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

    Args:
        old: the one revision.
        new: the other.
        at: which time windows hold.
        objective: compare this one alone, beside the fleet, the layers and the callers; None compares all.
        budget: the steps of the walk that each objective may take (see `uniform_shares`).
        with_examples: find a context for each flow that changes.
    """
    shares = []
    engines = (old.engine, new.engine) if with_examples else None
    for name in _objectives(old, new, objective):
        if _is_alike(old, new, name) and len(old.rule_lines(name)) > MOST_TOLD_ALIKE:
            shares.append(ObjectiveShares(name, "uniform", 0.0, 0.0, 1.0, ()))
            continue
        sides = [each.side(name) for each in (old, new) if name in each.objectives]
        found = uniform_shares(sides[0], sides[-1], at, budget, engines if len(sides) == 2 else None)
        shares.append(_one_sided(found, is_added=name not in old.objectives) if len(sides) == 1 else found)
    return _diff(old, new, objective, shares)


def _is_alike(old: Revision, new: Revision, objective: str) -> bool:
    """Whether all that decides on the contexts of an objective is the same in both revisions."""
    return (
        objective in old.objectives
        and objective in new.objectives
        and old.targets == new.targets
        and same_json(old.manifest["layers"], new.manifest["layers"])
        and same_json(*(_entry(each, objective) for each in (old, new)))
        and old.rule_lines(objective) == new.rule_lines(objective)
        and same_json(old.rule_lines(objective), new.rule_lines(objective))
    )


def _entry(revision: Revision, objective: str) -> dict[str, Any]:
    """An objective's entry of the manifest, without where in the bundle its rules are."""
    return {key: value for key, value in revision.manifest["objectives"][objective].items() if key != "line"}


class LoggedComparison:
    """Compares two revisions with contexts weighted as a recorded log has them.

    Attributes:
        add: for each objective of either revision what counts a context of it: the context, and its moment in Unix
            seconds.
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
        """What has been gathered."""
        shares = []
        for name, gathered in self._gathered.items():
            if gathered.count:
                found = gathered.shares()
                is_one_sided = name not in self._old.objectives or name not in self._new.objectives
                is_added = name not in self._old.objectives
                shares.append(_one_sided(found, is_added=is_added) if is_one_sided else found)
        unseen = [name for name, gathered in self._gathered.items() if not gathered.count]
        return _diff(self._old, self._new, self._objective, shares, unseen)


def _objectives(old: Revision, new: Revision, objective: str | None) -> list[str]:
    return [name for name in sorted({*old.objectives, *new.objectives}) if objective in (None, name)]


def _one_sided(shares: ObjectiveShares, *, is_added: bool) -> ObjectiveShares:
    """The shares of an objective that one revision lacks, from those of its comparison with itself."""
    flows = tuple(
        replace(flow, old_rule="", old_target=NO_OBJECTIVE)
        if is_added
        else replace(flow, new_rule="", new_target=NO_OBJECTIVE)
        for flow in shares.flows
    )
    return replace(shares, flows=flows, moved=1.0, unchanged=0.0, changing=shares.staying)


def _diff(
    old: Revision,
    new: Revision,
    objective: str | None,
    shares: Sequence[ObjectiveShares],
    unseen: Sequence[str] = (),
) -> Diff:
    changes = [each for each in changes_between(old, new) if objective is None or each.objective in ("", objective)]
    return Diff(old.bundle.rules, new.bundle.rules, tuple(changes), tuple(shares), tuple(unseen))
