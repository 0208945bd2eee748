"""Publish: from rules and a folder of models to a revision that serves. What is live stays untouched until the flip."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from tidegate.control.activate import activate
from tidegate.control.assign import Assignment, assign, live_engine
from tidegate.control.base import check_base, explain_conflict, read_base
from tidegate.control.change import Activated, Change
from tidegate.control.check import check_models, check_rules, check_samples
from tidegate.control.desired import Desired
from tidegate.control.following import pause_of, refuse_paused
from tidegate.control.outlook import Outlook, outlook
from tidegate.control.plane import ControlPlane
from tidegate.control.push import plan_push, push_models, repair_assignment, store_assignment
from tidegate.control.rollback import describe_mark
from tidegate.control.steps import Announce, Step, Steps
from tidegate.errors import BundleError, ConflictError, PublishError
from tidegate.ports import FlipAction, Pointer, PushOutcome, Unit
from tidegate.ports.sources import ModelsSource, RulesSource
from tidegate.rules import load_bundle
from tidegate.rules.bundle import revision_json, rules_of, short_revision


class PublishStatus(StrEnum):
    """How a publish ended. `unchanged`: the revision was live already; `planned`: it was a dry run."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    PLANNED = "planned"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRequest:
    """A publish that somebody asked for.

    Attributes:
        models: the folder of the models; None: everything was pushed before.
        require_samples: refuse targets without a golden request.
        even_if_bad: accept a revision that was rolled back, and clear its mark.
        onto: the revision that must be live when it begins, or its beginning, or `none`; None: whatever is live then.
            It goes live only in place of that.
        start_over: begin a new history, as the pointer is lost for good.
        retries: try models again that failed a try of this process shortly before, as a person asked for it.
        follows: the directory that it publishes because that is followed. It is refused while following is paused.
        resumes: continue following; the directory becomes live again also where it is live already.
    """

    rules: RulesSource
    models: ModelsSource | None = None
    by: str
    why: str = ""
    dry_run: bool = False
    require_samples: bool = False
    even_if_bad: bool = False
    onto: str | None = None
    start_over: bool = False
    retries: bool = True
    follows: str | None = None
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class PublishResult:
    """Result of a publish.

    Attributes:
        pushed: what was sent to the model store; for a dry run what would be.
        notes: what the rules leave open and was decided here, and what else there is to know.
    """

    status: PublishStatus
    revision: str
    outlook: Outlook = Outlook()  # noqa: RUF009  # immutable
    pushed: tuple[PushOutcome, ...] = ()
    notes: tuple[str, ...] = ()
    activated: Activated | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "status": self.status,
            **revision_json(self.revision),
            "changes": [asdict(each) for each in self.outlook.changes],
            "loads": {shard: list(models) for shard, models in self.outlook.loads.items()},
            "unloads": {shard: list(models) for shard, models in self.outlook.unloads.items()},
            "pushed": [
                asdict(each) | {"replaced": ["config" if version is None else version for version in each.replaced]}
                for each in self.pushed
            ],
            "notes": list(self.notes),
            "activated": None if self.activated is None else self.activated.as_dict(),
        }


async def publish_rules(plane: ControlPlane, request: PublishRequest, announce: Announce) -> PublishResult:
    """Check, test, assign, push, claim, try, load, validate, flip, confirm, drain, unload.

    Raises:
        PublishError: a step failed; it names the step, says why and what to do. What is live was not touched, also
            where somebody else made another revision live since this began.
    """
    steps = Steps(announce, plane.ports.clock)
    requires_samples = request.require_samples or plane.config.require_samples
    plane.ports.models.forget_drafts()
    with steps.step("check") as step:
        # Before the rules are read: they were not written with a revision in view that becomes live from here on.
        base = await read_base(plane, request.onto)
        if request.follows is not None and not request.resumes:
            refuse_paused(base, request.follows)
        checked, desired = await check_rules(plane, request.rules, step)
        _refuse_lost(desired, request, "check")
        models = request.models
        unpushed = {} if models is None else await check_models(plane, checked, models, desired, step)
    with steps.step("test") as step:
        step.outcome = await request.rules.test(checked)
    if requires_samples:
        with steps.step("samples") as step:
            step.outcome = await check_samples(plane, checked, models)
    with steps.step("assign") as step:
        desired = await plane.reader.read()
        _refuse_lost(desired, request, "assign")
        # With the models of the folder, so that nothing is pushed that could not be loaded afterwards.
        assignment = await assign(plane, checked, desired, models if unpushed else None)
        await _refuse_bad(plane, assignment, desired, base, request)
        _note_assignment(assignment, desired, step)
        damage = await _note_damage(plane, assignment, desired, request, step)
    if request.dry_run:
        with steps.step("push") as step:
            planned = await plan_push(plane, unpushed, desired, step)
            seen = await _outlook(plane, assignment, desired)
        status = PublishStatus.UNCHANGED if _is_live(assignment, desired) else PublishStatus.PLANNED
        notes = (*checked.notes, *assignment.notes, *damage)
        return PublishResult(status, assignment.revision, seen, planned, notes)
    with steps.step("push") as step:
        pushed = await push_models(plane, unpushed, desired, step)
        if unpushed:
            assignment = await assign(plane, checked, desired, None)
            await _refuse_bad(plane, assignment, desired, base, request)
        if damage:
            await repair_assignment(plane, assignment.revision)
        assignment, pins = await store_assignment(plane, assignment, desired)
        seen = await _outlook(plane, assignment, desired)
    notes = (*checked.notes, *assignment.notes, *damage)
    result = PublishResult(PublishStatus.UNCHANGED, assignment.revision, seen, pushed, notes)
    is_resumed = not request.resumes or pause_of(base, request.follows) is None
    if _is_live(assignment, desired) and is_resumed:
        return result
    change = await _change(plane, request, assignment, desired, pins, requires_samples=requires_samples)
    try:
        activated = await activate(plane, change, steps)
    except PublishError as error:
        overtaken = isinstance(error.__cause__, ConflictError)
        if overtaken and await explain_conflict(plane, base, error, result.revision):
            return result
        raise
    return replace(result, status=PublishStatus.PUBLISHED, activated=activated)


async def _note_damage(
    plane: ControlPlane, assignment: Assignment, desired: Desired, request: PublishRequest, step: Step
) -> tuple[str, ...]:
    """Return what of the live revision is missing or damaged in the store, and what becomes of it, in words."""
    if desired.pointer is None:
        return ()
    repaired = f"it {'would be' if request.dry_run else 'is'} stored again"
    unknown = "what this changes of the live rules is not known"
    live, found = desired.pointer.live.revision, []
    for read in (plane.ports.bundles.bundle, plane.ports.bundles.assignment):
        try:
            await read(live)
        except BundleError as error:
            found.append(f"{error}; {repaired if live == assignment.revision else unknown}")
    for note in found:
        step.note(note)
    return tuple(found)


async def _outlook(plane: ControlPlane, assignment: Assignment, desired: Desired) -> Outlook:
    live = None
    if desired.pointer is not None:
        with contextlib.suppress(BundleError):
            live = await plane.ports.bundles.bundle(desired.pointer.live.revision)
    return await asyncio.to_thread(outlook, assignment, desired, live, plane.config.keep_revisions)


async def _change(
    plane: ControlPlane,
    request: PublishRequest,
    assignment: Assignment,
    desired: Desired,
    pins: Mapping[Unit, str],
    *,
    requires_samples: bool,
) -> Change:
    engine, live = load_bundle(assignment.bundle), await live_engine(plane, desired)
    served = {(each.model, each.version, each.shards) for each in live.targets()} if live is not None else set()
    known = frozenset(each.name for each in engine.targets() if (each.model, each.version, each.shards) in served)
    return Change(
        action=FlipAction.PUBLISH,
        revision=assignment.revision,
        base=desired.pointer,
        plans=assignment.plans,
        targets=engine.targets(),
        by=request.by,
        why=request.why,
        known=known,
        requires_samples=requires_samples,
        pins=pins,
        follows=request.follows,
        clears=desired.pointer is not None and desired.pointer.mark(assignment.revision) is not None,
        retries=request.retries,
    )


async def _refuse_bad(
    plane: ControlPlane, assignment: Assignment, desired: Desired, base: Pointer | None, request: PublishRequest
) -> None:
    """Refuse a revision that is marked bad where that was not asked for, or to go on in place of another than the base."""
    if _is_live(assignment, desired):
        return
    await check_base(plane, base)
    mark = None if base is None else base.mark(assignment.revision)
    if mark is not None and not request.even_if_bad:
        raise PublishError(
            "assign", f"{describe_mark(mark)}; correct the rules, or give --even-if-bad to clear the mark"
        )


def _refuse_lost(desired: Desired, request: PublishRequest, step: str) -> None:
    """Refuse to publish as if nothing had ever been live, where something was, or that is unknown. Raises
    `PublishError`: the pointer is lost; the message says what is known, and what to do."""
    remains = desired.remains
    is_certain = bool(remains.pointer or remains.damage)
    if remains.possible and (is_certain or not request.start_over):
        advice = "" if is_certain else ", or publish with --start-over where there is nothing to find"
        raise PublishError(step, f"{remains.problem}{advice}")


def _is_live(assignment: Assignment, desired: Desired) -> bool:
    return desired.pointer is not None and desired.pointer.live.revision == assignment.revision


def _note_assignment(assignment: Assignment, desired: Desired, step: Step) -> None:
    for note in assignment.notes:
        step.note(note)
    for move in assignment.moves:
        step.note(f"{move.action} {move.model!r} on shard {move.shard!r}: {move.reason}")
    suffix = ""
    if _is_live(assignment, desired):
        suffix = " is live already"
    elif desired.pointer is not None and rules_of(desired.pointer.live.revision) == rules_of(assignment.revision):
        suffix = ": the rules that are live, but their models resolve to other versions or shards"
    step.outcome = f"revision {short_revision(assignment.revision)}{suffix}"
