"""Healing: a model that no longer answers on one server, though the server and its other models do, is reloaded there.

The process of a Python model may end, and Triton neither starts another nor says so: the model stays READY and answers 500
for ever. Or its code never returns. A gateway or a self-test that suspects either has the model asked its own golden
requests; if it does not answer them, it is unloaded, loaded, and asked again.

A model may end at each request, so the same one is reloaded more and more rarely.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tidegate.control.endpoints import ask_golden, explained, load_on
from tidegate.control.plane import ControlPlane
from tidegate.control.plans import Plan, closures, difference, target_of, with_versions
from tidegate.errors import (
    EndpointError,
    EndpointTimeoutError,
    ModelHangsError,
    ModelLoadError,
    StackError,
    TidegateError,
)
from tidegate.fleet.reloading import Sick, computing, owners, reload
from tidegate.ports import (
    Endpoint,
    ModelLoad,
    ModelRepository,
    SelfTestState,
    Suspect,
    SuspectKind,
)
from tidegate.ports.bundle_store import iso_time
from tidegate.rules import Target
from tidegate.tasks import cancel

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0
"""Longest time between two reloads of a model that stays broken."""

LONGEST_HELPED_S = 10.0
"""Longest time between two reloads that helped, as when the same request ends the process repeatedly."""

FORGOTTEN_S = 300.0
"""After this time without a reload, the next one of a model does not wait."""

ASKS = 5
"""Requests to find out whether a model's process has ended: with several instances, each request reaches another one."""

MOST_LEFT = 3
"""Hung models after which a server is replaced, since each leaves its process behind."""

ENDED = "its process had ended"
HUNG = "it did not answer"
UNDER_WAY = "it is being loaded"


@dataclass(slots=True)
class Reloads:
    """How often a model was reloaded on one server, when last (Unix seconds), and why. `failing` says what is still wrong
    (`UNDER_WAY` while that is not known); None where it answered afterwards."""

    endpoint: Endpoint
    model: str
    count: int = 0
    last_at: float = 0.0
    reason: str = ""
    failing: str | None = None
    wait_s: float = 0.0

    @property
    def not_before(self) -> float:
        """The time of the next permitted reload, in Unix seconds."""
        return self.last_at + self.wait_s

    def note(self, now: float, reason: str) -> None:
        forgotten = now - self.last_at > FORGOTTEN_S
        self.wait_s = FIRST_BACKOFF_S if forgotten else min(2 * self.wait_s, LONGEST_BACKOFF_S)
        self.count, self.last_at, self.reason, self.failing = self.count + 1, now, reason, UNDER_WAY

    def as_dict(self) -> dict[str, Any]:
        return {
            "shard": self.endpoint.shard,
            "url": self.endpoint.url,
            "model": self.model,
            "count": self.count,
            "last_at": iso_time(self.last_at),
            "reason": self.reason,
            "failing": self.failing,
        }


class Healer:
    """Heals the models of the servers that this process supervises; `repository_of` returns the repository of one."""

    def __init__(self, plane: ControlPlane, repository_of: Callable[[Endpoint], ModelRepository | None]) -> None:
        self._plane = plane
        self._repository_of = repository_of
        self._looks: dict[tuple[Endpoint, str], asyncio.Task[None]] = {}
        self._quiet_until: dict[tuple[Endpoint, str], float] = {}
        self._locks: defaultdict[Endpoint, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reloads: dict[tuple[Endpoint, str], Reloads] = {}
        self._left: Counter[Endpoint] = Counter()

    def suspect(self, suspect: Suspect) -> None:
        key = (suspect.endpoint, suspect.model)
        if key in self._looks or self._repository_of(suspect.endpoint) is None:
            return
        if self._plane.ports.clock() >= self._quiet_until.get(key, 0.0):
            look = self._looks[key] = asyncio.create_task(self._look(suspect))
            look.add_done_callback(lambda _: self._looks.pop(key, None))

    def reloads(self) -> tuple[Reloads, ...]:
        """Return the reloads on the servers that still run, by server and model."""
        there = [each for each in self._reloads.values() if self._repository_of(each.endpoint) is not None]
        return tuple(sorted(there, key=lambda each: (each.endpoint.url, each.model)))

    async def close(self) -> None:
        await cancel(*self._looks.values())

    async def _look(self, suspect: Suspect) -> None:
        endpoint, model = suspect.endpoint, suspect.model
        try:
            async with self._locks[endpoint]:
                await self._heal(suspect)
        except TidegateError as error:
            logger.warning("%s on %s cannot be looked into: %s", model, endpoint, error)
        except Exception:
            # The next suspicion must still be looked into.
            logger.exception("%s on %s cannot be looked into", model, endpoint)

    async def _heal(self, suspect: Suspect) -> None:
        """Check whether a model answers, and reload what of it does not. Raises `EndpointError`: the server does not answer, which
        is not the fault of one model."""
        endpoint = suspect.endpoint
        repository = self._repository_of(endpoint)
        self._forget_ended()
        plan = (await self._plane.reader.read()).needs(endpoint.shard)
        load = next((load for load in plan if load.model == suspect.model), None)
        if repository is None or load is None:
            return
        for version in load.versions:
            one = load if load.config is None else with_versions(load, {version})
            members = closures(plan, {load.model: one})
            target = target_of(load.model, version, endpoint.shard)
            await self._heal_target(endpoint, repository, plan, members, target, suspect.kind)

    def _forget_ended(self) -> None:
        for ended in {endpoint for endpoint in (*self._locks, *self._left) if self._repository_of(endpoint) is None}:
            self._locks.pop(ended, None)
            self._left.pop(ended, None)
        self._reloads = {key: each for key, each in self._reloads.items() if self._repository_of(key[0]) is not None}
        self._quiet_until = {key: at for key, at in self._quiet_until.items() if at > self._plane.ports.clock()}

    async def _heal_target(
        self,
        endpoint: Endpoint,
        repository: ModelRepository,
        plan: Plan,
        members: Plan,
        target: Target,
        kind: SuspectKind,
    ) -> None:
        if kind is SuspectKind.HUNG:
            sick, reason = await self._hung(endpoint, repository, members, target), HUNG
        else:
            sick, reason = await self._ended(endpoint, plan, members, target), ENDED
        for model, versions in sick.items():
            key, now = (endpoint, model), self._plane.ports.clock()
            place = self._reloads.setdefault(key, Reloads(endpoint, model))
            if now < place.not_before:
                self._quiet_until[endpoint, target.model] = place.not_before
                continue
            place.note(now, reason)
            self._left[endpoint] += reason is HUNG
            load = next(load for load in plan if load.model == model)
            try:
                wrong = await self._reload(endpoint, repository, load, versions)
                place.failing = wrong or await self._still_wrong(endpoint, target)
            except TidegateError as error:
                place.failing = f"whether it answers is not known: {error}"
                raise
            if not place.failing:
                place.wait_s = min(place.wait_s, LONGEST_HELPED_S)
            logger.warning(
                "%s on %s: %s; reloaded (time %d here), and %s",
                model, endpoint, reason, place.count, place.failing or "it answers again",
            )  # fmt: skip
        if self._left[endpoint] >= MOST_LEFT:
            await self._plane.ports.registry.mark_wedged(endpoint, f"{MOST_LEFT} of its models hung")

    async def _ended(self, endpoint: Endpoint, plan: Plan, members: Plan, target: Target) -> Sick:
        for _ in range(ASKS):
            result = await ask_golden(self._plane, endpoint, target)
            if result.ended:
                found = owners(result.ended, members) or owners(result.ended, plan) or computing(members)
                return {load.model: frozenset(load.versions) for load in found}
        return {}

    async def _hung(self, endpoint: Endpoint, repository: ModelRepository, members: Plan, target: Target) -> Sick:
        """Return the models of a target that answer nothing: asked themselves they do not answer, and have finished no request
        since the target was asked. One that is only slow, or has many requests before it, finishes some."""
        before = await repository.finished()
        try:
            await ask_golden(self._plane, endpoint, target)
        except EndpointTimeoutError:
            steps = [load for load in computing(members) if load.model != target.model]
            answers = dict(zip([load.model for load in steps], await self._answers(endpoint, steps), strict=True))
            after = await repository.finished()
            idle = [load for load in computing(members) if after.get(load.model) == before.get(load.model)]
            stuck = [load for load in idle if answers.get(load.model, False) is False]
            unknown = [load for load in idle if answers.get(load.model, False) is None]
            return {load.model: frozenset(load.versions) for load in stuck or unknown}
        return {}

    async def _answers(self, endpoint: Endpoint, steps: list[ModelLoad]) -> list[bool | None]:
        """Return whether models answer requests of their own; None for one without a possible request."""

        async def answers(load: ModelLoad) -> bool | None:
            try:
                target = target_of(load.model, max(load.versions), endpoint.shard)
                result = await ask_golden(self._plane, endpoint, target)
            except EndpointTimeoutError:
                return False
            return None if result.self_test is SelfTestState.UNTESTED else True

        return await asyncio.gather(*map(answers, steps))

    async def _reload(
        self, endpoint: Endpoint, repository: ModelRepository, load: ModelLoad, sick: frozenset[int]
    ) -> str | None:
        """Load a model again, and the models that were lost with it. Return the error, or None. Raises
        `EndpointError`, or `StoreError`: what the server must hold now cannot be read; the model is loaded."""
        ports, limit_s = self._plane.ports, self._plane.config.load_timeout_s
        try:
            await reload(repository, load, sick, await repository.loaded(), limit_s, ports.diagnose)
            # Ensembles come back with their steps; one that does not is loaded like anything that is missing. So is a version
            # that a publisher had loaded meanwhile, and that was unloaded with the others.
            plan = (await self._plane.reader.read()).needs(endpoint.shard)
            loaded = await repository.loaded()
            for each in difference(plan, loaded, {}).missing:
                if load.model in (each.model, *each.steps):
                    await load_on(repository, each, limit_s, ports.diagnose)
        except ModelLoadError as error:
            reason = explained(str(error), error.located)
            self._plane.failures.remember(endpoint.shard, load, reason, error)
            if isinstance(error, ModelHangsError):
                await ports.registry.mark_wedged(endpoint, f"the load of {load.model!r} hangs")
            return reason
        except StackError as error:
            raise EndpointError(str(error)) from error
        return None

    async def _still_wrong(self, endpoint: Endpoint, target: Target) -> str | None:
        try:
            result = await ask_golden(self._plane, endpoint, target)
        except EndpointTimeoutError:
            return f"{target.name} does not answer"
        return f"{target.name} ended it again" if result.ended else None
