"""Rollout: the state of a change while its models are loaded on servers, and the work on one server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tidegate.control.change import Change
from tidegate.control.desired import Desired
from tidegate.control.endpoints import ask_golden, load, loaded_on, located
from tidegate.control.plane import ControlPlane
from tidegate.control.plans import NOTHING, Plan, closures, merge, same_but_versions, with_versions
from tidegate.control.presence import Presence
from tidegate.control.steps import Note
from tidegate.errors import (
    EndpointError,
    EndpointTimeoutError,
    ModelHangsError,
    ModelLoadError,
    ServerLostError,
    StackError,
)
from tidegate.ports import GoldenOutcome, Loaded, ModelLoad, RegisteredEndpoint
from tidegate.rules import Target

RETRY_S = 1.0
"""How long after a refusal a load is tried once more, where the model is known to be sound."""

REPAIR = "repair the model (as a new version, where this one has been live), or take it out of the rules"
LATER = "see `tidegate status`, and publish again once the fleet is healthy"


@dataclass(frozen=True, slots=True)
class Untried:
    """The models of a revision that no revision which was live serves in the same way.

    Attributes:
        targets: the targets that new versions serve.
        closures: the new models with everything that they call, on whatever shard, steps first.
    """

    models: dict[str, ModelLoad] = field(default_factory=dict)
    targets: tuple[Target, ...] = ()
    closures: Plan = NOTHING

    def __str__(self) -> str:
        return ", ".join(sorted(self.models))


def find_untried(change: Change, desired: Desired) -> Untried:
    """Find the targets and models of a revision that no revision which stays loaded has served."""
    served: dict[str, list[ModelLoad]] = {}
    for plan in desired.published:
        for model in plan:
            served.setdefault(model.model, []).append(model)
    whole, _ = merge(change.plans.values())
    models: dict[str, ModelLoad] = {}
    for model in whole:
        alike = [each for each in served.get(model.model, ()) if same_but_versions(each, model)]
        new = set(model.versions).difference(*(each.versions for each in alike))
        if new:
            models[model.model] = with_versions(model, new)
    targets = tuple(
        each for each in change.targets if each.model in models and each.version in models[each.model].versions
    )
    return Untried(models, targets, closures(whole, models))


class Rollout:
    """Brings one revision onto the endpoints.

    Attributes:
        desired: what the fleet must hold, with the change claimed.
        untried: the models that no revision has served before.
        careful: whether these could harm a live model.
        proved_at: when the claim was proved, in Unix seconds.
        wedged: the endpoints that a load or a request hangs on, with the reason in words.
        unproved: the targets that no golden request proved, with the reason in words.
    """

    desired: Desired

    def __init__(self, plane: ControlPlane, change: Change) -> None:
        self.plane = plane
        self.change = change
        self.presence = Presence(plane, change)
        self.untried = Untried()
        self.careful = False
        self.proved_at = 0.0
        self.loads: dict[str, int] = {}
        self.wedged: dict[RegisteredEndpoint, str] = {}
        self.unproved: dict[str, str] = {}
        self._has_lost_server = False
        self._loaded_urls: set[str] = set()
        self._asked: set[tuple[str, str]] = set()
        self._fresh: set[tuple[str, str]] = set()
        self._targets: dict[str, list[Target]] = {}
        for target in change.targets:
            for shard in target.shards:
                self._targets.setdefault(shard, []).append(target)

    def targets_on(self, shard: str) -> Sequence[Target]:
        """Return the targets that each endpoint of a shard must have READY."""
        return self._targets.get(shard, ())

    @property
    def summary(self) -> str:
        if not self.loads:
            return "everything is loaded already"
        more = f" and {len(self.loads) - 5} more" if len(self.loads) > 5 else ""
        endpoints = len(self._loaded_urls)
        return f"{', '.join(sorted(self.loads)[:5])}{more} on {endpoints} endpoint{'s' * (endpoints != 1)}"

    async def prove_on(self, entry: RegisteredEndpoint, plan: Plan, targets: Iterable[Target], note: Note) -> Loaded:
        """Load some models on a server and ask some targets. Return the live models that it held before, and must still hold.

        Raises:
            EndpointError: it did not answer before anything was loaded.
            ServerLostError: it was lost over a load.
            StackError: it was lost later, or something is wrong with a model.
        """
        live = {model.model: model.versions for model in self.desired.live.get(entry.endpoint.shard, NOTHING)}
        loaded = await loaded_on(self.plane, entry)
        before = {name: versions.intersection(live[name]) for name, versions in loaded.items() if name in live}
        await self.load_on(entry, plan, note)
        for target in targets:
            try:
                await self.ask(entry, target, note)
            except EndpointError as error:
                during = f"target {target.name!r} answered its first requests"
                raise StackError(
                    f"{entry.endpoint} ended or did not answer while {during}: {error}; {REPAIR}"
                ) from error
        if self.careful:
            await self.check_unharmed(entry, before)
        return before

    async def check_unharmed(self, entry: RegisteredEndpoint, before: Loaded) -> None:
        """Check that a server answers, and that the live models that were READY on it still are. Raises `StackError`."""
        try:
            loaded = await loaded_on(self.plane, entry)
        except EndpointError as error:
            raise StackError(
                f"{entry.endpoint} does not answer after {self.untried} was loaded on it: {error}; {REPAIR}"
            ) from error
        for name, versions in before.items():
            if not loaded.get(name, frozenset()).issuperset(versions):
                raise StackError(
                    f"{name!r} is not READY on {entry.endpoint} any more after {self.untried} was loaded; {REPAIR}"
                )

    async def ask(self, entry: RegisteredEndpoint, target: Target, note: Note) -> None:
        """Send a target its golden requests, once on each server.

        Raises:
            EndpointError: the server did not answer.
            StackError: the answer is wrong, or proves nothing where it must.
        """
        asked = (entry.endpoint.url, target.name)
        if asked in self._asked:
            return
        try:
            result = await ask_golden(self.plane, entry.endpoint, target)
        except EndpointTimeoutError as error:
            self.wedged[entry] = f"a request of {target.name!r} hangs"
            raise StackError(
                f"target {target.name!r} on {entry.endpoint} does not answer: {error}; {REPAIR}"
            ) from error
        if result.outcome is GoldenOutcome.WRONG:
            raise StackError(f"target {target.name!r} on {entry.endpoint}: {result.reason}; correct the model")
        if result.outcome is GoldenOutcome.UNPROVED:
            self._note_unproved(target, "; ".join(filter(None, (result.reason, result.advice))), note)
        self._asked.add(asked)

    def _note_unproved(self, target: Target, reason: str, note: Note) -> None:
        unproved = f"target {target.name!r} is unproved: {reason}"
        if self.change.requires_samples:
            raise StackError(unproved)
        if target.name not in self.unproved:
            self.unproved[target.name] = reason
            note(unproved)

    async def load_on(self, entry: RegisteredEndpoint, plan: Plan, note: Note) -> None:
        """Load the models of a plan that a server lacks.

        Raises:
            EndpointError: it did not answer before anything was loaded.
            ServerLostError: it was lost over a load.
            StackError: a model was refused or hangs.
        """
        loaded = dict(await loaded_on(self.plane, entry))
        desired = {model.model: model for model in self.desired.plan(entry.endpoint.shard)}
        # A server may have other files of a draft than were pushed last, which Triton loads only where they have changed.
        untried = {model for model in self.untried.models if (entry.endpoint.url, model) not in self._fresh}
        lacking = [
            model
            for model in plan
            if model.model in untried or not loaded.get(model.model, frozenset()).issuperset(model.versions)
        ]
        for number, model in enumerate(lacking, 1):
            # Whatever else is loaded stays: a repairer takes it away, never a publisher.
            whole = desired.get(model.model, model)
            wider = with_versions(whole, {*whole.versions, *loaded.get(model.model, ())})
            note(f"loading {label(wider)} on {entry.endpoint} ({number} of {len(lacking)})")
            await self._load_one(entry, wider)
            loaded[model.model] = frozenset(wider.versions)

    def take_repeat(self, lost: ServerLostError) -> bool:
        """Return whether the load that a server was lost over is repeated on its successor: once in a change, since a server may
        also crash by itself. A new model that could harm what is live must have been loaded on another server before."""
        is_first, self._has_lost_server = not self._has_lost_server, True
        is_risky = self.careful and lost.model in self.untried.models and lost.model not in self.loads
        return is_first and not is_risky

    def _is_proved(self, model: ModelLoad) -> bool:
        """Return whether another server has loaded a model in this change, or a revision that was live had it."""
        return model.model in self.loads or model.model not in self.untried.models

    async def _load_one(self, entry: RegisteredEndpoint, model: ModelLoad) -> None:
        try:
            try:
                await load(self.plane, entry, model)
            except ModelLoadError as error:
                if isinstance(error, ModelHangsError) or not self._is_proved(model):
                    raise
                # It is not the model: of thousands of loads one fails because a store was slow.
                await asyncio.sleep(RETRY_S)
                await load(self.plane, entry, model)
        except ModelLoadError as error:
            if isinstance(error, ModelHangsError):
                self.wedged[entry] = f"the load of {model.model!r} hangs"
            reason = f"model {model.model!r} on {entry.endpoint}: {error}; {REPAIR}"
            raise StackError("\n".join((reason, *error.located))) from error
        except EndpointError as error:
            reason = (
                f"{entry.endpoint} ended or did not answer while it loaded {model.model!r}: {error}; publish again, and if "
                "it happens again, it is the model: try it with `tidegate models smoke`"
            )
            found = await located(self.plane.ports.diagnose, model.model)
            raise ServerLostError(model.model, "\n".join((reason, *found))) from error
        self._fresh.add((entry.endpoint.url, model.model))
        self.loads[model.model] = self.loads.get(model.model, 0) + 1
        self._loaded_urls.add(entry.endpoint.url)


def label(model: ModelLoad) -> str:
    return f"{model.model}/{','.join(map(str, model.versions))}"
