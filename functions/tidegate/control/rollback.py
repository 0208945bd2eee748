"""Rollback: an earlier revision becomes live again, in one write where its models are still loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tidegate.control.activation import Activated, Activation, Change
from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.desired import StateReader, rollback_revisions
from tidegate.control.reconcile import Reconciler
from tidegate.control.steps import Announce, Steps
from tidegate.errors import BundleError, PublishError
from tidegate.ports import Pointer

SHOWN = 5


@dataclass(frozen=True, slots=True)
class RollbackResult:
    """What came of a rollback: from which revision to which; `activated` is None where it was live already."""

    revision: str
    before: str
    activated: Activated | None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        activated = None if self.activated is None else self.activated.as_dict()
        status = "unchanged" if self.activated is None else "rolled back"
        return {"status": status, "revision": self.revision, "before": self.before, "activated": activated}


class Rollbacker:
    """Rolls back, one revision at a time."""

    def __init__(self, ports: ControlPorts, config: ControlConfig, reader: StateReader, reconciler: Reconciler) -> None:
        self._ports = ports
        self._config = config
        self._reader = reader
        self._activation = Activation(ports, config, reader, reconciler)

    async def roll_back(self, revision: str | None, *, by: str, why: str = "", announce: Announce) -> RollbackResult:
        """Make an earlier revision live.

        Args:
            revision: the revision, or the beginning of it; None: the one that was live before the live one.
            by: who rolls back.
            why: why, for the history.
            announce: is told every step.

        Raises:
            PublishError: there is no such revision, it is ambiguous, or a step up to the flip failed. What is live was
                not touched.
        """
        steps = Steps(announce, self._ports.clock)
        with steps.step("find") as step:
            base = await self._reader.pointer()
            chosen = _choose(base, revision)
            assert base is not None
            before = base.live.revision
            step.outcome = f"revision {chosen[:12]}"
            if chosen == before:
                step.outcome += " is live already"
                return RollbackResult(chosen, before, None)
            try:
                plans = await self._reader.assignment(chosen)
                engine = await self._reader.engine(chosen)
            except BundleError as error:
                raise PublishError(
                    "find", f"{error}; roll back to another revision, or publish its rules again"
                ) from error
        change = Change("rollback", chosen, base, plans, engine.targets(), by, why)
        kept = chosen in rollback_revisions(base, self._config.keep_revisions)
        activated = await self._activation.run(change, steps, at_once=kept)
        return RollbackResult(chosen, before, activated)


def _choose(pointer: Pointer | None, wanted: str | None) -> str:
    if pointer is None:
        raise PublishError("find", "nothing was ever published, so there is nothing to roll back to")
    before = rollback_revisions(pointer, len(pointer.entries))
    if wanted is None:
        if not before:
            raise PublishError("find", "no other revision was ever live; name no revision only where one was")
        return before[0]
    known = (pointer.live.revision, *before)
    found = [each for each in known if each.startswith(wanted.lower())]
    if len(found) == 1 and wanted:
        return found[0]
    shown = ", ".join(each[:12] for each in (found or known)[:SHOWN])
    if found:
        raise PublishError("find", f"{wanted!r} begins {len(found)} revisions ({shown}); give more of it")
    raise PublishError("find", f"no revision that was live begins with {wanted!r}; the last ones are {shown}")
