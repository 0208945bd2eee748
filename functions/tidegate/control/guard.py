"""The guard: an alarm soon after a publish takes the publish back, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tidegate.control.plane import ControlPlane
from tidegate.control.rollback import RollbackRequest
from tidegate.control.steps import StepEvent
from tidegate.ports import LiveEntry
from tidegate.rules.bundle import rules_of

ALARM_PERIODS = 3
"""How many spans in a row are above its threshold before an alarm that calls the guard changes its state."""

ALARM_PERIOD_S = 60
"""How long such a span is, in seconds."""

BLAMELESS_S = (ALARM_PERIODS - 1) * ALARM_PERIOD_S
"""An alarm within this time of a publish was above its threshold for a whole span before it, so that going back to what
was live then would not end it."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """What the guard did: `rolled back` from `before` to `revision`, or `kept` what is live, and why."""

    status: Literal["rolled back", "kept"]
    reason: str
    revision: str = ""
    before: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        revisions = {"revision": rules_of(self.revision), "before": rules_of(self.before)}
        return {"status": self.status, "reason": self.reason, **revisions}


async def guard(plane: ControlPlane, by: str, why: str, window_s: float, *, alarmed_at: float) -> Guarded:
    """Roll back what was published within the `window_s` seconds before an alarm, and mark it bad.

    A rollback is not rolled back: if the alarm goes on, what is live now is no better, and a person must look. Neither is
    what `recover` made live: a person chose it. An alarm long after the last publish has another cause than it, and one
    before it, or within `BLAMELESS_S`, is about what was live then.

    Args:
        plane: the control plane.
        by: who rolls back, for the history.
        why: why, for the history.
        window_s: how long after a publish an alarm is held against it, in seconds.
        alarmed_at: when the alarm changed its state, in Unix seconds.

    Raises:
        StoreError: a store did not answer.
        PublishError: no earlier revision is left, or it could not be made live.
    """
    pointer = await plane.reader.pointer()
    if pointer is None:
        remains = await plane.reader.remains()
        return Guarded("kept", str(remains) or "nothing was ever published")
    live = pointer.arrival
    reason = _blameless(live, alarmed_at, window_s)
    if all(entry.revision == live.revision for entry in pointer.entries):
        reason = "there is no revision before"
    if reason:
        return Guarded("kept", reason, live.revision)
    request = RollbackRequest(by=by, why=why, leaving=live.revision)
    result = await plane.rollbacker.roll_back(request, _silent)
    if result.earlier is not None:
        return Guarded("kept", f"{result.earlier.by} rolled it back already", result.revision, result.before)
    return Guarded("rolled back", why, result.revision, result.before)


def _blameless(live: LiveEntry, alarmed_at: float, window_s: float) -> str:
    """Why an alarm is not held against what is live; empty where it is."""
    if live.action == "rollback":
        return "the live revision is a rollback already; a person must look"
    if live.action != "publish":
        return f"the live revision was not published: {live.by} made it live ({live.action}); a person must look"
    if alarmed_at < live.at + BLAMELESS_S:
        return f"the alarm is about what was live before: it came less than {BLAMELESS_S} s after the live revision"
    if alarmed_at - live.at > window_s:
        return f"the live revision was published more than {window_s:g} s before the alarm"
    return ""


def _silent(_event: StepEvent) -> None:
    """The result says it all."""
