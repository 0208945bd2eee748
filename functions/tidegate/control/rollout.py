"""Rollout: a revision's models loaded on every endpoint of their shards, and every target found READY."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tidegate.control.claims import Claims, HeldClaim, Note
from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.desired import Desired
from tidegate.control.endpoints import Endpoints, located, name_of, raise_first
from tidegate.control.plans import NOTHING, Loaded, Plan, with_versions
from tidegate.control.presence import Presence
from tidegate.control.trying import REPAIR, STEP, Untried, closures
from tidegate.errors import EndpointError, EndpointTimeoutError, ModelLoadError, PublishError, StackError
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
        return f"{names} on {len(self.endpoints)} endpoint{'s' * (len(self.endpoints) != 1)}"


class Rollout:
    """Brings one revision onto the endpoints.

    Attributes:
        proved_at: when the claim was proved, in Unix seconds; set it before `validate`.
        untried: the models that no revision has served before; set it before `load`.
        careful: whether these could harm something that is live; set it before `load`.
        presence: which shards have servers.
        loads: what was loaded.
        wedged: the endpoints that a load or a request hangs on, with the reason in words.
        unproved: the targets that no golden request proved, with the reason in words.
    """

    def __init__(
        self, ports: ControlPorts, config: ControlConfig, claims: Claims, presence: Presence, wanted: Wanted
    ) -> None:
        self.proved_at = 0.0
        self.untried = Untried({}, NOTHING, ())
        self.careful = False
        self._ports = ports
        self._config = config
        self._claims = claims
        self.presence = presence
        self._wanted = wanted
        self._endpoints = Endpoints(ports, config)
        self._golden: set[tuple[str, str]] = set()
        self._fresh: set[tuple[str, str]] = set()
        self._failed = False
        self.loads = Loads()
        self.wedged: dict[RegisteredEndpoint, str] = {}
        self.unproved: dict[str, str] = {}

    async def try_on_one(self, desired: Desired, note: Note) -> None:
        """Load and ask what was never tried on one server of the fleet: each model on the shard with the most servers.

        Raises:
            PublishError: a model was refused, hung, ended its server or answered wrongly.
            StackError: a model has no server to be tried on.
            StoreError: the registry did not answer.
        """
        groups = await self.presence.groups(note)
        left = dict(self.untried.models)
        tried: dict[RegisteredEndpoint, Loaded] = {}
        for shard in sorted(groups, key=lambda each: (-len(groups[each]), each)):
            here = {load.model: left.pop(load.model) for load in self._wanted.plans[shard] if load.model in left}
            if here:
                entry = await self._answering(groups[shard])
                note(f"trying {', '.join(sorted(here))} on {name_of(entry)}")
                plan = closures(self._wanted.plans[shard], here)
                with _blamed():
                    tried[entry] = await self._prove_on(entry, desired, note, plan, self.untried.targets_of(here))
        await asyncio.sleep(self._config.soak_s if tried else 0.0)
        for entry, before in tried.items():
            with _blamed():
                await self._check_well(entry, before)
        for model in left:
            shards = [shard for shard, plan in self._wanted.plans.items() if any(each.model == model for each in plan)]
            if self.presence.patient and not await self.presence.may_sleep(shards):
                raise StackError(
                    f"model {model!r} was never live, and no server is ready that it could be tried on: start one of shard "
                    f"{shards[0]!r}, and publish again"
                )
            note(f"model {model!r} could not be tried, as no server is ready that needs it")

    async def _answering(self, group: Sequence[RegisteredEndpoint]) -> RegisteredEndpoint:
        """The first server of a shard that answers. Raises `StackError` where none does."""
        for entry in group:
            with contextlib.suppress(EndpointError):
                await self._endpoints.loaded(entry)
                return entry
        raise StackError(f"{name_of(group[0])} does not answer, and its shard has no other server; {_ADVICE}")

    async def load(self, desired: Desired, note: Note) -> None:
        """Load what is missing on every endpoint that is ready: on one of each shard first, and then on the others. Models
        that live does not know go on one server of each shard at a time, and each must stay well before the next is begun.

        Raises:
            StackError: a model was refused, hung, or its server ended.
            StoreError: the registry did not answer.
        """
        groups = await self.presence.groups(note)
        results = await self._endpoints.each(groups.values(), lambda group: self._spread(group, desired, note))
        raise_first(results)

    async def _spread(self, group: Sequence[RegisteredEndpoint], desired: Desired, note: Note) -> None:
        """Load on the servers of a shard."""
        before: dict[RegisteredEndpoint, Loaded] = {}
        try:
            # Where nothing is live yet, nothing can be harmed, and the first start should not take longer than it must.
            first = 1 if desired.serves else len(group)
            for batch in _batches(group, first, 1 if self.careful else len(group)):
                if self._failed:
                    return
                for entry, loaded in before.items():
                    await self._check_well(entry, loaded)
                results = await self._endpoints.each(batch, lambda entry: self._load_and_ask(entry, desired, note))
                raise_first([each for each in results if not isinstance(each, EndpointError)])
                for entry, result in zip(batch, results, strict=True):
                    if isinstance(result, EndpointError):
                        note(f"{result}; it is asked again before the flip")
                    elif self.careful:
                        before[entry] = result  # type: ignore[assignment]  # raised above
        except BaseException:
            self._failed = True
            raise

    async def _load_and_ask(self, entry: RegisteredEndpoint, desired: Desired, note: Note) -> Loaded:
        """Load what a server lacks, and ask it what is new; what it must hold from then on."""
        shard = entry.endpoint.shard
        targets = [each for each in self.untried.targets if shard in each.shards] if self.careful else []
        return await self._prove_on(entry, desired, note, self._wanted.plans.get(shard, NOTHING), targets)

    async def _prove_on(
        self, entry: RegisteredEndpoint, desired: Desired, note: Note, plan: Plan, targets: Iterable[Target]
    ) -> Loaded:
        """Load some models on a server and ask some targets; what of live it held before, and must hold still.

        Raises:
            EndpointError: it did not answer before anything was loaded.
            StackError: it was lost, or something is wrong with a model.
        """
        before = await self._before(entry, desired)
        await self._load_on(entry, desired, note, plan)
        for target in targets:
            try:
                await self._ask(entry, target, note)
            except EndpointError as error:
                reason = (
                    f"{name_of(entry)} ended or did not answer while target {target.name!r} answered its first requests"
                )
                raise StackError(f"{reason}: {error}; {REPAIR}") from error
        if self.careful:
            await self._check_well(entry, before)
        return before

    async def _before(self, entry: RegisteredEndpoint, desired: Desired) -> Loaded:
        """What of the live revision a server holds."""
        loaded = await self._endpoints.loaded(entry)
        live = {load.model: load.versions for load in desired.live.get(entry.endpoint.shard, NOTHING)}
        return {model: versions.intersection(live[model]) for model, versions in loaded.items() if model in live}

    async def _check_well(self, entry: RegisteredEndpoint, before: Loaded) -> None:
        """See that a server answers, and that what of live was READY on it is READY still. Raises `StackError`."""
        names = ", ".join(sorted(self.untried.models))
        try:
            loaded = await self._endpoints.loaded(entry)
        except EndpointError as error:
            raise StackError(
                f"{name_of(entry)} does not answer after {names} was loaded on it: {error}; {REPAIR}"
            ) from error
        for model, versions in before.items():
            if not loaded.get(model, frozenset()).issuperset(versions):
                raise StackError(
                    f"{model!r} is not READY on {name_of(entry)} any more after {names} was loaded; {REPAIR}"
                )

    async def validate(self, held: HeldClaim, desired: Desired, note: Note) -> None:
        """Find every target READY on every endpoint of its shards, and its golden requests answered.

        What is missing meanwhile, on a server that has just come or through someone who did not know of the claim, is
        loaded.

        Raises:
            StackError: an endpoint does not answer, or a target is not READY or gives a wrong answer.
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
                raise StackError(f"{problems[0] if problems else 'servers are still starting'}; {_ADVICE}")
            await asyncio.sleep(POLL_S)

    async def ready(self) -> bool:
        """Whether every target is READY now on every endpoint of its shards that answers, and one of each shard does. A
        shard of which none does counts where that leaves nothing served worse than it is."""
        entries = await self._endpoints.by_shard()
        silent = []
        for shard in self._shards():
            results = await self._endpoints.each(entries.get(shard, ()), self._not_ready)
            answers = [each for each in results if not isinstance(each, EndpointError)]
            raise_first(answers)
            if any(answers):
                return False
            if not answers:
                silent.append(shard)
        self.presence.absent = tuple(silent)
        return not silent or await self.presence.serves_no_worse(silent)

    async def _problems(self, desired: Desired, note: Note) -> list[str]:
        """What is wrong with each endpoint now; loads what is missing."""
        entries = [entry for group in (await self.presence.groups(note)).values() for entry in group]
        results = await self._endpoints.each(entries, lambda entry: self._validate_on(entry, desired, note))
        raise_first([each for each in results if not isinstance(each, EndpointError)])
        if await self._needs_no(entries, results):
            results = [each for each in results if not isinstance(each, EndpointError)]
        return [str(result) for result in results if result]

    async def _needs_no(self, entries: Sequence[RegisteredEndpoint], results: Sequence[object]) -> bool:
        """Whether whoever makes the change has no time for servers that do not answer: others of their shards do, or
        nothing is served worse without these shards."""
        if self.presence.patient:
            return False
        answering = {
            entry.endpoint.shard
            for entry, each in zip(entries, results, strict=True)
            if not isinstance(each, EndpointError)
        }
        silent = [shard for shard in self._shards() if shard not in answering]
        if silent and not await self.presence.serves_no_worse(silent):
            return False
        self.presence.absent = tuple(silent)
        return True

    async def _validate_on(self, entry: RegisteredEndpoint, desired: Desired, note: Note) -> str:
        await self._load_on(entry, desired, note, self._wanted.plans.get(entry.endpoint.shard, NOTHING))
        problem = await self._not_ready(entry)
        if problem:
            return problem
        for target in self._wanted.targets_on(entry.endpoint.shard):
            if target.name not in self._wanted.known:
                await self._ask(entry, target, note)
        return ""

    async def _ask(self, entry: RegisteredEndpoint, target: Target, note: Note) -> None:
        """Ask a target its golden requests, once on each server.

        Raises:
            EndpointError: the server did not answer.
            StackError: the answer is wrong, or proves nothing where it must.
        """
        asked = (entry.endpoint.url, target.name)
        if asked in self._golden:
            return
        try:
            result = await self._endpoints.golden(entry, target)
        except EndpointTimeoutError as error:
            self.wedged[entry] = f"a request of {target.name!r} hangs"
            raise StackError(
                f"target {target.name!r} on {name_of(entry)} does not answer: {error}; {REPAIR}"
            ) from error
        if result.outcome is GoldenOutcome.WRONG:
            raise StackError(f"target {target.name!r} on {name_of(entry)}: {result.reason}; correct the model")
        if result.outcome is GoldenOutcome.UNPROVED:
            self._note_unproved(target, "; ".join(filter(None, (result.reason, result.advice))), note)
        self._golden.add(asked)

    def _note_unproved(self, target: Target, reason: str, note: Note) -> None:
        if self._wanted.proved:
            raise StackError(f"target {target.name!r} is unproved: {reason}")
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

    async def _load_on(self, entry: RegisteredEndpoint, desired: Desired, note: Note, plan: Plan) -> None:
        loaded = dict(await self._endpoints.loaded(entry))
        desired_loads = {load.model: load for load in desired.plan(entry.endpoint.shard)}
        lacking = [
            load
            for load in plan
            if self._is_stale(entry, load.model) or not loaded.get(load.model, frozenset()).issuperset(load.versions)
        ]
        for number, load in enumerate(lacking, 1):
            have = loaded.get(load.model, frozenset())
            # Whatever else is loaded stays: taking away is for those who repair, and never for a publisher.
            whole = desired_loads.get(load.model, load)
            wider = with_versions(whole, {*whole.versions, *have})
            note(f"loading {_label(wider)} on {name_of(entry)} ({number} of {len(lacking)})")
            await self._load_one(entry, wider)
            loaded[load.model] = frozenset(wider.versions)

    def _is_stale(self, entry: RegisteredEndpoint, model: str) -> bool:
        """Whether a server may have another content of a model than was pushed last: one that was never live can be
        replaced. Triton loads only what has changed."""
        return model in self.untried.models and (entry.endpoint.url, model) not in self._fresh

    async def _load_one(self, entry: RegisteredEndpoint, load: ModelLoad) -> None:
        try:
            await self._endpoints.load(entry, load)
        except ModelLoadError as error:
            if error.hung:
                self.wedged[entry] = f"the load of {load.model!r} hangs"
            reason = f"model {load.model!r} on {name_of(entry)}: {error}; {REPAIR}"
            raise StackError("\n".join((reason, *error.located))) from error
        except EndpointError as error:
            reason = (
                f"{name_of(entry)} ended or did not answer while it loaded {load.model!r}: {error}; publish again, and if "
                "it happens again, it is the model: try it with `tidegate models smoke`"
            )
            found = await located(self._ports.diagnose, load.model)
            raise StackError("\n".join((reason, *found))) from error
        self._fresh.add((entry.endpoint.url, load.model))
        self.loads.models[load.model] = self.loads.models.get(load.model, 0) + 1
        self.loads.endpoints.add(entry.endpoint.url)

    def _shards(self) -> list[str]:
        return [shard for shard, plan in self._wanted.plans.items() if plan]


_ADVICE = "see `tidegate status`, and publish again when the fleet is well"


@contextlib.contextmanager
def _blamed() -> Iterator[None]:
    """Have a try fail as it does on a scratch server where the model is to blame."""
    try:
        yield
    except StackError as error:
        raise PublishError(STEP, str(error)) from error


def _batches(group: Sequence[RegisteredEndpoint], first: int, size: int) -> Iterator[Sequence[RegisteredEndpoint]]:
    """The `first` servers, and then `size` at a time."""
    yield group[:first]
    for start in range(first, len(group), size):
        yield group[start : start + size]


def _label(load: ModelLoad) -> str:
    return f"{load.model}/{','.join(map(str, load.versions))}"
