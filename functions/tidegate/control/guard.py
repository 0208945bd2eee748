"""The guard: an alarm soon after a publish takes the publish back, once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tidegate.control.plane import ControlPlane
from tidegate.control.rollback import RollbackRequest, roll_back
from tidegate.ports import FlipAction, LiveEntry
from tidegate.rules.bundle import rules_of

ALARM_PERIODS = 3
"""Consecutive periods above its threshold before an alarm that calls the guard changes its state."""

ALARM_PERIOD_S = 60
"""The length of such a period, in seconds."""

BLAMELESS_S = (ALARM_PERIODS - 1) * ALARM_PERIOD_S
"""An alarm within this time of a publish was above its threshold for a whole span before it, so that going back to what
was live then would not end it."""


class GuardStatus(StrEnum):
    ROLLED_BACK = "rolled back"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Guarded:
    """Result of the guard: it rolled back from `before` to `revision`, or kept what is live, and why."""

    status: GuardStatus
    reason: str
    revision: str | None = None
    before: str | None = None

    def as_dict(self) -> dict[str, Any]:
        revisions = {"revision": rules_of(self.revision or ""), "before": rules_of(self.before or "")}
        return {"status": self.status, "reason": self.reason, **revisions}


async def guard(plane: ControlPlane, by: str, why: str, window_s: float, *, alarmed_at: float) -> Guarded:
    """Roll back what was published within the `window_s` seconds before an alarm, and mark it bad.

    A rollback is not rolled back: if the alarm goes on, the live revision is not better, and a person must look. Neither is
    what `recover` made live: a person chose it. An alarm long after the last publish has another cause than it, and one
    before it, or within `BLAMELESS_S`, is about what was live then.

    Args:
        alarmed_at: when the alarm changed its state, in Unix seconds.

    Raises:
        PublishError: no earlier revision is left, or it could not be made live.
    """
    pointer = await plane.reader.pointer()
    if pointer is None:
        remains = await plane.reader.remains()
        return Guarded(GuardStatus.KEPT, remains.problem or "nothing was ever published")
    live = pointer.arrival
    reason = _blameless(live, alarmed_at, window_s)
    if all(entry.revision == live.revision for entry in pointer.entries):
        reason = "there is no revision before"
    if reason is not None:
        return Guarded(GuardStatus.KEPT, reason, live.revision)
    request = RollbackRequest(by=by, why=why, leaving=live.revision)
    # The result has all that its steps would announce.
    result = await roll_back(plane, request, lambda _event: None)
    if result.earlier is not None:
        reason = f"{result.earlier.by} rolled it back already"
        return Guarded(GuardStatus.KEPT, reason, result.revision, result.before)
    return Guarded(GuardStatus.ROLLED_BACK, why, result.revision, result.before)


def _blameless(live: LiveEntry, alarmed_at: float, window_s: float) -> str | None:
    """Say why an alarm is not held against what is live; None where it is."""
    if live.action == FlipAction.ROLLBACK:
        return "the live revision is a rollback already; a person must look"
    if live.action != FlipAction.PUBLISH:
        return f"the live revision was not published: {live.by} made it live ({live.action}); a person must look"
    if alarmed_at < live.at + BLAMELESS_S:
        return f"the alarm is about what was live before: it came less than {BLAMELESS_S} s after the live revision"
    if alarmed_at - live.at > window_s:
        return f"the live revision was published more than {window_s:g} s before the alarm"
    return None
