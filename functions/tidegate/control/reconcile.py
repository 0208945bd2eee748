"""Reconcile: observe every endpoint, and change what must be changed.

It is safe anywhere, at any time, and several times at once. Without a difference it makes no call that changes anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tidegate.control.claims import clear_claims, publishers, repairing
from tidegate.control.desired import Desired
from tidegate.control.endpoints import each, load_remembered, loaded_on, unload
from tidegate.control.observe import Action, ActionKind, Observation, differs, observe, waiting
from tidegate.control.plane import ControlPlane
from tidegate.control.plans import Difference, with_versions
from tidegate.errors import EndpointError, EndpointTimeoutError, ModelHangsError, ModelLoadError
from tidegate.ports import ModelLoad, RegisteredEndpoint

CLAIMS_EVERY_S = 0.5
MOST_PASSES = 10


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """Result of a reconcile.

    Attributes:
        unreachable: why endpoints could not be asked, or gave no readable answer, by address.
        refused: which entries of the registry are not trusted, and why; they were sent nothing.
        waiting: texts about failed loads that are tried again later.
        problems: parts of the desired state that could not be read; then nothing is unloaded.
        interrupted: whether it stopped early, because a publisher began that does not know of it.
    """

    endpoints: int = 0
    actions: tuple[Action, ...] = ()
    failed: tuple[Action, ...] = ()
    unreachable: Mapping[str, str] = field(default_factory=dict)
    refused: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    interrupted: bool = False

    @property
    def converged(self) -> bool:
        """Whether the fleet already held what it should."""
        return not (self.actions or self.undone)

    @property
    def undone(self) -> bool:
        """Whether a change could not be made."""
        lacking = self.failed or self.unreachable or self.refused or self.waiting or self.problems
        return bool(lacking) or self.interrupted

    def __str__(self) -> str:
        counts = [
            (sum(action.action is ActionKind.LOAD for action in self.actions), "loaded"),
            (sum(action.action is ActionKind.NARROW for action in self.actions), "narrowed"),
            (sum(action.action is ActionKind.UNLOAD for action in self.actions), "unloaded"),
            (len(self.failed), "failed"),
            (len(self.unreachable), "endpoints do not answer"),
            (len(self.refused), "endpoints are not trusted"),
        ]
        return ", ".join(f"{count} {what}" for count, what in counts if count) or "nothing to do"

    def as_dict(self) -> dict[str, Any]:
        return {
            "converged": self.converged,
            **asdict(self),
            "actions": [action.as_dict() for action in self.actions],
            "failed": [action.as_dict() for action in self.failed],
        }


async def plan_reconcile(plane: ControlPlane) -> ReconcileResult:
    """Return the changes that a reconcile would make."""
    seen = await observe(plane)
    plane.failures.keep(seen.desired.plans)
    would = _Repair(plane, seen.desired)
    would.actions.extend(seen.drift())
    return _result(plane, seen, would)


async def reconcile_fleet(plane: ControlPlane, by: str) -> ReconcileResult:
    """Compare every ready endpoint with what it must hold, and make the changes.

    Raises:
        StoreError: a store did not answer; the changes made until then are correct.
    """
    result = await _pass(plane, by)
    for _ in range(MOST_PASSES - 1):
        if not result.interrupted:
            break
        later = await _pass(plane, by)
        result = replace(later, actions=result.actions + later.actions, failed=result.failed + later.failed)
    return result


async def _pass(plane: ControlPlane, by: str) -> ReconcileResult:
    seen = await observe(plane)
    plane.failures.keep(seen.desired.plans)
    repair = _Repair(plane, seen.desired)
    due = [entry for entry, found in seen.differences.items() if _is_due(plane, entry.endpoint.shard, found)]
    if due:
        async with repairing(plane, by):
            # Read again under the mark: a publisher that will not see the mark is in here.
            repair = _Repair(plane, await plane.reader.read())
            await repair.run(due)
    await clear_claims(plane)
    return _result(plane, seen, repair)


def _is_due(plane: ControlPlane, shard: str, found: Difference) -> bool:
    return bool(found.surplus) or any(
        plane.failures.reason(shard, model) is None for model in (*found.missing, *found.wider)
    )


def _result(plane: ControlPlane, seen: Observation, repair: _Repair) -> ReconcileResult:
    return ReconcileResult(
        len(seen.entries),
        tuple(repair.actions),
        tuple(repair.failed),
        {**seen.unreachable, **repair.unreachable},
        tuple(entry.note for entry in seen.refused),
        waiting(plane, seen),
        replace(seen, desired=repair.desired).problems,
        repair.interrupted,
    )


class _Repair:
    """A reconcile that makes changes."""

    def __init__(self, plane: ControlPlane, desired: Desired) -> None:
        self.desired = desired
        self.actions: list[Action] = []
        self.failed: list[Action] = []
        self.unreachable: dict[str, str] = {}
        self.interrupted = False
        self._plane = plane
        self._known_publishers = frozenset(claim.id for claim in desired.claims if claim.publishes)
        self._asked_at = plane.ports.clock()

    async def run(self, due: list[RegisteredEndpoint]) -> None:
        for entry, result in zip(due, await each(self._plane, due, self._repair), strict=True):
            if isinstance(result, EndpointError):
                self.unreachable[entry.endpoint.url] = str(result)

    async def _repair(self, entry: RegisteredEndpoint) -> None:
        """Make the changes of one endpoint. Raises `EndpointError`."""
        plane, shard = self._plane, entry.endpoint.shard
        have = await loaded_on(plane, entry)
        found = await differs(plane, entry, have, self.desired)
        for surplus in found.surplus:
            if await self._must_stop():
                return
            await unload(plane, entry, surplus)
            self.actions.append(Action.on(entry, ActionKind.UNLOAD, surplus))
        missing = {load.model for load in found.missing}
        for model in (*found.missing, *found.wider):
            if await self._must_stop():
                return
            kind = ActionKind.LOAD if model.model in missing else ActionKind.NARROW
            step = next((step for step in model.steps if step in missing), None)
            if step is not None:
                self.failed.append(Action.on(entry, ActionKind.LOAD, model, f"its step {step!r} is not loaded"))
            elif plane.failures.reason(shard, model) is None:
                kept = () if self.desired.complete else have.get(model.model, ())
                if await self._load(entry, with_versions(model, {*model.versions, *kept}), kind):
                    missing.discard(model.model)

    async def _load(self, entry: RegisteredEndpoint, model: ModelLoad, kind: ActionKind) -> bool:
        """Load a model. Return whether it is loaded now. Raises `EndpointError` if the server is lost."""
        plane, shard = self._plane, entry.endpoint.shard
        try:
            await load_remembered(plane, entry.endpoint, plane.ports.repository_of(entry), model)
        except (ModelLoadError, EndpointError) as error:
            self.failed.append(Action.on(entry, kind, model, plane.failures.known(shard, model.model)))
            if isinstance(error, EndpointError):
                raise
            if isinstance(error, ModelHangsError):
                hangs = f"the load of {model.model!r} hangs"
                await plane.ports.registry.mark_wedged(entry.endpoint, hangs)
                raise EndpointTimeoutError(f"{entry.endpoint}: {hangs}") from error
            return False
        self.actions.append(Action.on(entry, kind, model))
        return True

    async def _must_stop(self) -> bool:
        """Return whether a publisher began that this reconcile does not know of, and that waits for its end."""
        clock = self._plane.ports.clock
        if not self.interrupted and clock() >= self._asked_at + CLAIMS_EVERY_S:
            self._asked_at = clock()
            self.interrupted = not await publishers(self._plane) <= self._known_publishers
        return self.interrupted
