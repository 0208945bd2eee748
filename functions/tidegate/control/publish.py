"""Publish: from rules and a folder of models to a revision that serves. What is live stays untouched until the flip."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tidegate.control.activation import Activated, Activation, Change
from tidegate.control.assigning import Assignment, assign, closure
from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.desired import Desired, StateReader
from tidegate.control.reconcile import Reconciler
from tidegate.control.sources import CheckedRules, ModelsSource, RulesSource
from tidegate.control.steps import Announce, Step, Steps
from tidegate.errors import BundleError
from tidegate.ports import Pointer, PushOutcome
from tidegate.rules import load_bundle
from tidegate.rules.resolved import resolved_steps

Place = Callable[[bytes, Desired], Awaitable[Mapping[str, Sequence[str]]]]
"""Gives the shards of the models whose placement the rules leave open, for a compiled bundle and what must be loaded now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRequest:
    """What is published, by whom and why. `models` None: everything was pushed before. A `dry_run` writes nothing."""

    rules: RulesSource
    models: ModelsSource | None = None
    by: str
    why: str = ""
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What came of a publish.

    Attributes:
        status: `published`; `unchanged` where it was live already; `planned` for a dry run.
        revision: the revision of the resolved rules.
        loads: by shard what is not loaded for any other revision, as `model/versions`.
        pushed: what was sent to the model store; for a dry run what would be looked at.
        notes: what nobody wrote down and was decided here, and what else there is to know.
        activated: the flip and what followed; None where nothing was flipped.
    """

    status: Literal["published", "unchanged", "planned"]
    revision: str
    loads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pushed: tuple[PushOutcome, ...] = ()
    notes: tuple[str, ...] = ()
    activated: Activated | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "status": self.status,
            "revision": self.revision,
            "loads": {shard: list(loads) for shard, loads in self.loads.items()},
            "pushed": [
                {
                    "model": each.model,
                    "versions": list(each.versions),
                    "files": each.files,
                    "size_bytes": each.size_bytes,
                }
                for each in self.pushed
            ],
            "notes": list(self.notes),
            "activated": None if self.activated is None else self.activated.as_dict(),
        }


class Publisher:
    """Publishes, one revision at a time."""

    def __init__(
        self,
        ports: ControlPorts,
        config: ControlConfig,
        reader: StateReader,
        reconciler: Reconciler,
        place: Place | None = None,
    ) -> None:
        self._ports = ports
        self._reader = reader
        self._place = place
        self._activation = Activation(ports, config, reader, reconciler)

    async def publish(self, request: PublishRequest, announce: Announce) -> PublishResult:
        """Check, test, push, assign, claim, load, validate, flip, confirm, drain, unload.

        Raises:
            PublishError: a step failed; it names the step, says why and what to do. What is live was not touched.
        """
        steps = Steps(announce, self._ports.clock)
        with steps.step("check") as step:
            checked = await self._check(request, step)
        with steps.step("test") as step:
            step.outcome = await request.rules.test(checked)
        if request.dry_run:
            return await self._plan(request, checked, steps)
        with steps.step("push") as step:
            pushed = await self._push(request, checked, step)
        with steps.step("assign") as step:
            base = await self._reader.pointer()
            desired = await self._reader.read()
            assignment = await self._assign(request, checked, desired, step, dry_run=False)
            unchanged = base is not None and base.live.revision == assignment.revision
            step.outcome = f"revision {assignment.revision[:12]}" + (" is live already" if unchanged else "")
            await self._ports.bundles.put_bundle(assignment.bundle)
            await self._ports.bundles.put_assignment(assignment.revision, assignment.plans)
        result = PublishResult(
            "unchanged",
            assignment.revision,
            _new_loads(assignment, desired),
            pushed,
            (*checked.notes, *assignment.notes),
        )
        if unchanged:
            return result
        change = await self._change(request, assignment, base)
        return replace(result, status="published", activated=await self._activation.run(change, steps))

    async def _check(self, request: PublishRequest, step: Step) -> CheckedRules:
        checked = await request.rules.check()
        step.outcome = checked.summary
        for note in checked.notes:
            step.note(note)
        if request.models is not None:
            engine = load_bundle(checked.bundle)
            settled = await self._settled(await self._reader.read())
            names = await closure(request.models.catalog, engine.targets(), settled)
            own = [name for name in names if request.models.folder(name) is not None]
            for warning in await request.models.check(own):
                step.note(warning)
        return checked

    async def _push(self, request: PublishRequest, checked: CheckedRules, step: Step) -> tuple[PushOutcome, ...]:
        models = request.models
        if models is None:
            step.outcome = "no folder of models was given"
            return ()
        settled = await self._settled(await self._reader.read())
        names = await closure(models.catalog, load_bundle(checked.bundle).targets(), settled)
        outcomes = []
        for name in names:
            folder = models.folder(name)
            if folder is not None:
                outcomes.append(await self._ports.models.push(name, folder, _progress(name, step)))
        sent = tuple(outcome for outcome in outcomes if outcome.files)
        files, size_bytes = sum(each.files for each in sent), sum(each.size_bytes for each in sent)
        step.outcome = (
            f"{files} files of {len(sent)} models, {size_bytes} bytes" if sent else "everything was pushed before"
        )
        return sent

    async def _assign(
        self, request: PublishRequest, checked: CheckedRules, desired: Desired, step: Step, *, dry_run: bool
    ) -> Assignment:
        overlay = dry_run and request.models is not None
        catalog = request.models.catalog if overlay and request.models is not None else self._ports.catalog
        placement = {} if self._place is None else await self._place(checked.bundle, desired)
        assignment = await assign(checked.bundle, catalog, await self._settled(desired), placement)
        for note in assignment.notes:
            step.note(note)
        return assignment

    async def _plan(self, request: PublishRequest, checked: CheckedRules, steps: Steps) -> PublishResult:
        steps.skip("push", "dry run")
        with steps.step("assign") as step:
            base = await self._reader.pointer()
            desired = await self._reader.read()
            assignment = await self._assign(request, checked, desired, step, dry_run=True)
            unchanged = base is not None and base.live.revision == assignment.revision
            step.outcome = f"revision {assignment.revision[:12]}" + (" is live already" if unchanged else "")
        notes = (*checked.notes, *assignment.notes)
        return PublishResult(
            "unchanged" if unchanged else "planned", assignment.revision, _new_loads(assignment, desired), (), notes
        )

    async def _settled(self, desired: Desired) -> Mapping[str, Mapping[str, int]]:
        """The versions of open steps of the revisions whose models are loaded, the live one's first."""
        settled: dict[str, dict[str, int]] = {}
        for held in desired.held:
            try:
                bundle = await self._reader.bundle(held.revision)
            except BundleError:
                # It is damaged, which status tells; a publish is what mends that.
                continue
            for ensemble, pins in resolved_steps(bundle.manifest).items():
                settled[ensemble] = {**pins, **settled.get(ensemble, {})}
        return settled

    async def _change(self, request: PublishRequest, assignment: Assignment, base: Pointer | None) -> Change:
        engine = load_bundle(assignment.bundle)
        known: frozenset[str] = frozenset()
        if base is not None:
            try:
                live = await self._reader.engine(base.live.revision)
                served = {(each.model, each.version, each.shards) for each in live.targets()}
                known = frozenset(
                    each.name for each in engine.targets() if (each.model, each.version, each.shards) in served
                )
            except BundleError:
                known = frozenset()
        return Change(
            "publish", assignment.revision, base, assignment.plans, engine.targets(), request.by, request.why, known
        )


def _new_loads(assignment: Assignment, desired: Desired) -> dict[str, tuple[str, ...]]:
    found = {}
    for shard, plan in assignment.plans.items():
        there = {load.model: set(load.versions) for load in desired.plan(shard)}
        fresh = [load for load in plan if not set(load.versions) <= there.get(load.model, set())]
        if fresh:
            found[shard] = tuple(f"{load.model}/{','.join(map(str, load.versions))}" for load in fresh)
    return found


def _progress(model: str, step: Step) -> Callable[[str, int, int], None]:
    def tell(path: str, sent: int, total: int) -> None:
        step.note(f"{model}/{path}: {sent} of {total} bytes")

    return tell
