"""Push: send what the stores lack of a revision: models, the bundle, and the plan of each shard."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from tidegate.control.assign import Assignment
from tidegate.control.desired import Desired
from tidegate.control.plane import ControlPlane
from tidegate.control.plans import units_of
from tidegate.control.steps import Step
from tidegate.errors import BundleError
from tidegate.ports import PushOutcome, Unit


async def push_models(
    plane: ControlPlane, unpushed: Mapping[str, Path], desired: Desired, step: Step
) -> tuple[PushOutcome, ...]:
    """Push the folders of models, without changing drafts that publishers claim. Return what was sent."""

    def progress(model: str) -> Callable[[str, int, int], None]:
        return lambda path, sent, total: step.progress(f"{model}/{path}", sent, total)

    outcomes = await plane.ports.models.push_all(unpushed, progress, units_of(desired.claimed))
    sent = tuple(outcome for outcome in outcomes if outcome.files or outcome.replaced)
    for outcome in sent:
        if outcome.replaced:
            step.note(f"{_replaced(outcome)} of {outcome.model!r} took the place of one that was never live")
    files, size_bytes = sum(outcome.files for outcome in sent), sum(outcome.size_bytes for outcome in sent)
    sent_text = f"{files} files of {len(sent)} models, {size_bytes} bytes"
    step.outcome = sent_text if sent else "everything was pushed before"
    return sent


async def plan_push(
    plane: ControlPlane, unpushed: Mapping[str, Path], desired: Desired, step: Step
) -> tuple[PushOutcome, ...]:
    claimed = units_of(desired.claimed)
    plans = [await plane.ports.models.plan(model, folder, claimed) for model, folder in unpushed.items()]
    outcomes = tuple(
        PushOutcome(plan.model, plan.versions, len(plan.files), plan.size_bytes, plan.replaced)
        for plan in plans
        if not plan.is_done
    )
    step.outcome = f"dry run: {len(outcomes)} models would be sent" if outcomes else "dry run: nothing to send"
    return outcomes


async def repair_assignment(plane: ControlPlane, revision: str) -> None:
    """Store the assignment of a revision again, if this process remembers it."""
    with contextlib.suppress(BundleError):
        await plane.ports.bundles.put_assignment(revision, await plane.reader.assignment(revision))


async def store_assignment(
    plane: ControlPlane, assignment: Assignment, desired: Desired
) -> tuple[Assignment, Mapping[Unit, str]]:
    """Store a bundle, and what each shard must hold. Return that as it is stored, and the drafts that it needs.

    Plans that are stored already count, except those of drafts, which may have been replaced since.
    """
    bundles = plane.ports.bundles
    pins = await plane.ports.models.pin(units_of(assignment.plans.values()) - units_of(desired.published))
    # Even if it is live already: that replaces a damaged bundle.
    await bundles.put_bundle(assignment.bundle)
    try:
        stored = await plane.reader.assignment(assignment.revision)
    except BundleError:
        await bundles.put_assignment(assignment.revision, assignment.plans)
        return assignment, pins
    if pins and stored != assignment.plans:
        # It was planned with the config of a draft that has been replaced since.
        await bundles.replace_assignment(assignment.revision, stored, assignment.plans)
        return assignment, pins
    return replace(assignment, plans=stored), pins


def _replaced(outcome: PushOutcome) -> str:
    versions = [str(version) for version in outcome.replaced if version is not None]
    named = [f"version {', '.join(versions)}"] if versions else []
    return " and ".join([*(["the config"] if None in outcome.replaced else []), *named])
