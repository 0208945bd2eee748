"""Activate: a stored revision becomes live. Claim, try, load, validate, flip, confirm, drain, unload."""

from __future__ import annotations

import contextlib

from tidegate.control.change import Activated, Change
from tidegate.control.claims import HeldClaim, publishing
from tidegate.control.desired import Desired
from tidegate.control.flip import clean_up, flip, follow_flip
from tidegate.control.load import load_models
from tidegate.control.plane import ControlPlane
from tidegate.control.plans import same_but_versions
from tidegate.control.rollout import Rollout
from tidegate.control.steps import Step, Steps
from tidegate.control.trying import try_models
from tidegate.control.validate import is_ready_everywhere, validate
from tidegate.errors import PublishError, StoreError
from tidegate.rules.bundle import short_revision

LAPSES = 3
"""How often a lapsed claim is made again before the publish fails."""


async def activate(plane: ControlPlane, change: Change, steps: Steps) -> Activated:
    """Make a revision live whose bundle and assignment are stored.

    Raises:
        PublishError: a step up to the flip failed. What is live was not touched.
    """
    rollout = Rollout(plane, change)
    try:
        return await _activate_claimed(rollout, steps)
    except PublishError:
        await clean_up(rollout)
        raise


async def activate_kept(plane: ControlPlane, change: Change, steps: Steps) -> Activated:
    """Make a revision live whose models stay loaded as long as the pointer does not move: with the flip alone, and without a
    claim, where every target is READY already.

    Raises:
        PublishError: a step up to the flip failed. What is live was not touched.
    """
    rollout = Rollout(plane, change)
    try:
        is_ready = await is_ready_everywhere(rollout)
    except StoreError:
        is_ready = False
    if not is_ready:
        return await activate(plane, change, steps)
    for name in ("claim", "try", "load", "validate"):
        steps.skip(name, "everything is READY")
    with steps.step("flip") as step:
        entry = await flip(plane, change, step)
    return await follow_flip(rollout, entry, steps)


async def _activate_claimed(rollout: Rollout, steps: Steps) -> Activated:
    plane, change = rollout.plane, rollout.change
    async with contextlib.AsyncExitStack() as stack:
        with steps.step("claim") as step:
            claim = publishing(plane, change.revision, change.by, change.base, step.note)
            held = await stack.enter_async_context(claim)
            rollout.desired = await _desired(plane, change)
        await try_models(rollout, steps)
        with steps.step("load") as step:
            await load_models(rollout, step.note)
            await held.prove()
            rollout.proved_at = plane.ports.clock()
            step.outcome = rollout.summary
        with steps.step("validate") as step:
            await validate(rollout, held, step.note)
            count = len(change.targets)
            step.outcome = "1 target is READY" if count == 1 else f"{count} targets are READY"
            if rollout.unproved:
                step.outcome += f"; unproved: {', '.join(sorted(rollout.unproved))}"
        with steps.step("flip") as step:
            await _keep_claim(rollout, held, step)
            entry = await flip(plane, change, step)
        return await follow_flip(rollout, entry, steps)


async def _desired(plane: ControlPlane, change: Change) -> Desired:
    """Read what the fleet must hold, with the change claimed. Raises `PublishError`: a model of the change cannot be
    loaded beside what must stay."""
    desired = await plane.reader.read()
    for shard, plan in change.plans.items():
        needed = {load.model: load for load in desired.plan(shard)}
        for load in plan:
            if load.model in needed and not same_but_versions(needed[load.model], load):
                raise PublishError(
                    "claim",
                    f"ensemble {load.model!r} is loaded on shard {shard!r} with other versions of its open steps than "
                    f"revision {short_revision(change.revision)} needs, and a server holds one config of it: pin the steps of "
                    "two ensembles of different names instead",
                )
    return desired


async def _keep_claim(rollout: Rollout, held: HeldClaim, step: Step) -> None:
    """Check that the claim is still valid for everybody; where it lapsed, claim and validate again."""
    for _ in range(LAPSES):
        if held.valid:
            return
        step.note("the claim has lapsed meanwhile; claiming and validating again")
        await held.be_alone(rollout.change.base, step.note)
        rollout.desired = await _desired(rollout.plane, rollout.change)
        rollout.proved_at = rollout.plane.ports.clock()
        await validate(rollout, held, step.note)
    raise StoreError("the claim cannot be kept: the store answers too slowly; publish again once it is faster")
