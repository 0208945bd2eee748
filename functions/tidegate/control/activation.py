"""Activation: a stored revision becomes live. Claim, load, validate, flip, confirm, drain, unload."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tidegate.control.claims import Claims, HeldClaim, check_base
from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.desired import Desired, StateReader
from tidegate.control.plans import Plan, same_but_versions
from tidegate.control.presence import AbsentShard, Presence
from tidegate.control.reconcile import Reconciler, ReconcileResult
from tidegate.control.rollout import Rollout, Wanted
from tidegate.control.steps import Step, Steps
from tidegate.control.trying import ScratchTrial, find_untried
from tidegate.errors import ConflictError, PublishError, StackError, StoreError, TidegateError
from tidegate.ports import LiveEntry, Pointer, Unit
from tidegate.rules import Target
from tidegate.rules.bundle import revision_json, rules_of

POLL_S = 0.25
CLEAN_UP_S = 10.0
TRY_KEPT_S = 600.0
"""How long a failed try is not repeated for whoever publishes each change of a file: a hang costs minutes each time."""

_TRIED_BEFORE = (
    "it was not tried again, as nothing of it has changed; repair the model and save it again, or run `tidegate follow "
    "resume` to have it tried as it is"
)
LAPSES = 3


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become live, in place of `base`; `known` are the targets that live serves in just the same way, and `proved`
    says that every other one must answer a golden request. `marks_bad`, `clears` and `follows` become the entry's: see
    `LiveEntry`. `pins` has the drafts that it needs: see `ModelStore`. Unless it `retries`, models that failed a try of
    this process are not tried again for `TRY_KEPT_S`."""

    action: Literal["publish", "rollback"]
    revision: str
    base: Pointer | None
    plans: Mapping[str, Plan]
    targets: Sequence[Target]
    by: str
    why: str = ""
    known: frozenset[str] = frozenset()
    proved: bool = False
    pins: Mapping[Unit, str] = field(default_factory=dict)
    marks_bad: bool = False
    clears: bool = False
    follows: str = ""
    retries: bool = True

    def entry(self, at: float) -> LiveEntry:
        """The flip that makes it live at a time in Unix seconds."""
        base = self.base
        return LiveEntry(
            self.revision,
            1 if base is None else base.live.sequence + 1,
            self.by,
            at,
            self.why,
            self.action,
            marked_bad=base.live.revision if base is not None and self.marks_bad else "",
            cleared=self.clears,
            follows=self.follows,
        )


@dataclass(frozen=True, slots=True)
class Activated:
    """What came of it: the flip, the gateways that serve the revision and those that did not say so in time, what remains
    to be done by the next reconcile, in words, the targets that no golden request proved, with the reason, and the shards
    that had no server. `pauses`: until it, a directory was followed."""

    entry: LiveEntry
    confirmed: tuple[str, ...] = ()
    unconfirmed: tuple[str, ...] = ()
    loaded: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    unproved: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[AbsentShard, ...] = ()
    pauses: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            **revision_json(self.entry.revision),
            "sequence": self.entry.sequence,
            "by": self.entry.by,
            "at": self.entry.at,
            "why": self.entry.why,
            "action": self.entry.action,
            "marked_bad": rules_of(self.entry.marked_bad) or None,
            "cleared": self.entry.cleared,
            "follows": self.entry.follows or None,
            "pauses": self.pauses,
            "loaded": dict(self.loaded),
            "confirmed": list(self.confirmed),
            "unconfirmed": list(self.unconfirmed),
            "warnings": list(self.warnings),
            "unproved": dict(self.unproved),
            "absent": [each.as_dict() for each in self.absent],
        }


class Activation:
    """Makes revisions live, one at a time."""

    def __init__(self, ports: ControlPorts, config: ControlConfig, reader: StateReader, reconciler: Reconciler) -> None:
        self._ports = ports
        self._config = config
        self._reader = reader
        self._reconciler = reconciler
        self._claims = Claims(ports, config, reader)
        self._failed_tries: dict[tuple[str, frozenset[tuple[Unit, str]]], tuple[float, str]] = {}

    async def run(self, change: Change, steps: Steps, *, at_once: bool = False) -> Activated:
        """Make a revision live whose bundle and assignment are stored.

        Args:
            change: the revision and what it needs.
            steps: announces what is done.
            at_once: flip without a claim where every target is READY already. Only right for a revision whose models
                stay loaded as long as the pointer does not move.

        Raises:
            PublishError: a step up to the flip failed. What is live was not touched.
        """
        rollout = self._rollout(change)
        if at_once and await self._all_ready(rollout):
            for name in ("claim", "try", "load", "validate"):
                steps.skip(name, "everything is READY")
            with steps.step("flip") as step:
                entry = await self._flip(change, step)
            return await self._after(change, entry, steps, rollout)
        try:
            return await self._claimed(change, steps, rollout)
        except PublishError:
            await self._clean_up(rollout, change)
            raise

    async def _claimed(self, change: Change, steps: Steps, rollout: Rollout) -> Activated:
        async with contextlib.AsyncExitStack() as stack:
            with steps.step("claim") as step:
                claim = self._claims.publishing(change.revision, change.by, change.base, step.note)
                held = await stack.enter_async_context(claim)
                desired = await self._desired(change)
            await self._try(change, desired, rollout, steps)
            with steps.step("load") as step:
                await rollout.load(desired, step.note)
                await self._claims.prove(held)
                rollout.proved_at = self._ports.clock()
                step.outcome = str(rollout.loads)
            with steps.step("validate") as step:
                await rollout.validate(held, desired, step.note)
                count = len(change.targets)
                step.outcome = "1 target is READY" if count == 1 else f"{count} targets are READY"
                if rollout.unproved:
                    step.outcome += f"; unproved: {', '.join(sorted(rollout.unproved))}"
            with steps.step("flip") as step:
                await self._assure(change, held, rollout, step)
                entry = await self._flip(change, step)
            return await self._after(change, entry, steps, rollout)

    async def _try(self, change: Change, desired: Desired, rollout: Rollout, steps: Steps) -> None:
        """Load and ask the models that were never live on one server, before any other has them."""
        untried = find_untried(change.plans, change.targets, desired)
        rollout.untried = untried
        if not untried.models:
            steps.skip("try", "every model has been live before")
            return
        if not desired.serves:
            steps.skip("try", "nothing is live that a model could harm")
            return
        rollout.careful = True
        with steps.step("try") as step:
            content = (change.revision, frozenset(change.pins.items()))
            at, reason = self._failed_tries.pop(content, (0.0, ""))
            if reason and not change.retries and self._ports.clock() < at + TRY_KEPT_S:
                self._failed_tries[content] = at, reason
                raise StackError(f"{reason}\n{_TRIED_BEFORE}")
            try:
                if self._ports.scratch is None:
                    await rollout.try_on_one(desired, step.note)
                else:
                    await ScratchTrial(self._ports, self._config, untried).run(step.note)
            except PublishError as error:
                # The model is to blame; that no server could be started, or none answered, says nothing of it.
                self._failed_tries[content] = self._ports.clock(), str(error)
                raise
            step.outcome = f"{len(untried.models)} {'models do' if len(untried.models) > 1 else 'model does'} no harm"

    def _rollout(self, change: Change) -> Rollout:
        wanted = Wanted(change.plans, change.targets, change.known, change.proved)
        live = None if change.base is None else change.base.live.revision
        # Whoever rolls back has no time for what is as dead now.
        patient = change.action == "publish"
        presence = Presence(
            self._ports, self._config, self._reader, change.revision, live, change.plans, patient=patient
        )
        return Rollout(self._ports, self._config, self._claims, presence, wanted)

    async def _all_ready(self, rollout: Rollout) -> bool:
        try:
            return await rollout.ready()
        except StoreError:
            return False

    async def _desired(self, change: Change) -> Desired:
        """What the fleet must hold, with the change claimed.

        Raises:
            PublishError: a model of the change cannot be loaded beside what must stay.
        """
        desired = await self._reader.read()
        for shard, plan in change.plans.items():
            needed = {load.model: load for load in desired.plan(shard)}
            for load in plan:
                if load.model in needed and not same_but_versions(needed[load.model], load):
                    raise PublishError(
                        "claim",
                        f"ensemble {load.model!r} is loaded on shard {shard!r} with other versions of its open steps than "
                        f"revision {change.revision[:12]} needs, and a server holds one config of it: pin the steps of "
                        "two ensembles of different names instead",
                    )
        return desired

    async def _assure(self, change: Change, held: HeldClaim, rollout: Rollout, step: Step) -> None:
        """See that everybody still heeds the claim; where it lapsed, claim and validate again."""
        for _ in range(LAPSES):
            if self._claims.valid(held):
                return
            step.note("the claim has lapsed meanwhile; claiming and validating again")
            await self._claims.alone(held, change.base, step.note)
            desired = await self._desired(change)
            rollout.proved_at = self._ports.clock()
            await rollout.validate(held, desired, step.note)
        raise StoreError("the claim cannot be kept: the store answers too slowly; publish again when it is well")

    async def _flip(self, change: Change, step: Step) -> LiveEntry:
        base = change.base
        if change.pins:
            # Sealed for good; so not where it is known already that the flip will fail.
            check_base(await self._reader.pointer(), base)
            await self._ports.models.seal(change.pins)
        entry = change.entry(self._ports.clock())
        try:
            await self._ports.bundles.flip(entry, base)
        except ConflictError:
            check_base(await self._reader.pointer(), base)
            raise
        except StoreError as error:
            pointer = await self._after_failure(entry)
            if pointer is None or entry not in pointer.entries:
                check_base(pointer, base)
                raise StoreError(
                    f"the pointer could not be moved: {error}; publish again when the store is well"
                ) from error
        step.outcome = f"revision {change.revision[:12]} is live"
        return entry

    async def _after_failure(self, entry: LiveEntry) -> Pointer | None:
        """The pointer after a flip without an answer, which may have taken place.

        Raises:
            StoreError: the store does not say.
        """
        try:
            return await self._reader.pointer()
        except StoreError as error:
            raise StoreError(
                f"whether revision {entry.revision[:12]} is live is unknown, as the store does not answer: {error}; see "
                "`tidegate status` when it does; publishing again is safe"
            ) from error

    async def _after(self, change: Change, entry: LiveEntry, steps: Steps, rollout: Rollout) -> Activated:
        """Do what follows the flip. Problems become warnings and are left to the next reconcile."""
        absent = await self._absent(rollout)
        warnings = [*(await self._recorded(entry)), *map(str, absent)]
        confirmed: tuple[str, ...] = ()
        unconfirmed: tuple[str, ...] = ()
        try:
            with steps.step("confirm") as step:
                confirmed, unconfirmed = await self._confirm(entry)
                step.outcome = "1 gateway serves it" if len(confirmed) == 1 else f"{len(confirmed)} gateways serve it"
                if unconfirmed:
                    step.outcome += f"; {', '.join(unconfirmed)} did not say so in {self._config.confirm_s:g} s"
                    warnings.append(
                        f"gateways that do not serve it yet: {', '.join(unconfirmed)}; see `tidegate status`"
                    )
            if entry.follows or (entry.action == "rollback" and not rollout.loads.models):
                # Whoever rolls back is in a hurry, and so is who edits and saves again. What is loaded too much harms nobody,
                # and a stack that follows a directory reconciles all the time.
                steps.skip("drain", "what is not needed any more is left to the next reconcile")
            else:
                await self._drain(entry, steps)
            with steps.step("unload") as step:
                result = await self._reconciler.reconcile(change.by)
                step.outcome = summary(result)
        except TidegateError as error:
            warnings.append(f"{error}; the revision is live, and the next reconcile does the rest")
        pauses = change.base is not None and bool(change.base.live.follows) and not entry.follows
        loaded = dict(rollout.loads.models)
        return Activated(entry, confirmed, unconfirmed, loaded, tuple(warnings), rollout.unproved, absent, pauses)

    async def _absent(self, rollout: Rollout) -> tuple[AbsentShard, ...]:
        with contextlib.suppress(TidegateError):
            return await rollout.presence.absences()
        return ()

    async def _recorded(self, entry: LiveEntry) -> list[str]:
        """Write the flip to the history; what there is to tell where that failed."""
        try:
            pointer = await self._reader.pointer()
            if pointer is not None:
                await self._ports.bundles.record(pointer)
        except StoreError as error:
            return [f"flip {entry.sequence} is not in the history yet, and the next publish writes it: {error}"]
        return []

    async def _confirm(self, entry: LiveEntry) -> tuple[tuple[str, ...], tuple[str, ...]]:
        deadline = self._ports.clock() + self._config.confirm_s
        while True:
            gateways = await self._ports.registry.gateways()
            late = tuple(each.id for each in gateways if each.revision != entry.revision)
            pointer = await self._reader.pointer()
            overtaken = pointer is None or pointer.live != entry
            if not late or overtaken or self._ports.clock() > deadline:
                return tuple(each.id for each in gateways if each.revision == entry.revision), late
            await asyncio.sleep(POLL_S)

    async def _drain(self, entry: LiveEntry, steps: Steps) -> None:
        desired = await self._reader.read()
        leaving = [each.revision[:12] for each in desired.held if each.reason == "draining"]
        if not leaving:
            steps.skip("drain", "nothing that served until now is unloaded")
            return
        with steps.step("drain") as step:
            step.note(f"requests of revision {', '.join(leaving)} may be under way")
            await asyncio.sleep(max(0.0, entry.at + self._config.drain_s - self._ports.clock()))

    async def _clean_up(self, rollout: Rollout, change: Change) -> None:
        """Tell of wedged endpoints, and unload what a failed publish loaded; what fails of it is left to a reconcile."""
        with contextlib.suppress(TidegateError, TimeoutError):
            # After the claim is gone: the successor of a wedged server must not load what wedged it.
            for entry, note in rollout.wedged.items():
                await self._ports.registry.mark_wedged(entry.endpoint, note)
            if rollout.loads.models:
                async with asyncio.timeout(CLEAN_UP_S):
                    await self._reconciler.reconcile(change.by)


def summary(result: ReconcileResult) -> str:
    """A reconcile in a few words."""
    counts = {kind: sum(each.action == kind for each in result.actions) for kind in ("load", "narrow", "unload")}
    done = [
        f"{count} {word}"
        for word, count in zip(("loaded", "narrowed", "unloaded"), counts.values(), strict=True)
        if count
    ]
    failed = [f"{len(result.failed)} failed"] if result.failed else []
    silent = [f"{len(result.unreachable)} endpoints do not answer"] if result.unreachable else []
    refused = [f"{len(result.refused)} endpoints are not trusted"] if result.refused else []
    return ", ".join([*done, *failed, *silent, *refused]) or "nothing to do"
