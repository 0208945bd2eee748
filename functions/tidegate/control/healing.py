"""Healing: a model that no longer answers on one server, though the server and its other models do, is reloaded there.

The process of a Python model may end, and Triton neither starts another nor says so: the model stays READY and answers 500
for ever. Or its code never returns. A suspicion of either, from a gateway or a self-test, is looked into with the model's own
golden requests; what is found not to answer is unloaded and loaded, and asked again.

A model may well end at each request, so the same one is reloaded more and more rarely.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tidegate.control.endpoints import explained, load_on
from tidegate.control.plane import ControlPlane
from tidegate.control.plans import Plan, difference, loaded_versions, with_versions
from tidegate.control.reloading import Sick, computing, owners, reload
from tidegate.control.trying import closures
from tidegate.errors import EndpointError, EndpointTimeoutError, ModelLoadError, StackError, TidegateError
from tidegate.ports import (
    Endpoint,
    GoldenResult,
    ModelLoad,
    ModelRepository,
    SelfTestState,
    Suspect,
    SuspectKind,
)
from tidegate.rules import Target

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 60.0
"""Longest time between two reloads of a model on a server that do not help."""

LONGEST_HELPED_S = 10.0
"""Longest time between two reloads that do, as where a request ends the process again and again."""

FORGOTTEN_S = 300.0
"""After so long without a reload the next one of a model need not wait."""

ASKS = 5
"""How often a model is asked whether its process has ended: with several instances each request finds another one."""

MOST_LEFT = 3
"""Hung models that one server may have had: each leaves its process behind, and the server is replaced after so many."""

ENDED = "its process had ended"
HUNG = "it did not answer"
UNDER_WAY = "it is being loaded"


@dataclass(slots=True)
class Reloads:
    """How often a model was reloaded on one server, when last (Unix seconds), and why; `failing` says what is wrong still
    (`UNDER_WAY` while that is not known), empty where it answered afterwards."""

    endpoint: Endpoint
    model: str
    count: int = 0
    last_at: float = 0.0
    reason: str = ""
    failing: str = ""
    wait_s: float = 0.0

    @property
    def not_before(self) -> float:
        """When it may be reloaded again, in Unix seconds."""
        return self.last_at + self.wait_s

    def note(self, now: float, reason: str) -> None:
        """It is reloaded now."""
        forgotten = now - self.last_at > FORGOTTEN_S
        self.wait_s = FIRST_BACKOFF_S if forgotten else min(2 * self.wait_s, LONGEST_BACKOFF_S)
        self.count, self.last_at, self.reason, self.failing = self.count + 1, now, reason, UNDER_WAY

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "shard": self.endpoint.shard,
            "url": self.endpoint.url,
            "model": self.model,
            "count": self.count,
            "last_at": datetime.fromtimestamp(self.last_at, UTC).isoformat(timespec="seconds"),
            "reason": self.reason,
            "failing": self.failing or None,
        }


class Healer:
    """Heals the models of the servers that this process looks after.

    Args:
        plane: the control plane of this process.
        repository_of: gives the repository of such a server; None for any other.
    """

    def __init__(self, plane: ControlPlane, repository_of: Callable[[Endpoint], ModelRepository | None]) -> None:
        self._plane = plane
        self._repository_of = repository_of
        self._looks: dict[tuple[Endpoint, str], asyncio.Task[None]] = {}
        self._quiet_until: dict[tuple[Endpoint, str], float] = {}
        self._locks: defaultdict[Endpoint, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reloads: dict[tuple[Endpoint, str], Reloads] = {}
        self._left: Counter[Endpoint] = Counter()

    def suspect(self, suspect: Suspect) -> None:
        """Look into a suspicion soon, unless that is being done; call it on the event loop."""
        key = (suspect.endpoint, suspect.model)
        if key in self._looks or self._repository_of(suspect.endpoint) is None:
            return
        if self._plane.ports.clock() >= self._quiet_until.get(key, 0.0):
            look = self._looks[key] = asyncio.create_task(self._look(suspect))
            look.add_done_callback(lambda _: self._looks.pop(key, None))

    def reloads(self) -> tuple[Reloads, ...]:
        """What was reloaded on the servers that are there still, by server and model."""
        there = [each for each in self._reloads.values() if self._repository_of(each.endpoint) is not None]
        return tuple(sorted(there, key=lambda each: (each.endpoint.url, each.model)))

    async def close(self) -> None:
        """End what is being looked into."""
        looks = list(self._looks.values())
        for look in looks:
            look.cancel()
        if looks:
            await asyncio.wait(looks)

    async def _look(self, suspect: Suspect) -> None:
        endpoint, model = suspect.endpoint, suspect.model
        try:
            async with self._locks[endpoint]:
                await self._heal(suspect)
        except TidegateError as error:
            logger.warning("%s on %s cannot be looked into: %s", model, _name(endpoint), error)
        except Exception:
            # Whatever it is, the next suspicion is to be looked into.
            logger.exception("%s on %s cannot be looked into", model, _name(endpoint))

    async def _heal(self, suspect: Suspect) -> None:
        """See whether a model answers, and reload what of it does not.

        Raises:
            StoreError: what the server must hold cannot be read.
            EndpointError: the server does not answer, so that this is no matter of one model.
        """
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
            target = Target(f"{load.model}/{version}", load.model, version, (endpoint.shard,))
            await self._heal_target(endpoint, repository, plan, members, target, suspect.kind)

    def _forget_ended(self) -> None:
        """Forget servers that are no more."""
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
        sick: Sick = {}
        reason = ENDED
        if kind is SuspectKind.HUNG:
            sick, reason = await self._hung(endpoint, repository, members, target), HUNG
        else:
            sick = await self._ended(endpoint, plan, members, target)
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
                model, _name(endpoint), reason, place.count, place.failing or "it answers again",
            )  # fmt: skip
        if self._left[endpoint] >= MOST_LEFT:
            await self._plane.ports.registry.mark_wedged(endpoint, f"{MOST_LEFT} of its models hung")

    async def _ended(self, endpoint: Endpoint, plan: Plan, members: Plan, target: Target) -> Sick:
        """The models of a target whose process has ended."""
        for _ in range(ASKS):
            result = await self._ask(endpoint, target)
            if result.ended:
                found = owners(result.ended, members) or owners(result.ended, plan) or computing(members)
                return {load.model: frozenset(load.versions) for load in found}
        return {}

    async def _hung(self, endpoint: Endpoint, repository: ModelRepository, members: Plan, target: Target) -> Sick:
        """The models of a target that answer nothing: asked themselves they do not answer, and have finished no request since
        the target was asked. One that is only slow, or has many requests before it, finishes some."""
        before = await repository.finished()
        try:
            await self._ask(endpoint, target)
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
        """Whether models answer requests of their own; None for one that nothing can be asked."""

        async def answers(load: ModelLoad) -> bool | None:
            version = max(load.versions)
            target = Target(f"{load.model}/{version}", load.model, version, (endpoint.shard,))
            try:
                result = await self._ask(endpoint, target)
            except EndpointTimeoutError:
                return False
            return None if result.self_test is SelfTestState.UNTESTED else True

        return await asyncio.gather(*map(answers, steps))

    async def _ask(self, endpoint: Endpoint, target: Target) -> GoldenResult:
        """Ask a target, for as long as a publish would wait for it. Raises `EndpointError`."""
        limit_s = self._plane.config.load_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._plane.ports.golden.ask(endpoint, target)
        except TimeoutError as error:
            raise EndpointTimeoutError(f"{target.name} did not answer within {limit_s:g} s") from error

    async def _reload(
        self, endpoint: Endpoint, repository: ModelRepository, load: ModelLoad, sick: frozenset[int]
    ) -> str:
        """Load a model anew, and whatever was lost with it; what went wrong, empty where nothing did.

        Raises:
            EndpointError: the server ended, or does not answer.
            StoreError: what the server must hold now cannot be read; the model is loaded.
        """
        ports, limit_s = self._plane.ports, self._plane.config.load_timeout_s
        try:
            await reload(repository, load, sick, loaded_versions(await repository.loaded()), limit_s, ports.diagnose)
            # Ensembles come back with their steps; should one not, it is loaded like anything that is lacking. So is a version
            # that a publisher had loaded meanwhile, and that went with the others.
            plan = (await self._plane.reader.read()).needs(endpoint.shard)
            loaded = loaded_versions(await repository.loaded())
            for each in difference(plan, loaded, {}).missing:
                if load.model in (each.model, *each.steps):
                    await load_on(repository, each, limit_s, ports.diagnose)
        except ModelLoadError as error:
            reason = explained(str(error), error.located)
            self._plane.failures.remember(endpoint.shard, load, reason, hung=error.hung)
            if error.hung:
                await ports.registry.mark_wedged(endpoint, f"the load of {load.model!r} hangs")
            return reason
        except StackError as error:
            raise EndpointError(str(error)) from error
        return ""

    async def _still_wrong(self, endpoint: Endpoint, target: Target) -> str:
        """What is wrong with a target that was reloaded; empty where it answers."""
        try:
            result = await self._ask(endpoint, target)
        except EndpointTimeoutError:
            return f"{target.name} does not answer"
        return f"{target.name} ended it again" if result.ended else ""


def _name(endpoint: Endpoint) -> str:
    return f"{endpoint.url} of shard {endpoint.shard!r}"
