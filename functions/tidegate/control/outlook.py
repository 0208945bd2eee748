"""The outlook of a publish: what it changes of the rules, and what is loaded and unloaded for it on each shard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidegate.control.assigning import Assignment
from tidegate.control.desired import Desired, rollback_revisions
from tidegate.control.plans import NOTHING, Plan
from tidegate.errors import BundleError
from tidegate.ports import LiveEntry, Pointer

if TYPE_CHECKING:
    from tidegate.rules.compare.changes import Change

Labels = Mapping[str, tuple[str, ...]]
"""Models as `name/version,version`, by shard; a shard without any is left out."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What becoming live means.

    Attributes:
        loads: what no other revision has loaded.
        unloads: what is needed no more once requests have drained. Revisions that can be rolled back to keep theirs.
        changes: what is different in the rules; empty where nothing is, or nothing was live.
    """

    loads: Labels = field(default_factory=dict)
    unloads: Labels = field(default_factory=dict)
    changes: tuple[Change, ...] = ()


def outlook(assignment: Assignment, desired: Desired, live: bytes | None, keep_revisions: int) -> Outlook:
    """What it means that an assignment becomes live.

    Args:
        assignment: what is published.
        desired: what the fleet must hold now.
        live: the live bundle; None where there is none that can be read.
        keep_revisions: how many revisions stay loaded to be rolled back to.
    """
    staying = {assignment.revision, *rollback_revisions(_flipped(assignment, desired.pointer), keep_revisions)}
    kept = [
        each.plans or {} for each in desired.held if each.revision in staying or each.reason in ("claimed", "trying")
    ]
    kept.append(assignment.plans)
    loads, unloads = {}, {}
    for shard in sorted(assignment.plans.keys() | desired.plans.keys()):
        now, after = _units([desired.plan(shard)]), _units(plans.get(shard, NOTHING) for plans in kept)
        loads[shard] = _labels(_units([assignment.plans.get(shard, NOTHING)]) - now)
        # While something cannot be read, nothing is unloaded.
        unloads[shard] = _labels(now - after) if desired.complete else ()
    return Outlook(_filled(loads), _filled(unloads), _changes(live, assignment.bundle))


def _flipped(assignment: Assignment, pointer: Pointer | None) -> Pointer:
    entries, bad = ((), ()) if pointer is None else (pointer.entries, pointer.bad)
    return Pointer((LiveEntry(assignment.revision, 0, "", 0.0), *entries), "", bad)


def _units(plans: Iterable[Plan]) -> set[tuple[str, int]]:
    return {(load.model, version) for plan in plans for load in plan for version in load.versions}


def _labels(units: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    versions: dict[str, list[str]] = {}
    for model, version in sorted(units):
        versions.setdefault(model, []).append(str(version))
    return tuple(f"{model}/{','.join(found)}" for model, found in versions.items())


def _filled(labels: Labels) -> Labels:
    return {shard: models for shard, models in labels.items() if models}


def _changes(live: bytes | None, wanted: bytes) -> tuple[Change, ...]:
    if live is None or live == wanted:
        return ()
    # Whoever only reconciles or rolls back never needs it.
    from tidegate.rules.compare.changes import changes_between
    from tidegate.rules.compare.revision import open_revision

    try:
        before = open_revision(live)
    except BundleError:
        # Status reports it, and this publish repairs it.
        return ()
    return tuple(changes_between(before, open_revision(wanted)))
