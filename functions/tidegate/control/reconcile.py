"""Reconcile: compare what the fleet must hold with what every endpoint holds, and make it so.

Safe from anywhere, at any time, several at once. Where nothing differs it calls nothing that changes anything.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tidegate.control.claims import Claims
from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.desired import Desired, StateReader
from tidegate.control.endpoints import Endpoints, explained, located, name_of, raise_first
from tidegate.control.failures import Failures
from tidegate.control.plans import Difference, Loaded, difference, with_versions
from tidegate.control.remains import RECOVER
from tidegate.errors import EndpointError, EndpointTimeoutError, ModelLoadError
from tidegate.ports import EndpointState, ModelLoad, RefusedEndpoint, RegisteredEndpoint

logger = logging.getLogger(__name__)

CLAIMS_EVERY_S = 0.5
MOST_PASSES = 10

Kind = Literal["load", "narrow", "unload"]


@dataclass(frozen=True, slots=True)
class Action:
    """One change of one endpoint that was made, or would be (`dry_run`), or failed with `error`."""

    shard: str
    url: str
    action: Kind
    model: str
    versions: tuple[int, ...] = ()
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        versions = {"versions": list(self.versions)} if self.versions else {}
        error = {"error": self.error} if self.error else {}
        return {"shard": self.shard, "url": self.url, "action": self.action, "model": self.model} | versions | error


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """What a pass found and did.

    Attributes:
        actions: what was changed, in order; with `dry_run` what would have been.
        failed: changes that did not come about.
        unreachable: why endpoints could not be asked, or gave no answer that can be read, by address.
        refused: which entries of the registry are not trusted, and why; they were sent nothing.
        waiting: failed loads that are tried again later, in words.
        problems: what of the desired state could not be read; then nothing is unloaded.
        endpoints: how many endpoints were compared.
        interrupted: whether it stopped early, because a publisher began that does not know of it.
    """

    actions: tuple[Action, ...] = ()
    failed: tuple[Action, ...] = ()
    unreachable: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    endpoints: int = 0
    interrupted: bool = False

    @property
    def converged(self) -> bool:
        """Whether the fleet holds what it should, and nothing had to be done for that."""
        return not (self.actions or self.undone)

    @property
    def undone(self) -> bool:
        """Whether something could not be done."""
        lacking = self.failed or self.unreachable or self.refused or self.waiting or self.problems
        return bool(lacking) or self.interrupted

    def then(self, later: ReconcileResult) -> ReconcileResult:
        """This and a later pass as one."""
        return replace(later, actions=self.actions + later.actions, failed=self.failed + later.failed)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "converged": self.converged,
            "endpoints": self.endpoints,
            "actions": [each.as_dict() for each in self.actions],
            "failed": [each.as_dict() for each in self.failed],
            "unreachable": dict(self.unreachable),
            "refused": list(self.refused),
            "waiting": list(self.waiting),
            "problems": list(self.problems),
            "interrupted": self.interrupted,
        }


@dataclass(frozen=True, slots=True)
class Observation:
    """What endpoints hold beside what they must hold; `unreachable` says why some could not be asked, by address. `refused`
    are those that are not trusted, and were not asked."""

    desired: Desired
    entries: tuple[RegisteredEndpoint, ...]
    loaded: Mapping[RegisteredEndpoint, Loaded]
    differences: Mapping[RegisteredEndpoint, Difference]
    unreachable: Mapping[str, str]
    refused: tuple[RefusedEndpoint, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """What of the desired state could not be read, and what is loaded though nothing is known to have been published."""
        desired = self.desired
        holding = sum(bool(have) for have in self.loaded.values())
        if not holding or desired.pointer is not None or desired.remains.possible or desired.claims:
            return desired.problems
        return (
            *desired.problems,
            f"{holding} servers hold models, and nothing in the stores says that anything was ever published; nothing is "
            f"unloaded; see whether it is the right bucket, then {RECOVER} or publish",
        )

    def drift(self) -> Iterator[Action]:
        """What would have to be changed."""
        for entry, found in self.differences.items():
            yield from (_action(entry, "unload", model) for model in found.surplus)
            yield from (_action(entry, "load", load) for load in found.missing)
            yield from (_action(entry, "narrow", load) for load in found.wider)


@dataclass(slots=True)
class _Pass:
    """A pass that changes something. `known` are the publishers' claims that it heeds."""

    desired: Desired
    known: frozenset[str]
    asked_at: float
    actions: list[Action] = field(default_factory=list)
    failed: list[Action] = field(default_factory=list)
    interrupted: bool = False


class Reconciler:
    """Reconciles a fleet. `failures` remembers which loads failed; they are tried more and more rarely."""

    def __init__(
        self, ports: ControlPorts, config: ControlConfig, reader: StateReader, failures: Failures | None = None
    ) -> None:
        self._ports = ports
        self._config = config
        self._reader = reader
        self._claims = Claims(ports, config, reader)
        self._endpoints = Endpoints(ports, config)
        self._failures = Failures(ports.clock) if failures is None else failures

    async def reconcile(self, by: str, *, dry_run: bool = False) -> ReconcileResult:
        """Look at every endpoint that is ready, and change what must be changed.

        Args:
            by: who repairs, for others to read.
            dry_run: only say what would be changed.

        Raises:
            StoreError: a store did not answer; what was changed until then is well.
        """
        result = await self._pass(by, dry_run=dry_run)
        for _ in range(MOST_PASSES - 1):
            if not result.interrupted:
                break
            result = result.then(await self._pass(by, dry_run=dry_run))
        return result

    async def observe(self, states: Collection[EndpointState] = (EndpointState.READY,)) -> Observation:
        """Compare every endpoint in one of some states with what it must hold. Raises `StoreError`."""
        listing = await self._ports.registry.listing()
        entries = [entry for entry in listing.endpoints if entry.state in states]
        # What is loaded is asked before what should be: whoever loaded it had claimed it before.
        loaded, unreachable = await self._ask(entries)
        desired = await self._reader.read()
        found = {entry: await self._difference(entry.endpoint.shard, have, desired) for entry, have in loaded.items()}
        return Observation(desired, tuple(entries), loaded, found, unreachable, listing.refused)

    def waiting(self, seen: Observation) -> tuple[str, ...]:
        """The loads that failed and are tried again later, of what is missing, in words."""
        missing = {
            (entry.endpoint.shard, load.model) for entry, each in seen.differences.items() for load in each.missing
        }
        return self._failures.waiting(missing)

    async def _pass(self, by: str, *, dry_run: bool) -> ReconcileResult:
        seen = await self.observe()
        self._failures.keep(seen.desired.plans)
        work = _Pass(seen.desired, frozenset(), self._ports.clock())
        due = [entry for entry, each in seen.differences.items() if self._is_due(entry.endpoint.shard, each)]
        unreachable = dict(seen.unreachable)
        if dry_run:
            work.actions = list(seen.drift())
        elif due:
            async with self._claims.repairing(by):
                work = await self._repair(due, unreachable)
        if not dry_run:
            await self._claims.clear()
        return ReconcileResult(
            tuple(work.actions),
            tuple(work.failed),
            unreachable,
            tuple(entry.note for entry in seen.refused),
            self.waiting(seen),
            replace(seen, desired=work.desired).problems,
            len(seen.entries),
            work.interrupted,
        )

    async def _repair(self, due: list[RegisteredEndpoint], unreachable: dict[str, str]) -> _Pass:
        # Read anew under the mark: a publisher that will not see the mark is in here.
        desired = await self._reader.read()
        known = frozenset(claim.id for claim in desired.claims if claim.publishes)
        work = _Pass(desired, known, self._ports.clock())

        async def repair(entry: RegisteredEndpoint) -> None:
            try:
                await self._repair_one(entry, work)
            except EndpointError as error:
                unreachable[entry.endpoint.url] = str(error)

        raise_first(await self._endpoints.each(due, repair))
        return work

    async def _repair_one(self, entry: RegisteredEndpoint, work: _Pass) -> None:
        have = await self._endpoints.loaded(entry)
        found = await self._difference(entry.endpoint.shard, have, work.desired)
        for model in found.surplus:
            if await self._must_stop(work):
                return
            await self._endpoints.unload(entry, model)
            work.actions.append(_action(entry, "unload", model))
        missing: set[str] = {load.model for load in found.missing}
        for load in (*found.missing, *found.wider):
            if await self._must_stop(work):
                return
            narrow = load.model not in missing
            step = next((step for step in load.steps if step in missing), None)
            if step is not None:
                work.failed.append(_action(entry, "load", load, f"its step {step!r} is not loaded"))
            elif not self._failures.reason(entry.endpoint.shard, load):
                kept = () if work.desired.complete else have.get(load.model, ())
                wider = with_versions(load, {*load.versions, *kept})
                if await self._load(entry, wider, work, "narrow" if narrow else "load"):
                    missing.discard(load.model)

    async def _load(self, entry: RegisteredEndpoint, load: ModelLoad, work: _Pass, action: Kind) -> bool:
        """Load a model; whether it is loaded now. Raises `EndpointError` where the server is lost."""
        shard = entry.endpoint.shard
        try:
            await self._endpoints.load(entry, load)
        except ModelLoadError as error:
            reason = explained(str(error), error.located)
            self._failures.remember(shard, load, reason, hung=error.hung)
            work.failed.append(_action(entry, action, load, reason))
            logger.warning("%s on %s: %s", load.model, name_of(entry), reason)
            if error.hung:
                await self._ports.registry.mark_wedged(entry.endpoint, f"the load of {load.model!r} hangs")
                raise EndpointTimeoutError(f"{name_of(entry)}: the load of {load.model!r} hangs") from error
            return False
        except EndpointError as error:
            lost = f"the server ended or did not answer: {error}"
            reason = explained(lost, await located(self._ports.diagnose, load.model))
            self._failures.remember(shard, load, reason, hung=True)
            work.failed.append(_action(entry, action, load, reason))
            raise
        self._failures.forget(shard, load.model)
        work.actions.append(_action(entry, action, load))
        return True

    async def _ask(
        self, entries: Sequence[RegisteredEndpoint]
    ) -> tuple[dict[RegisteredEndpoint, Loaded], dict[str, str]]:
        loaded: dict[RegisteredEndpoint, Loaded] = {}
        unreachable: dict[str, str] = {}
        for entry, answer in zip(entries, await self._endpoints.each(entries, self._endpoints.loaded), strict=True):
            if isinstance(answer, EndpointError):
                unreachable[entry.endpoint.url] = str(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                loaded[entry] = answer
        return loaded, unreachable

    async def _difference(self, shard: str, have: Loaded, desired: Desired) -> Difference:
        found = difference(desired.needs(shard), have, {}, desired.plan(shard))
        if not desired.complete:
            return Difference(found.missing)
        if len(found.surplus) < 2:
            return found
        return difference(desired.needs(shard), have, await self._reader.past_steps(), desired.plan(shard))

    async def _must_stop(self, work: _Pass) -> bool:
        """Whether a publisher has come that this pass does not know of: it waits for the pass to end."""
        if not work.interrupted and self._ports.clock() >= work.asked_at + CLAIMS_EVERY_S:
            work.asked_at = self._ports.clock()
            work.interrupted = not await self._claims.publishers() <= work.known
        return work.interrupted

    def _is_due(self, shard: str, found: Difference) -> bool:
        if found.surplus:
            return True
        return any(not self._failures.reason(shard, load) for load in (*found.missing, *found.wider))


def _action(entry: RegisteredEndpoint, action: Kind, model: ModelLoad | str, error: str = "") -> Action:
    name, versions = (model, ()) if isinstance(model, str) else (model.model, model.versions)
    return Action(entry.endpoint.shard, entry.endpoint.url, action, name, versions, error)
