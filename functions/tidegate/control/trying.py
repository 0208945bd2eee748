"""Trying: models that no live revision has served are loaded and asked on one server first, so that one that hangs, ends
its server or takes all memory costs that server alone.

Where this process can start servers, that one is a *scratch* server: nobody sends it requests, and it is gone afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tidegate.control.claims import Note
from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.desired import Desired
from tidegate.control.endpoints import load_on, located
from tidegate.control.plans import Plan, called_by, loaded_versions, merge, same_but_versions, with_versions
from tidegate.errors import EndpointError, EndpointTimeoutError, ModelLoadError, PublishError
from tidegate.ports import GoldenOutcome, ModelLoad, ModelServer
from tidegate.rules import Target

ENDED_S = 2.0
"""How long the end of a server that was lost is waited for, to say how it ended."""

STEP = "try"

_PROVED = frozenset({"live", "rollback", "draining", "served"})

REPAIR = "repair the model (as a new version, where this one has been live), or take it out of the rules"


@dataclass(frozen=True, slots=True)
class Untried:
    """The models of a revision that no revision which was live serves in the same way.

    Attributes:
        models: them, each with its new versions alone.
        plan: all that the revision needs, on whatever shard, steps before the ensembles that call them.
        targets: the targets that new versions serve.
    """

    models: Mapping[str, ModelLoad]
    plan: Plan
    targets: tuple[Target, ...]

    @property
    def closures(self) -> Plan:
        """The new models with everything that they call."""
        return closures(self.plan, self.models)

    def targets_of(self, models: Iterable[str]) -> tuple[Target, ...]:
        """The targets that new versions of some models serve."""
        wanted = set(models)
        return tuple(target for target in self.targets if target.model in wanted)


def find_untried(plans: Mapping[str, Plan], targets: Iterable[Target], desired: Desired) -> Untried:
    """What of a revision has never been live, as far as the revisions that stay loaded show."""
    served: dict[str, list[ModelLoad]] = {}
    for held in desired.held:
        if held.reason in _PROVED:
            for plan in (held.plans or {}).values():
                for load in plan:
                    served.setdefault(load.model, []).append(load)
    whole, _ = merge(plans.values())
    models: dict[str, ModelLoad] = {}
    for load in whole:
        alike = [each for each in served.get(load.model, ()) if same_but_versions(each, load)]
        new = set(load.versions).difference(*(each.versions for each in alike))
        if new:
            models[load.model] = with_versions(load, new)
    found = tuple(each for each in targets if each.model in models and each.version in models[each.model].versions)
    return Untried(models, whole, found)


def closures(plan: Plan, models: Mapping[str, ModelLoad]) -> Plan:
    """The loads of some models of a plan, and of what they call in the versions that they call, steps first."""
    versions: dict[str, set[int]] = {name: set(load.versions) for name, load in models.items()}
    found: list[ModelLoad] = []
    for load in reversed(plan):
        if load.model in versions:
            whole = with_versions(load, versions[load.model] or load.versions)
            found.append(whole)
            for step, version in called_by(whole):
                # One that is left open is any of those that the plan has.
                versions.setdefault(step, set()).update({version} if version > 0 else ())
    return tuple(reversed(found))


class ScratchTrial:
    """Tries models on a scratch server."""

    def __init__(self, ports: ControlPorts, config: ControlConfig, untried: Untried) -> None:
        self._ports = ports
        self._config = config
        self._untried = untried

    async def run(self, note: Note) -> None:
        """Start a server, load and ask the new models, see that it stays well, and end it.

        Raises:
            StackError: no server could be started.
            PublishError: a model was refused, hung, ended the server or answered wrongly.
            StoreError: a store did not answer.
        """
        assert self._ports.scratch is not None
        note("starting a scratch server")
        server = await self._ports.scratch.launch(self._untried.closures)
        try:
            for load in self._untried.closures:
                note(f"loading {load.model}/{','.join(map(str, load.versions))} on the scratch server")
                await self._load(server, load)
            loaded_at = self._ports.clock()
            for target in self._untried.targets:
                await self._ask(server, target)
            await asyncio.sleep(max(0.0, loaded_at + self._config.soak_s - self._ports.clock()))
            await self._check(server)
        finally:
            await server.kill()

    async def _load(self, server: ModelServer, load: ModelLoad) -> None:
        try:
            await load_on(server.repository, load, self._config.load_timeout_s, self._ports.diagnose)
        except ModelLoadError as error:
            raise _failed(f"model {load.model!r} on a scratch server: {error}", error.located) from error
        except EndpointError as error:
            raise await self._lost(server, f"it loaded model {load.model!r}", load.model, error) from error

    async def _ask(self, server: ModelServer, target: Target) -> None:
        during = f"target {target.name!r} answered its first requests"
        try:
            async with asyncio.timeout(self._config.load_timeout_s):
                result = await self._ports.golden.ask(server.endpoint, target)
        except (TimeoutError, EndpointTimeoutError) as error:
            limit = (
                f": {error}"
                if isinstance(error, EndpointTimeoutError)
                else f" within {self._config.load_timeout_s:g} s"
            )
            reason = f"did not answer its first requests{limit}"
            raise _failed(f"target {target.name!r} on a scratch server {reason}") from error
        except EndpointError as error:
            raise await self._lost(server, during, target.model, error) from error
        if result.outcome is GoldenOutcome.WRONG:
            raise _failed(f"target {target.name!r} on a scratch server: {result.reason}")

    async def _check(self, server: ModelServer) -> None:
        """See that what was loaded is still READY."""
        names = ", ".join(sorted(self._untried.models))
        try:
            loaded = loaded_versions(await server.repository.loaded())
        except EndpointError as error:
            during = f"{names} had been loaded and asked"
            raise await self._lost(server, during, next(iter(self._untried.models)), error) from error
        for load in self._untried.closures:
            if not loaded.get(load.model, frozenset()).issuperset(load.versions):
                raise _failed(
                    f"model {load.model!r} is not READY any more on a scratch server, soon after it was asked"
                )

    async def _lost(self, server: ModelServer, during: str, model: str, error: EndpointError) -> PublishError:
        """The server has ended, or does not answer."""
        try:
            async with asyncio.timeout(ENDED_S):
                how = await server.wait()
        except TimeoutError:
            how = f"did not answer ({error})"
        found = await located(self._ports.diagnose, model)
        return _failed(f"a scratch server {how} while {during}", found)


def _failed(reason: str, found: Sequence[str] = ()) -> PublishError:
    return PublishError(STEP, "\n".join((f"{reason}; {REPAIR}", *found)))
