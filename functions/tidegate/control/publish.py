"""Publish: from rules and a folder of models to a revision that serves. What is live stays untouched until the flip."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tidegate.control.activation import Activated, Activation, Change
from tidegate.control.assigning import Assignment, assign, closure
from tidegate.control.base import BaseReader
from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.desired import Desired, StateReader
from tidegate.control.following import pause_of, refuse_paused
from tidegate.control.outlook import Outlook, outlook
from tidegate.control.placing import place
from tidegate.control.plans import Plan, merge, units_of
from tidegate.control.reconcile import Reconciler
from tidegate.control.rollback import describe_mark
from tidegate.control.sources import CheckedRules, ModelsSource, RulesSource
from tidegate.control.steps import Announce, Step, Steps
from tidegate.errors import BundleError, ConflictError, PublishError
from tidegate.ports import Pointer, PushOutcome, Unit
from tidegate.ports.model_units import SAMPLES
from tidegate.rules import Engine, load_bundle
from tidegate.rules.bundle import revision_json, rules_of
from tidegate.rules.placement import Move
from tidegate.rules.resolved import resolved_steps

Status = Literal["published", "unchanged", "planned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRequest:
    """What is published, by whom and why.

    Attributes:
        models: the folder of the models; None: everything was pushed before.
        dry_run: write nothing.
        require_samples: whether every target must have a golden request.
        even_if_bad: whether the revision may be one that was rolled back; then its mark is cleared.
        onto: the revision that must be live when it begins, or the beginning of it, or `none`; None: whatever is live
            then. It goes live only in place of that.
        start_over: whether the pointer is lost for good, and this is the first flip of a new history.
        retries: whether models that failed a try in this process shortly before are tried again: where a person asked for it.
        follows: the directory that it publishes because that is followed; else empty. Then it is refused while following
            is paused.
        resumes: whether it goes on with following; then the directory becomes live again where it is live already.
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
    follows: str = ""
    resumes: bool = False


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What came of a publish.

    Attributes:
        status: `published`; `unchanged` where it was live already; `planned` for a dry run.
        revision: the revision of the resolved rules.
        outlook: what it changes of the rules and of what is loaded.
        pushed: what was sent to the model store; for a dry run the versions that would be.
        notes: what nobody wrote down and was decided here, and what else there is to know.
        activated: the flip and what followed; None where nothing was flipped.
    """

    status: Status
    revision: str
    outlook: Outlook = Outlook()  # noqa: RUF009  # immutable
    pushed: tuple[PushOutcome, ...] = ()
    notes: tuple[str, ...] = ()
    activated: Activated | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "status": self.status,
            **revision_json(self.revision),
            "changes": [each.as_dict() for each in self.outlook.changes],
            "loads": {shard: list(models) for shard, models in self.outlook.loads.items()},
            "unloads": {shard: list(models) for shard, models in self.outlook.unloads.items()},
            "pushed": [
                {
                    "model": each.model,
                    "versions": list(each.versions),
                    "files": each.files,
                    "size_bytes": each.size_bytes,
                    "replaced": ["config" if version is None else version for version in each.replaced],
                }
                for each in self.pushed
            ],
            "notes": list(self.notes),
            "activated": None if self.activated is None else self.activated.as_dict(),
        }


class Publisher:
    """Publishes, one revision at a time."""

    def __init__(self, ports: ControlPorts, config: ControlConfig, reader: StateReader, reconciler: Reconciler) -> None:
        self._ports = ports
        self._keep_revisions = config.keep_revisions
        self._require_samples = config.require_samples
        self._reader = reader
        self._activation = Activation(ports, config, reader, reconciler)
        self._base = BaseReader(ports.bundles, reader)

    async def publish(self, request: PublishRequest, announce: Announce) -> PublishResult:
        """Check, test, assign, push, claim, load, validate, flip, confirm, drain, unload.

        Raises:
            PublishError: a step failed; it names the step, says why and what to do. What is live was not touched. So it is
                where somebody else made another revision live since this began.
        """
        steps = Steps(announce, self._ports.clock)
        self._ports.models.forget_drafts()
        with steps.step("check") as step:
            # Before the rules are read: whatever becomes live from here on, they were not written with it in view.
            base = await self._base.read(request.onto)
            if request.follows and not request.resumes:
                refuse_paused(base, request.follows)
            checked, unpushed = await self._check(request, step)
        with steps.step("test") as step:
            step.outcome = await request.rules.test(checked)
        if self._must_be_proved(request):
            with steps.step("samples") as step:
                step.outcome = await self._check_samples(checked, request.models)
        with steps.step("assign") as step:
            desired = await self._reader.read()
            _refuse_lost(desired, request, "assign")
            # With what is in the folder, so that nothing is pushed that could not be loaded then.
            assignment, moves = await self._assign(checked, desired, request.models if unpushed else None)
            await self._refuse(assignment, desired, base, request)
            _tell(assignment, moves, desired, step)
            damage = await self._damage(assignment, desired, step, dry_run=request.dry_run)
        if request.dry_run:
            return await self._plan(checked, assignment, desired, unpushed, steps, damage)
        with steps.step("push") as step:
            pushed = await self._push(unpushed, desired, step)
            if unpushed:
                assignment, _ = await self._assign(checked, desired, None)
                await self._refuse(assignment, desired, base, request)
            pins = await self._ports.models.pin(units_of(assignment.plans.values()) - units_of(desired.published))
            # Also where it is live already: that replaces what is damaged.
            await self._ports.bundles.put_bundle(assignment.bundle)
            plans = await self._stored(assignment, replaceable=bool(pins), damaged=bool(damage))
            assignment = replace(assignment, plans=plans)
            seen = await self._outlook(assignment, desired)
        notes = (*checked.notes, *assignment.notes, *damage)
        result = PublishResult("unchanged", assignment.revision, seen, pushed, notes)
        is_resumed = not request.resumes or pause_of(base, request.follows) is None
        if _is_live(assignment, desired) and is_resumed:
            return result
        change = await self._change(request, assignment, desired, pins)
        try:
            activated = await self._activation.run(change, steps)
        except PublishError as error:
            if isinstance(error.__cause__, ConflictError) and await self._base.explain(base, error, result.revision):
                return result
            raise
        return replace(result, status="published", activated=activated)

    async def _check(self, request: PublishRequest, step: Step) -> tuple[CheckedRules, Mapping[str, Path]]:
        """The checked rules, and which folders may have to be pushed.

        What is there as its folder is was checked when it was pushed; it is checked again only with a step that is not.
        """
        # The first read also makes the clients of the stores, which takes as long as proving rules does.
        reading = asyncio.ensure_future(self._reader.read())
        try:
            checked = await request.rules.check()
        except BaseException:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            raise
        desired = await reading
        _refuse_lost(desired, request, "check")
        step.outcome = checked.summary
        for note in checked.notes:
            step.note(note)
        models = request.models
        if models is None:
            return checked, {}
        settled = await self._settled(desired)
        loads = await closure(models.catalog, load_bundle(checked.bundle).targets(), settled)
        needed = tuple(load for load in loads if models.folder(load.model) is not None)
        folders = {load.model: folder for load in needed if (folder := models.folder(load.model)) is not None}
        unpushed = set(await self._ports.models.unpushed(folders))
        affected = [load.model for load in needed if not unpushed.isdisjoint((load.model, *load.steps))]
        for warning in await models.check(affected) if affected else ():
            step.note(warning)
        return checked, {model: folders[model] for model in folders if model in unpushed}

    async def _push(self, unpushed: Mapping[str, Path], desired: Desired, step: Step) -> tuple[PushOutcome, ...]:
        outcomes = await self._ports.models.push_all(
            unpushed, lambda model: _progress(model, step), units_of(desired.claimed)
        )
        sent = tuple(outcome for outcome in outcomes if outcome.files or outcome.replaced)
        for each in sent:
            if each.replaced:
                step.note(f"{_units(each)} of {each.model!r} took the place of one that was never live")
        files, size_bytes = sum(each.files for each in sent), sum(each.size_bytes for each in sent)
        told = f"{files} files of {len(sent)} models, {size_bytes} bytes"
        step.outcome = told if sent else "everything was pushed before"
        return sent

    async def _assign(
        self, checked: CheckedRules, desired: Desired, models: ModelsSource | None
    ) -> tuple[Assignment, Sequence[Move]]:
        """The assignment of the rules, with the models of a folder over those that were pushed (None: these alone)."""
        settled = await self._settled(desired)
        catalog = self._ports.catalog.fresh() if models is None else models.catalog
        known, _ = merge(desired.published)
        # An ensemble whose open steps were pinned is read anew, as a load does not say which these were.
        catalog.learn(load for load in known if load.model not in settled)
        engine, live = load_bundle(checked.bundle), await self._live(desired)

        async def size_of(model: str, version: int) -> int:
            size_bytes = None if models is None else await models.size_bytes(model, version)
            if size_bytes is not None:
                return size_bytes
            return sum(file.size_bytes for file in await self._ports.models.files(model, version))

        placed = await place(checked.demand, engine, live, catalog, size_of, settled)
        assignment = await assign(checked.bundle, catalog, settled, {} if placed is None else placed.placement)
        return assignment, () if placed is None else placed.moves

    async def _stored(self, assignment: Assignment, *, replaceable: bool, damaged: bool) -> Mapping[str, Plan]:
        """The stored plans of a revision: those that are there count, unless they may be replaced. Where something of it is
        `damaged`, what this process remembers of them is stored again."""
        try:
            stored = await self._reader.assignment(assignment.revision)
        except BundleError:
            await self._ports.bundles.put_assignment(assignment.revision, assignment.plans)
            return assignment.plans
        if damaged:
            await self._ports.bundles.put_assignment(assignment.revision, stored)
        if not replaceable or stored == assignment.plans:
            return stored
        # It was planned with the config of a draft that has been replaced since.
        await self._ports.bundles.replace_assignment(assignment.revision, stored, assignment.plans)
        return assignment.plans

    async def _damage(self, assignment: Assignment, desired: Desired, step: Step, *, dry_run: bool) -> tuple[str, ...]:
        """What of the live revision is missing or damaged in the store, and what becomes of it, in words."""
        if desired.pointer is None:
            return ()
        live, bundles, found = desired.pointer.live.revision, self._ports.bundles, []
        mended = f"it {'would be' if dry_run else 'is'} stored again"
        for read in (bundles.bundle, bundles.assignment):
            try:
                await read(live)
            except BundleError as error:
                unknown = "what this changes of the live rules is not known"
                found.append(f"{error}; {mended if live == assignment.revision else unknown}")
        for note in found:
            step.note(note)
        return tuple(found)

    async def _plan(
        self,
        checked: CheckedRules,
        assignment: Assignment,
        desired: Desired,
        unpushed: Mapping[str, Path],
        steps: Steps,
        damage: tuple[str, ...],
    ) -> PublishResult:
        """What a publish would do; nothing is written."""
        with steps.step("push") as step:
            claimed = units_of(desired.claimed)
            plans = [await self._ports.models.plan(model, folder, claimed) for model, folder in unpushed.items()]
            outcomes = tuple(
                PushOutcome(each.model, each.versions, len(each.files), each.size_bytes, each.replaced)
                for each in plans
                if not each.is_done
            )
            step.outcome = f"dry run: {len(outcomes)} models would be sent" if outcomes else "dry run: nothing to send"
            seen = await self._outlook(assignment, desired)
        status: Status = "unchanged" if _is_live(assignment, desired) else "planned"
        notes = (*checked.notes, *assignment.notes, *damage)
        return PublishResult(status, assignment.revision, seen, outcomes, notes)

    async def _live(self, desired: Desired) -> Engine | None:
        """The live rules; None where there are none, or they are damaged."""
        if desired.pointer is None:
            return None
        try:
            return await self._reader.engine(desired.pointer.live.revision)
        except BundleError:
            # Status reports it, and a publish repairs it.
            return None

    async def _outlook(self, assignment: Assignment, desired: Desired) -> Outlook:
        live = None
        if desired.pointer is not None:
            with contextlib.suppress(BundleError):
                live = await self._ports.bundles.bundle(desired.pointer.live.revision)
        return await asyncio.to_thread(outlook, assignment, desired, live, self._keep_revisions)

    async def _settled(self, desired: Desired) -> Mapping[str, Mapping[str, int]]:
        """The versions of open steps of the revisions whose models are loaded, the live one's first."""
        settled: dict[str, dict[str, int]] = {}
        for held in desired.held:
            try:
                bundle = await self._reader.bundle(held.revision)
            except BundleError:
                # It is damaged: status reports that, and a publish repairs it.
                continue
            for ensemble, pins in resolved_steps(bundle.manifest).items():
                settled[ensemble] = {**pins, **settled.get(ensemble, {})}
        return settled

    async def _change(
        self, request: PublishRequest, assignment: Assignment, desired: Desired, pins: Mapping[Unit, str]
    ) -> Change:
        engine, live = load_bundle(assignment.bundle), await self._live(desired)
        served = {(each.model, each.version, each.shards) for each in live.targets()} if live is not None else set()
        known = frozenset(each.name for each in engine.targets() if (each.model, each.version, each.shards) in served)
        return Change(
            "publish",
            assignment.revision,
            desired.pointer,
            assignment.plans,
            engine.targets(),
            request.by,
            request.why,
            known,
            self._must_be_proved(request),
            pins,
            follows=request.follows,
            clears=desired.pointer is not None and desired.pointer.mark(assignment.revision) is not None,
            retries=request.retries,
        )

    async def _refuse(
        self, assignment: Assignment, desired: Desired, base: Pointer | None, request: PublishRequest
    ) -> None:
        """Refuse to go on in place of another revision than the base, or with one that was rolled back.

        Raises:
            ConflictError: the base is not live any more.
            PublishError: the revision is marked bad, and that was not asked for.
        """
        if _is_live(assignment, desired):
            return
        await self._base.check(base)
        mark = None if base is None else base.mark(assignment.revision)
        if mark is not None and not request.even_if_bad:
            raise PublishError(
                "assign", f"{describe_mark(mark)}; correct the rules, or give --even-if-bad to clear the mark"
            )

    def _must_be_proved(self, request: PublishRequest) -> bool:
        return request.require_samples or self._require_samples

    async def _check_samples(self, checked: CheckedRules, source: ModelsSource | None) -> str:
        """Refuse rules with a target that has no golden request, neither in its folder nor pushed before.

        Raises:
            PublishError: there are such targets; it names them.
        """
        models = sorted({target.model for target in load_bundle(checked.bundle).targets()})
        folders = {model: None if source is None else source.folder(model) for model in models}
        pushed = await asyncio.gather(*(self._ports.models.samples(model) for model in models))
        lacking = [
            model
            for model, found in zip(models, pushed, strict=True)
            if not found and ((folder := folders[model]) is None or not any((folder / SAMPLES).glob("*.json")))
        ]
        if lacking:
            raise PublishError(
                "samples",
                f"targets without a golden request: {', '.join(lacking)}; write samples/*.json for each, or publish "
                "without requiring samples",
            )
        return f"{len(models)} models have golden requests"


def _refuse_lost(desired: Desired, request: PublishRequest, step: str) -> None:
    """Refuse to publish as if nothing had ever been live, where something was, or that is unknown.

    Raises:
        PublishError: the pointer is lost; the message says what is known, and what to do.
    """
    remains = desired.remains
    if not remains.possible or (request.start_over and remains.pointer is None and not remains.damage):
        return
    otherwise = (
        "" if remains.pointer or remains.damage else ", or publish with --start-over where there is nothing to find"
    )
    raise PublishError(step, f"{remains}{otherwise}")


def _is_live(assignment: Assignment, desired: Desired) -> bool:
    return desired.pointer is not None and desired.pointer.live.revision == assignment.revision


def _beside(assignment: Assignment, desired: Desired) -> str:
    """How an assignment differs from what is live, where the rules are the same."""
    if _is_live(assignment, desired):
        return " is live already"
    if desired.pointer is None or rules_of(desired.pointer.live.revision) != rules_of(assignment.revision):
        return ""
    return ": the rules that are live, but their models resolve to other versions or shards"


def _tell(assignment: Assignment, moves: Iterable[Move], desired: Desired, step: Step) -> None:
    for note in assignment.notes:
        step.note(note)
    for move in moves:
        step.note(f"{move.action} {move.model!r} on shard {move.shard!r}: {move.reason}")
    step.outcome = f"revision {assignment.revision[:12]}{_beside(assignment, desired)}"


def _units(outcome: PushOutcome) -> str:
    """What was replaced, in words."""
    versions = [str(version) for version in outcome.replaced if version is not None]
    named = [f"version {', '.join(versions)}"] if versions else []
    return " and ".join([*(["the config"] if None in outcome.replaced else []), *named])


def _progress(model: str, step: Step) -> Callable[[str, int, int], None]:
    def tell(path: str, sent: int, total: int) -> None:
        step.progress(f"{model}/{path}", sent, total)

    return tell
