"""Rollout: a revision's models loaded on every endpoint of their shards, and every target found READY."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tidegate.control.claims import Claims, HeldClaim, Note
from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.desired import Desired
from tidegate.control.endpoints import Endpoints, located, name_of, raise_first
from tidegate.control.plans import NOTHING, Plan, with_versions
from tidegate.errors import EndpointError, ModelLoadError, PublishError
from tidegate.ports import EndpointState, GoldenOutcome, ModelLoad, RegisteredEndpoint
from tidegate.rules import Target

POLL_S = 0.25


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a rollout must bring about.

    Attributes:
        plans: what each shard must hold.
        targets: the targets that must be READY, each on all its shards.
        known: the names of the targets that live serves in just the same way, so that golden requests prove nothing.
        proved: whether every target must answer a golden request.
    """

    plans: Mapping[str, Plan]
    targets: Sequence[Target]
    known: frozenset[str] = frozenset()
    proved: bool = False

    def targets_on(self, shard: str) -> Iterable[Target]:
        """The targets of a shard."""
        return (target for target in self.targets if shard in target.shards)


@dataclass(slots=True)
class Loads:
    """What was loaded: models and how many loads of them there were, on how many endpoints."""

    models: dict[str, int] = field(default_factory=dict)
    endpoints: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        if not self.models:
            return "everything is loaded already"
        names = ", ".join(sorted(self.models)[:5]) + (
            f" and {len(self.models) - 5} more" if len(self.models) > 5 else ""
        )
        return f"{names} on {len(self.endpoints)} endpoints"


class Rollout:
    """Brings one revision onto the endpoints.

    Attributes:
        proved_at: when the claim was proved, in Unix seconds; set it before `validate`.
        loads: what was loaded.
        wedged: the endpoints that a load hangs on, with the reason in words.
        unproved: the targets that no golden request proved, with the reason in words.
    """

    def __init__(self, ports: ControlPorts, config: ControlConfig, claims: Claims, wanted: Wanted) -> None:
        self.proved_at = 0.0
        self._ports = ports
        self._config = config
        self._claims = claims
        self._wanted = wanted
        self._endpoints = Endpoints(ports, config)
        self._golden: set[tuple[str, str]] = set()
        self.loads = Loads()
        self.wedged: dict[RegisteredEndpoint, str] = {}
        self.unproved: dict[str, str] = {}

    async def load(self, desired: Desired, note: Note) -> None:
        """Load what is missing on every endpoint that is ready: on one of each shard first, then on the others, so that a
        model that takes its server down takes down one.

        Raises:
            PublishError: a model was refused, hung, or its server ended.
            StoreError: the registry did not answer.
        """
        groups = await self._groups(note)
        first = [group[0] for group in groups.values()]
        rest = [entry for group in groups.values() for entry in group[1:]]
        for entries in (first, rest):
            results = await self._endpoints.each(entries, lambda entry: self._load_on(entry, desired, note))
            raise_first([each for each in results if not isinstance(each, EndpointError)])
            for silent in (each for each in results if isinstance(each, EndpointError)):
                note(f"{silent}; it is asked again before the flip")

    async def validate(self, held: HeldClaim, desired: Desired, note: Note) -> None:
        """Find every target READY on every endpoint of its shards, and its golden requests answered.

        What is missing meanwhile, on a server that has just come or through someone who did not know of the claim, is
        loaded.

        Raises:
            PublishError: an endpoint does not answer, or a target is not READY or gives a wrong answer.
            StoreError: a store did not answer.
        """
        deadline = self._ports.clock() + self._config.endpoint_wait_s
        await self._claims.strangers_gone(held, note)
        while True:
            # In this order: a server that is ready by now is among those that are asked next.
            settled = await self._settled(note)
            problems = await self._problems(desired, note)
            if settled and not problems:
                return
            if self._ports.clock() > deadline:
                raise PublishError(
                    "validate", f"{problems[0] if problems else 'servers are still starting'}; {_ADVICE}"
                )
            await asyncio.sleep(POLL_S)

    async def ready(self) -> bool:
        """Whether every target is READY now on every endpoint of its shards that answers, and one of each shard does."""
        entries = await self._endpoints.by_shard()
        for shard in self._shards():
            results = await self._endpoints.each(entries.get(shard, ()), self._not_ready)
            answers = [each for each in results if not isinstance(each, EndpointError)]
            raise_first(answers)
            if not answers or any(answers):
                return False
        return True

    async def _problems(self, desired: Desired, note: Note) -> list[str]:
        """What is wrong with each endpoint now; loads what is missing."""
        entries = [entry for group in (await self._groups(note)).values() for entry in group]
        results = await self._endpoints.each(entries, lambda entry: self._validate_on(entry, desired, note))
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, EndpointError):
                raise result
        return [str(result) for result in results if result]

    async def _validate_on(self, entry: RegisteredEndpoint, desired: Desired, note: Note) -> str:
        await self._load_on(entry, desired, note)
        problem = await self._not_ready(entry)
        if problem:
            return problem
        for target in self._wanted.targets_on(entry.endpoint.shard):
            asked = (entry.endpoint.url, target.name)
            if target.name in self._wanted.known or asked in self._golden:
                continue
            result = await self._endpoints.golden(entry, target)
            if result.outcome is GoldenOutcome.WRONG:
                raise PublishError(
                    "validate", f"target {target.name!r} on {name_of(entry)}: {result.reason}; mend the model"
                )
            if result.outcome is GoldenOutcome.UNPROVED:
                self._note_unproved(target, "; ".join(filter(None, (result.reason, result.advice))), note)
            self._golden.add(asked)
        return ""

    def _note_unproved(self, target: Target, reason: str, note: Note) -> None:
        if self._wanted.proved:
            raise PublishError("validate", f"target {target.name!r} is unproved: {reason}")
        if target.name not in self.unproved:
            self.unproved[target.name] = reason
            note(f"target {target.name!r} is unproved: {reason}")

    async def _not_ready(self, entry: RegisteredEndpoint) -> str:
        """Which target an endpoint cannot serve; empty where it can serve all."""
        for target in self._wanted.targets_on(entry.endpoint.shard):
            if not await self._endpoints.model_ready(entry, target.model, target.version):
                return f"target {target.name!r} is not READY on {name_of(entry)}"
        return ""

    async def _settled(self, note: Note) -> bool:
        """Whether no server can still turn ready that has not seen the proved claim.

        A server looks at what it must hold, and is registered ready at most `settle_s` later: one that was loading when
        the claim was proved may have looked before.
        """
        if self._ports.clock() >= self.proved_at + self._config.settle_s:
            return True
        loading = await self._endpoints.by_shard(EndpointState.LOADING)
        if not any(shard in loading for shard in self._shards()):
            return True
        note("waiting for a server that is starting")
        return False

    async def _load_on(self, entry: RegisteredEndpoint, desired: Desired, note: Note) -> None:
        shard = entry.endpoint.shard
        loaded = dict(await self._endpoints.loaded(entry))
        desired_loads = {load.model: load for load in desired.plan(shard)}
        for load in self._wanted.plans.get(shard, NOTHING):
            have = loaded.get(load.model, frozenset())
            if have.issuperset(load.versions):
                continue
            # Whatever else is loaded stays: taking away is for those who repair, and never for a publisher.
            whole = desired_loads.get(load.model, load)
            wider = with_versions(whole, {*whole.versions, *have})
            note(f"loading {_label(wider)} on {name_of(entry)}")
            await self._load_one(entry, wider)
            loaded[load.model] = frozenset(wider.versions)

    async def _load_one(self, entry: RegisteredEndpoint, load: ModelLoad) -> None:
        try:
            await self._endpoints.load(entry, load)
        except ModelLoadError as error:
            if error.hung:
                self.wedged[entry] = f"the load of {load.model!r} hangs"
            reason = f"model {load.model!r} on {name_of(entry)}: {error}; {_MEND}"
            raise PublishError("load", "\n".join((reason, *error.located))) from error
        except EndpointError as error:
            reason = (
                f"{name_of(entry)} ended or did not answer while it loaded {load.model!r}: {error}; publish again, and if "
                "it happens again, it is the model: try it with `tidegate models smoke`"
            )
            found = await located(self._ports.diagnose, load.model)
            raise PublishError("load", "\n".join((reason, *found))) from error
        self.loads.models[load.model] = self.loads.models.get(load.model, 0) + 1
        self.loads.endpoints.add(entry.endpoint.url)

    async def _groups(self, note: Note) -> dict[str, list[RegisteredEndpoint]]:
        """The ready endpoints of each shard that must hold something; waits for shards that have none, as long as one of
        their servers that are starting gets further.

        Raises:
            PublishError: a shard has none, and nothing got further for `endpoint_wait_s`.
        """
        deadline = self._ports.clock() + self._config.endpoint_wait_s
        furthest = 0
        told = False
        while True:
            entries = await self._endpoints.by_shard()
            missing = [shard for shard in self._shards() if shard not in entries]
            if not missing:
                return {shard: entries[shard] for shard in self._shards()}
            loaded = await self._loaded_so_far(missing)
            if loaded > furthest:
                furthest, deadline = loaded, self._ports.clock() + self._config.endpoint_wait_s
            if self._ports.clock() > deadline:
                raise PublishError(
                    "load",
                    f"shard {missing[0]!r} has no server that is ready; start it (a new shard is deployed before rules "
                    "use it), and see `tidegate status`",
                )
            if not told:
                note(f"waiting for a server of {', '.join(missing)}")
            told = True
            await asyncio.sleep(POLL_S)

    async def _loaded_so_far(self, shards: Sequence[str]) -> int:
        """How many models the servers of shards that are starting have loaded: hundreds take minutes."""
        loading = await self._endpoints.by_shard(EndpointState.LOADING)
        entries = [entry for shard in shards for entry in loading.get(shard, ())]
        answers = await self._endpoints.each(entries, self._endpoints.loaded)
        return sum(len(each) for each in answers if not isinstance(each, BaseException))

    def _shards(self) -> list[str]:
        return [shard for shard, plan in self._wanted.plans.items() if plan]


_ADVICE = "see `tidegate status`, and publish again when the fleet is well"
_MEND = "repair the model (as a new version, where this one has been pushed), or take it out of the rules"


def _label(load: ModelLoad) -> str:
    return f"{load.model}/{','.join(map(str, load.versions))}"
