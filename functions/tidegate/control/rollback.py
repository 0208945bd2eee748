"""Rollback: an earlier revision becomes live again, in one write where its models are still loaded.

What a rollback leaves is marked bad, with the same write. So nobody gets back to it by accident: not by a second
rollback, not by an alarm that comes late, not by publishing the same rules again.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from tidegate.control.activation import Activated, Activation, Change
from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.desired import StateReader, rollback_revisions
from tidegate.control.reconcile import Reconciler
from tidegate.control.steps import Announce, Steps
from tidegate.errors import BundleError, ConflictError, PublishError
from tidegate.ports import BadMark, LiveEntry, Pointer
from tidegate.rules.bundle import begins_revision, revision_json, rules_of, short_revision

SHOWN = 5

Status = Literal["rolled back", "unchanged", "already rolled back"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRequest:
    """A rollback.

    Attributes:
        by: who rolls back.
        why: why, for the history.
        revision: the revision to make live, or the beginning of it; None: the last one before the live one that is not
            marked bad.
        leaving: the revision to leave, or the beginning of it: where it is not live any more, nothing is done. None:
            whatever is live, unless somebody else rolled back to it.
        even_if_bad: whether `revision` may be marked bad; then the mark is cleared.
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
        status: `rolled back`; `unchanged` where `revision` was live; `already rolled back` where somebody else was first.
        revision: what is live.
        before: what was live until then.
        activated: the flip and what followed; None where nothing was flipped.
        earlier: the flip of whoever was first.
    """

    status: Status
    revision: str
    before: str
    activated: Activated | None = None
    earlier: LiveEntry | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        entry = self.earlier if self.activated is None else self.activated.entry
        return {
            "status": self.status,
            **revision_json(self.revision),
            "before": rules_of(self.before),
            "marked_bad": rules_of(entry.marked_bad) if entry and entry.marked_bad else None,
            "cleared": entry is not None and entry.cleared,
            "rolled_back_by": None if self.earlier is None else self.earlier.by,
            "activated": None if self.activated is None else self.activated.as_dict(),
        }


class Rollbacker:
    """Rolls back, one revision at a time."""

    def __init__(self, ports: ControlPorts, config: ControlConfig, reader: StateReader, reconciler: Reconciler) -> None:
        self._ports = ports
        self._config = config
        self._reader = reader
        self._activation = Activation(ports, config, reader, reconciler)

    async def roll_back(self, request: RollbackRequest, announce: Announce) -> RollbackResult:
        """Make an earlier revision live, and mark the one that it replaces as bad; to take a rollback back marks nothing.

        Raises:
            PublishError: there is no such revision, it is ambiguous or marked bad, or a step up to the flip failed. What
                is live was not touched.
        """
        steps = Steps(announce, self._ports.clock)
        with steps.step("find") as step:
            base = await self._reader.pointer()
            if base is None:
                remains = await self._reader.remains()
                nothing = "nothing was ever published, so there is nothing to roll back to"
                raise PublishError("find", str(remains) or nothing)
            before = base.live.revision
            earlier = _earlier(base, request)
            if earlier is not None:
                step.outcome = f"{earlier.by} rolled back already"
                return RollbackResult("already rolled back", before, earlier.marked_bad, earlier=earlier)
            chosen = _choose(base, request)
            step.outcome = f"revision {chosen[:12]}"
            if chosen == before:
                step.outcome += " is live already"
                return RollbackResult("unchanged", chosen, before)
            change = await self._change(chosen, base, request)
        kept = chosen in rollback_revisions(base, self._config.keep_revisions)
        try:
            activated = await self._activation.run(change, steps, at_once=kept)
        except PublishError as error:
            if isinstance(error.__cause__, ConflictError):
                return await self._overtaken(base, request, error)
            raise
        return RollbackResult("rolled back", chosen, before, activated)

    async def _change(self, chosen: str, base: Pointer, request: RollbackRequest) -> Change:
        try:
            plans = await self._reader.assignment(chosen)
            engine = await self._reader.engine(chosen)
        except BundleError as error:
            raise PublishError("find", f"{error}; roll back to another revision, or publish its rules again") from error
        clears = base.mark(chosen) is not None
        is_newer = _published(base, chosen) > _published(base, base.live.revision)
        return Change(
            "rollback",
            chosen,
            base,
            plans,
            engine.targets(),
            request.by,
            request.why,
            marks_bad=not (clears and is_newer),
            clears=clears,
        )

    async def _overtaken(self, base: Pointer, request: RollbackRequest, error: PublishError) -> RollbackResult:
        """The result where another flip came first: of somebody who rolled back the same, nothing is left to do.

        Raises:
            PublishError: it was another flip, or the other rollback went elsewhere.
        """
        pointer = await self._reader.pointer()
        left = base.live.revision
        earlier = None if pointer is None else _marked(pointer, left)
        if pointer is None or earlier is None:
            raise error
        live = pointer.live.revision
        if request.revision is not None and not begins_revision(request.revision.lower(), live):
            raise PublishError(
                error.step,
                f"{earlier.by} rolled revision {left[:12]} back meanwhile, and {live[:12]} is live; look at it, then roll "
                "back again if it has to be another",
            ) from error
        return RollbackResult("already rolled back", live, left, earlier=earlier)


def _earlier(pointer: Pointer, request: RollbackRequest) -> LiveEntry | None:
    """The rollback of somebody else that did what is asked for already; None where there is none.

    Raises:
        PublishError: the revision to leave is not live, and nobody rolled it back since it was.
    """
    live = pointer.live
    if request.leaving is None:
        arrival = pointer.arrival
        is_done = request.revision is None and arrival.marked_bad and arrival.by != request.by
        return arrival if is_done else None
    left = _named(pointer, request.leaving)
    if left == live.revision:
        return None
    earlier = _marked(pointer, left)
    if earlier is None:
        raise PublishError(
            "find",
            f"revision {left[:12]} is not live: {live.by} made {live.revision[:12]} live ({live.action}); look at it, "
            f"then roll back with --from {short_revision(live.revision, (left,))} if it is to be left",
        )
    return earlier


def _marked(pointer: Pointer, left: str) -> LiveEntry | None:
    """The flip that rolled a revision back, since it was live last; None where none did."""
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
    """The revision that was live last, of those that were published before the live one and are not marked bad."""
    live = _published(pointer, pointer.live.revision)
    before = _before(pointer)
    older = [each for each in before if _published(pointer, each) < live]
    good = [each for each in older if pointer.mark(each) is None]
    if good:
        return good[0]
    if not before:
        raise PublishError("find", "no other revision was ever live; name no revision only where one was")
    marks = [describe_mark(mark) for each in before if (mark := pointer.mark(each)) is not None]
    raise PublishError(
        "find",
        "\n".join(
            [
                f"no revision before {pointer.live.revision[:12]} is left to roll back to: name one (`tidegate history`), "
                "or publish rules that are mended",
                *marks[:SHOWN],
            ]
        ),
    )


def _published(pointer: Pointer, revision: str) -> int:
    """The number of the flip that published a revision last, or else of the one that recovered it, as the flip that
    published it was lost; 0 where both are forgotten."""
    flips = [each for each in pointer.entries if each.revision == revision]
    found = (each.sequence for action in ("publish", "recover") for each in flips if each.action == action)
    return next(found, 0)


def _before(pointer: Pointer) -> Sequence[str]:
    """The other revisions that were live, the last one first."""
    return tuple(dict.fromkeys(each.revision for each in pointer.entries if each.revision != pointer.live.revision))


def _named(pointer: Pointer, wanted: str) -> str:
    """The revision that was live and begins with `wanted`.

    Raises:
        PublishError: none does, or several do.
    """
    known = (pointer.live.revision, *_before(pointer))
    found = [each for each in known if begins_revision(wanted.lower(), each)]
    if len(found) == 1 and wanted:
        return found[0]
    shown = ", ".join(short_revision(each, known) for each in (found or known)[:SHOWN])
    if found:
        raise PublishError("find", f"{wanted!r} begins {len(found)} revisions ({shown}); give more of it")
    raise PublishError("find", f"no revision that was live begins with {wanted!r}; the last ones are {shown}")


def describe_mark(mark: BadMark) -> str:
    """A mark in words: who marked what as bad, when and why."""
    at = datetime.fromtimestamp(mark.at, UTC).isoformat(timespec="seconds")
    why = f": {mark.why}" if mark.why else ""
    return f"revision {mark.revision[:12]} was marked bad by {mark.by} at {at}{why}"
