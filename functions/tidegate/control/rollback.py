"""Rollback: an earlier revision becomes live again, in one write if its models are still loaded.

The same write marks the revision that it leaves as bad. So that is not reached again by accident: not by a second rollback,
not by an alarm that comes late, not by publishing the same rules again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tidegate.control.activate import activate, activate_kept
from tidegate.control.change import Activated, Change
from tidegate.control.desired import rollback_revisions
from tidegate.control.plane import ControlPlane
from tidegate.control.steps import Announce, Steps
from tidegate.errors import BundleError, ConflictError, PublishError
from tidegate.ports import BadMark, FlipAction, LiveEntry, Pointer
from tidegate.rules.bundle import begins_revision, revision_json, rules_of, short_revision

SHOWN = 5


class RollbackStatus(StrEnum):
    """End of a rollback. `unchanged`: the revision was live; `already rolled back`: somebody else was first."""

    ROLLED_BACK = "rolled back"
    UNCHANGED = "unchanged"
    ALREADY = "already rolled back"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRequest:
    """A rollback.

    Attributes:
        revision: the revision to make live, or its beginning; None: the last one before the live one that is not marked
            bad.
        leaving: the revision to leave, or its beginning: where it is not live any more, nothing is done. None: whatever
            is live, unless somebody else rolled back to it.
        even_if_bad: accept a `revision` that is marked bad, and clear the mark.
    """

    by: str
    why: str = ""
    revision: str | None = None
    leaving: str | None = None
    even_if_bad: bool = False


@dataclass(frozen=True, slots=True)
class RollbackResult:
    """Result of a rollback.

    Attributes:
    """

    status: RollbackStatus
    revision: str
    before: str
    activated: Activated | None = None
    earlier: LiveEntry | None = None

    def as_dict(self) -> dict[str, Any]:
        entry = self.earlier if self.activated is None else self.activated.entry
        return {
            "status": self.status,
            **revision_json(self.revision),
            "before": rules_of(self.before),
            "marked_bad": entry and entry.marked_bad and rules_of(entry.marked_bad),
            "cleared": entry is not None and entry.cleared,
            "rolled_back_by": None if self.earlier is None else self.earlier.by,
            "activated": None if self.activated is None else self.activated.as_dict(),
        }


async def roll_back(plane: ControlPlane, request: RollbackRequest, announce: Announce) -> RollbackResult:
    """Make an earlier revision live, and mark the one that it replaces as bad. Taking a rollback back marks nothing.

    Raises:
        PublishError: there is no such revision, it is ambiguous or marked bad, or a step up to the flip failed. What is
            live was not touched.
    """
    steps = Steps(announce, plane.ports.clock)
    with steps.step("find") as step:
        base = await plane.reader.pointer()
        if base is None:
            remains = await plane.reader.remains()
            nothing = "nothing was ever published, so there is nothing to roll back to"
            raise PublishError("find", remains.problem or nothing)
        before = base.live.revision
        earlier = _earlier(base, request)
        if earlier is not None:
            step.outcome = f"{earlier.by} rolled back already"
            assert earlier.marked_bad is not None
            return RollbackResult(RollbackStatus.ALREADY, before, earlier.marked_bad, earlier=earlier)
        chosen = _choose(base, request)
        step.outcome = f"revision {short_revision(chosen)}"
        if chosen == before:
            step.outcome += " is live already"
            return RollbackResult(RollbackStatus.UNCHANGED, chosen, before)
        change = await _change(plane, chosen, base, request)
    is_kept = chosen in rollback_revisions(base, plane.config.keep_revisions)
    try:
        activated = await (activate_kept if is_kept else activate)(plane, change, steps)
    except PublishError as error:
        if isinstance(error.__cause__, ConflictError):
            return await _overtaken(plane, base, request, error)
        raise
    return RollbackResult(RollbackStatus.ROLLED_BACK, chosen, before, activated)


async def _change(plane: ControlPlane, chosen: str, base: Pointer, request: RollbackRequest) -> Change:
    try:
        plans = await plane.reader.assignment(chosen)
        engine = await plane.reader.engine(chosen)
    except BundleError as error:
        raise PublishError("find", f"{error}; roll back to another revision, or publish its rules again") from error
    clears = base.mark(chosen) is not None
    is_newer = _published(base, chosen) > _published(base, base.live.revision)
    return Change(
        action=FlipAction.ROLLBACK,
        revision=chosen,
        base=base,
        plans=plans,
        targets=engine.targets(),
        by=request.by,
        why=request.why,
        marks_bad=not (clears and is_newer),
        clears=clears,
    )


async def _overtaken(
    plane: ControlPlane, base: Pointer, request: RollbackRequest, error: PublishError
) -> RollbackResult:
    """Return the result where another flip came first: if somebody rolled back the same, nothing is left to do. Raises
    `PublishError`: it was another flip, or the other rollback went elsewhere."""
    pointer = await plane.reader.pointer()
    left = base.live.revision
    earlier = None if pointer is None else _marked(pointer, left)
    if pointer is None or earlier is None:
        raise error
    live = pointer.live.revision
    if request.revision is not None and not begins_revision(request.revision.lower(), live):
        raise PublishError(
            error.step,
            f"{earlier.by} rolled revision {short_revision(left)} back meanwhile, and {short_revision(live)} is live; look at it, then roll "
            "back again if it has to be another",
        ) from error
    return RollbackResult(RollbackStatus.ALREADY, live, left, earlier=earlier)


def _earlier(pointer: Pointer, request: RollbackRequest) -> LiveEntry | None:
    """Return somebody else's rollback that already did what was asked; None if there is none. Raises
    `PublishError`: the revision to leave is not live, and was not rolled back since it was."""
    live = pointer.live
    if request.leaving is None:
        arrival = pointer.arrival
        is_done = request.revision is None and arrival.marked_bad is not None and arrival.by != request.by
        return arrival if is_done else None
    left = _named(pointer, request.leaving)
    if left == live.revision:
        return None
    earlier = _marked(pointer, left)
    if earlier is None:
        raise PublishError(
            "find",
            f"revision {short_revision(left)} is not live: {live.by} made {short_revision(live.revision)} live ({live.action}); look at it, "
            f"then roll back with --from {short_revision(live.revision, (left,))} if it is to be left",
        )
    return earlier


def _marked(pointer: Pointer, left: str) -> LiveEntry | None:
    since = itertools.takewhile(lambda each: each.revision != left, pointer.entries)
    return next((each for each in since if each.marked_bad == left), None)


def _choose(pointer: Pointer, request: RollbackRequest) -> str:
    if request.revision is None:
        return _last_good(pointer)
    chosen = _named(pointer, request.revision)
    mark = pointer.mark(chosen)
    if mark is not None and not request.even_if_bad:
        raise PublishError(
            "find", f"{describe_mark(mark)}; roll back to another revision, or give --even-if-bad to clear the mark"
        )
    return chosen


def _last_good(pointer: Pointer) -> str:
    """Return the revision that was live last, of those that were published before the live one and are not marked bad."""
    live = _published(pointer, pointer.live.revision)
    before = _before(pointer)
    older = [each for each in before if _published(pointer, each) < live]
    good = [each for each in older if pointer.mark(each) is None]
    if good:
        return good[0]
    if not before:
        raise PublishError("find", "there is nothing to roll back to: no other revision was ever live")
    marks = [describe_mark(mark) for each in before if (mark := pointer.mark(each)) is not None]
    raise PublishError(
        "find",
        "\n".join(
            [
                f"no revision before {short_revision(pointer.live.revision)} is left to roll back to: name one (`tidegate history`), "
                "or publish corrected rules",
                *marks[:SHOWN],
            ]
        ),
    )


def _published(pointer: Pointer, revision: str) -> int:
    """Return the number of the flip that published a revision last, or else of the one that recovered it, as the flip that
    published it was lost; 0 where neither is known any more."""
    flips = [each for each in pointer.entries if each.revision == revision]
    actions = (FlipAction.PUBLISH, FlipAction.RECOVER)
    return next((each.sequence for action in actions for each in flips if each.action == action), 0)


def _before(pointer: Pointer) -> Sequence[str]:
    return tuple(dict.fromkeys(each.revision for each in pointer.entries if each.revision != pointer.live.revision))


def _named(pointer: Pointer, wanted: str) -> str:
    """Return the revision that was live and begins with `wanted`. Raises `PublishError`: none does, or several do."""
    known = (pointer.live.revision, *_before(pointer))
    found = [each for each in known if begins_revision(wanted.lower(), each)]
    if len(found) == 1 and wanted:
        return found[0]
    shown = ", ".join(short_revision(each, known) for each in (found or known)[:SHOWN])
    if found:
        raise PublishError("find", f"{wanted!r} begins {len(found)} revisions ({shown}); give more of it")
    raise PublishError("find", f"no revision that was live begins with {wanted!r}; the last ones are {shown}")


def describe_mark(mark: BadMark) -> str:
    why = f": {mark.why}" if mark.why else ""
    return f"revision {short_revision(mark.revision)} was marked bad by {mark.by} at {mark.when}{why}"
