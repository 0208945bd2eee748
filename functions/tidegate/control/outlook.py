"""The outlook of a publish: what it changes of the rules, and what is loaded and unloaded for it on each shard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidegate.control.assign import Assignment
from tidegate.control.desired import Desired, rollback_revisions
from tidegate.control.plans import NOTHING, Plan
from tidegate.errors import BundleError
from tidegate.ports import LiveEntry
from tidegate.ports.store_rules import pointer_after

if TYPE_CHECKING:
    from tidegate.analysis.compare.changes import Change

Labels = Mapping[str, tuple[str, ...]]
"""Models as `name/version,version`, by shard; a shard without any is left out."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """The changes that a publish of a revision would cause.

    Attributes:
        loads: models that no other revision has loaded.
        unloads: models that nothing needs once requests have drained. Revisions that can be rolled back to keep theirs.
        changes: differences of the rules; empty if there are none, or nothing was live.
    """

    loads: Labels = field(default_factory=dict)
    unloads: Labels = field(default_factory=dict)
    changes: tuple[Change, ...] = ()


def outlook(assignment: Assignment, desired: Desired, live: bytes | None, keep_revisions: int) -> Outlook:
    """Return what changes when an assignment becomes live in place of the bundle `live`."""
    flipped = pointer_after(LiveEntry(assignment.revision, 0, "", 0.0), desired.pointer)
    staying = {assignment.revision, *rollback_revisions(flipped, keep_revisions)}
    kept = [each.plans or {} for each in desired.held if each.revision in staying or each.reason.is_claim]
    kept.append(assignment.plans)
    loads: dict[str, tuple[str, ...]] = {}
    unloads: dict[str, tuple[str, ...]] = {}
    for shard in sorted(assignment.plans.keys() | desired.plans.keys()):
        now, after = _units([desired.plan(shard)]), _units(plans.get(shard, NOTHING) for plans in kept)
        if new := _units([assignment.plans.get(shard, NOTHING)]) - now:
            loads[shard] = _labels(new)
        # While something cannot be read, nothing is unloaded.
        if desired.complete and now - after:
            unloads[shard] = _labels(now - after)
    changes = () if live is None else changes_of_rules(live, assignment.bundle)
    return Outlook(loads, unloads, changes)


def _units(plans: Iterable[Plan]) -> set[tuple[str, int]]:
    return {(load.model, version) for plan in plans for load in plan for version in load.versions}


def _labels(units: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    versions: dict[str, list[str]] = {}
    for model, version in sorted(units):
        versions.setdefault(model, []).append(str(version))
    return tuple(f"{model}/{','.join(found)}" for model, found in versions.items())


def changes_of_rules(before: bytes, after: bytes) -> tuple[Change, ...]:
    """Return what is different in the rules of two bundles; nothing where `before` cannot be read."""
    if before == after:
        return ()
    # Not needed by a reconcile or a rollback, and slow to import.
    from tidegate.analysis.compare.changes import changes_between
    from tidegate.analysis.compare.revision import open_revision

    try:
        opened = open_revision(before)
    except BundleError:
        # Status reports it, and a publish repairs it.
        return ()
    return tuple(changes_between(opened, open_revision(after)))
