"""The guard: an alarm soon after a publish takes the publish back, once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tidegate.control.plane import ControlPlane
from tidegate.control.steps import StepEvent


@dataclass(frozen=True, slots=True)
class Guarded:
    """What the guard did: `rolled back` from `before` to `revision`, or `kept` what is live, and why."""

    status: Literal["rolled back", "kept"]
    reason: str
    revision: str = ""
    before: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"status": self.status, "reason": self.reason, "revision": self.revision, "before": self.before}


async def guard(plane: ControlPlane, by: str, why: str, window_s: float) -> Guarded:
    """Roll back what was published within the last `window_s` seconds.

    A rollback is not rolled back: if the alarm goes on, the revision before is no better, and a person must look. An alarm
    long after the last publish has another cause than it.

    Args:
        plane: the control plane.
        by: who rolls back, for the history.
        why: why, for the history.
        window_s: how long after a publish an alarm is held against it, in seconds.

    Raises:
        StoreError: a store did not answer.
        PublishError: the revision before could not be made live.
    """
    pointer = await plane.reader.pointer()
    if pointer is None:
        return Guarded("kept", "nothing was ever published")
    live = pointer.live
    if live.action == "rollback":
        return Guarded("kept", "the live revision is a rollback already; a person must look", live.revision)
    if plane.ports.clock() - live.at > window_s:
        return Guarded("kept", f"the live revision was published more than {window_s:g} s ago", live.revision)
    if all(entry.revision == live.revision for entry in pointer.entries):
        return Guarded("kept", "there is no revision before", live.revision)
    result = await plane.rollbacker.roll_back(None, by=by, why=why, announce=_silent)
    return Guarded("rolled back", why, result.revision, result.before)


def _silent(_event: StepEvent) -> None:
    """The result says it all."""
