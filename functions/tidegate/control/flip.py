"""Flip: the pointer moves to the revision, which is live from then on. Then gateways confirm that, requests of the revision
before end (drain), and its models are unloaded."""

from __future__ import annotations

import asyncio
import contextlib

from tidegate.control.base import refuse_moved
from tidegate.control.change import AbsentShard, Activated, Change
from tidegate.control.desired import Reason
from tidegate.control.endpoints import POLL_S
from tidegate.control.plane import ControlPlane
from tidegate.control.reconcile import reconcile_fleet
from tidegate.control.rollout import Rollout
from tidegate.control.steps import Step, Steps
from tidegate.errors import ConflictError, StoreError, TidegateError
from tidegate.ports import FlipAction, LiveEntry, Pointer
from tidegate.rules.bundle import short_revision

CLEAN_UP_S = 10.0
SHOWN_GATEWAYS = 5


async def flip(plane: ControlPlane, change: Change, step: Step) -> LiveEntry:
    """Move the pointer. Return the flip.

    Raises:
        ConflictError: another revision is live in place of the base, or a draft was replaced.
        StoreError: the pointer did not move, or it is not known whether it did.
    """
    base = change.base
    if change.pins:
        # Sealing a draft cannot be undone, so it must not happen if the flip is known to fail.
        refuse_moved(await plane.reader.pointer(), base)
        await plane.ports.models.seal(change.pins)
    entry = change.entry(plane.ports.clock())
    try:
        await plane.ports.bundles.flip(entry, base)
    except ConflictError:
        raise
    except StoreError as error:
        pointer = await _pointer_after_failure(plane, entry)
        if pointer is None or entry not in pointer.entries:
            refuse_moved(pointer, base)
            raise StoreError(
                f"could not move the pointer to the live revision: {error}; publish again once the store answers"
            ) from error
    step.outcome = f"revision {short_revision(change.revision)} is live"
    return entry


async def _pointer_after_failure(plane: ControlPlane, entry: LiveEntry) -> Pointer | None:
    """Read the pointer after a flip without an answer, which may have taken place. Raises `StoreError`: the store does
    not say."""
    try:
        return await plane.reader.pointer()
    except StoreError as error:
        raise StoreError(
            f"whether revision {short_revision(entry.revision)} is live is unknown, as the store does not answer: {error}; see "
            "`tidegate status` when it does; publishing again is safe"
        ) from error


async def _record(plane: ControlPlane, entry: LiveEntry) -> list[str]:
    try:
        pointer = await plane.reader.pointer()
        if pointer is not None:
            await plane.ports.bundles.record(pointer)
    except StoreError as error:
        return [f"flip {entry.sequence} is not in the history yet, and the next publish writes it: {error}"]
    return []


async def follow_flip(rollout: Rollout, entry: LiveEntry, steps: Steps) -> Activated:
    """Record, confirm, drain and unload. Problems become warnings, and are left to the next reconcile."""
    plane, base = rollout.plane, rollout.change.base
    absent: tuple[AbsentShard, ...] = ()
    with contextlib.suppress(TidegateError):
        absent = await rollout.presence.absences()
    warnings = [*(await _record(plane, entry)), *map(str, absent)]
    confirmed: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()
    try:
        with steps.step("confirm") as step:
            confirmed, unconfirmed = await _confirm(plane, entry)
            step.outcome = "1 gateway serves it" if len(confirmed) == 1 else f"{len(confirmed)} gateways serve it"
            if unconfirmed:
                late = ", ".join(unconfirmed[:SHOWN_GATEWAYS])
                if len(unconfirmed) > SHOWN_GATEWAYS:
                    late += f" and {len(unconfirmed) - SHOWN_GATEWAYS} more"
                step.outcome += f"; {late} did not say so in {plane.config.confirm_s:g} s"
                warnings.append(f"gateways that do not serve it yet: {late}; see `tidegate status`")
        if entry.follows is not None or (entry.action == FlipAction.ROLLBACK and not rollout.loads):
            # A rollback is urgent, and so is a file that is saved again. What is loaded too much does no harm, and a stack
            # that follows a directory reconciles all the time.
            steps.skip("drain", "what is not needed any more is left to the next reconcile")
        else:
            await _drain(plane, entry, steps)
        with steps.step("unload") as step:
            step.outcome = str(await reconcile_fleet(plane, rollout.change.by))
    except TidegateError as error:
        warnings.append(f"{error}; the revision is live, and the next reconcile does the rest")
    pauses = base is not None and base.live.follows is not None and entry.follows is None
    return Activated(
        entry, pauses, dict(rollout.loads), confirmed, unconfirmed, tuple(warnings), rollout.unproved, absent
    )


async def _confirm(plane: ControlPlane, entry: LiveEntry) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Wait for the gateways. Return those that serve the revision, and those that do not yet."""
    deadline = plane.ports.clock() + plane.config.confirm_s
    while True:
        gateways = await plane.ports.registry.gateways()
        late = tuple(each.id for each in gateways if each.revision != entry.revision)
        pointer = await plane.reader.pointer()
        is_overtaken = pointer is None or pointer.live != entry
        if not late or is_overtaken or plane.ports.clock() > deadline:
            return tuple(each.id for each in gateways if each.revision == entry.revision), late
        await asyncio.sleep(POLL_S)


async def _drain(plane: ControlPlane, entry: LiveEntry, steps: Steps) -> None:
    desired = await plane.reader.read()
    leaving = [short_revision(held.revision) for held in desired.held if held.reason is Reason.DRAINING]
    if not leaving:
        steps.skip("drain", "nothing that served until now is unloaded")
        return
    with steps.step("drain") as step:
        step.note(f"requests of revision {', '.join(leaving)} may be under way")
        await asyncio.sleep(max(0.0, entry.at + plane.config.drain_s - plane.ports.clock()))


async def clean_up(rollout: Rollout) -> None:
    """Mark wedged endpoints, and unload what a failed activation loaded. What fails of it is left to a reconcile."""
    with contextlib.suppress(TidegateError, TimeoutError):
        # After the claim is gone: the successor of a wedged server must not load what wedged it.
        for entry, note in rollout.wedged.items():
            await rollout.plane.ports.registry.mark_wedged(entry.endpoint, note)
        if rollout.loads:
            async with asyncio.timeout(CLEAN_UP_S):
                await reconcile_fleet(rollout.plane, rollout.change.by)
