"""A fleet in memory with its stores, and control planes that work on it as separate processes would."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from tidegate.bootstrap.rules_sources import GivenRules
from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.plane import ControlPlane
from tidegate.control.publish import PublishRequest, PublishResult, publish_rules
from tidegate.control.reconcile import ReconcileResult, plan_reconcile, reconcile_fleet
from tidegate.control.rollback import RollbackRequest, RollbackResult, roll_back
from tidegate.control.steps import StepEvent
from tidegate.ports import Endpoint, EndpointState, RegisteredEndpoint, Unit
from tidegate.rules import load_bundle
from tidegate.testing import (
    MemoryBundleStore,
    MemoryGoldenRequests,
    MemoryModel,
    MemoryModelCatalog,
    MemoryModelRepository,
    MemoryModelServer,
    MemoryModelStore,
    MemoryRegistry,
    MemoryScratchServers,
    MemoryServerLauncher,
)

from tests.control.mortal import Interference, interfered
from tests.control.rules import bundle

EPOCH = 1_700_000_000.0

MODELS = {
    "features": MemoryModel((1, 2)),
    "scorer": MemoryModel((1, 2, 3)),
    "pipeline": MemoryModel((1,), ("features", "scorer/1")),
    "popular": MemoryModel((1,)),
    "fresh": MemoryModel((1,)),
}


def clock() -> float:
    """Unix seconds by the clock of the running loop."""
    return EPOCH + asyncio.get_running_loop().time()


class Followed(list[Any]):
    """A list that calls someone after each item that is added."""

    def __init__(self, added: Callable[[], None]) -> None:
        super().__init__()
        self._added = added

    def append(self, item: Any) -> None:
        super().append(item)
        self._added()


class Plane:
    """The stores and servers of one fleet. `violations` has every moment at which live was not served everywhere."""

    def __init__(self, models: Mapping[str, MemoryModel] | None = None, config: ControlConfig | None = None) -> None:
        self.launcher = MemoryServerLauncher()
        self.faults = self.launcher.faults
        self.bundles = MemoryBundleStore()
        self.models = MemoryModelStore()
        self.in_folders: set[Unit] = set()
        self.registry = MemoryRegistry(clock=clock, timeout_s=1e9)
        self.catalog = MemoryModelCatalog(MODELS if models is None else models)
        self.golden = MemoryGoldenRequests(end=lambda endpoint: self.server_at(endpoint).end())
        self.scratch: MemoryServerLauncher | None = None
        self.findings: dict[str, list[str]] = {}
        self.diagnosis_s = 0.0
        self.config = ControlConfig() if config is None else config
        self.events: list[StepEvent] = []
        self.violations: list[str] = []
        self.launcher.history = Followed(self.look)
        self.bundles.history = Followed(self.look)
        register = self.registry.register

        async def register_and_look(entry: RegisteredEndpoint) -> None:
            await register(entry)
            self.look()

        self.registry.register = register_and_look  # type: ignore[method-assign]

    def ports(self) -> ControlPorts:
        self.have_pushed()
        return ControlPorts(
            bundles=self.bundles,
            models=self.models,
            registry=self.registry,
            repository_of=lambda entry: self.repository(entry),
            catalog=self.catalog,
            golden=self.golden,
            diagnose=self.diagnose,
            scratch=None if self.scratch is None else MemoryScratchServers(self.scratch),
            clock=clock,
        )

    def have_pushed(self) -> None:
        """What the catalog has and no folder of a test was pushed, and was live, long ago."""
        for name, model in self.catalog.models.items():
            for version in (None, *model.versions):
                if (name, version) not in self.in_folders:
                    self.models.units.setdefault((name, version), ())

    async def diagnose(self, model: str) -> list[str]:
        """What the files of a model show: see `findings`."""
        await asyncio.sleep(self.diagnosis_s)
        return self.findings.get(model, [])

    def process(self, interference: Interference | None = None) -> ControlPlane:
        """The control plane of another process."""
        ports = self.ports()
        return ControlPlane(ports if interference is None else interfered(ports, interference), self.config)

    def repository(self, entry: RegisteredEndpoint) -> MemoryModelRepository:
        return self.launcher.server_at(entry.endpoint).repository

    def server_at(self, endpoint: Endpoint) -> MemoryModelServer:
        launcher = self.scratch if endpoint.shard == "scratch" else self.launcher
        assert launcher is not None
        return launcher.server_at(endpoint)

    async def add(self, shard: str, state: EndpointState = EndpointState.READY) -> MemoryModelServer:
        """Start a server that nobody supervises, and register it."""
        server = await self.launcher.launch(shard)
        await self.registry.register(RegisteredEndpoint(server.endpoint, state, clock()))
        return server

    async def publish(
        self,
        process: ControlPlane | None = None,
        *,
        by: str = "ana",
        dry_run: bool = False,
        require_samples: bool = False,
        even_if_bad: bool = False,
        onto: str | None = None,
        follows: str | None = None,
        resumes: bool = False,
        start_over: bool = False,
        placement: Mapping[str, list[str]] | None = None,
        **rules: str,
    ) -> PublishResult:
        """Publish rules where each objective serves one target, or what the YAML of its rules says."""
        self.have_pushed()
        source = GivenRules(bundle(placement, **rules))
        request = PublishRequest(
            rules=source,
            by=by,
            dry_run=dry_run,
            require_samples=require_samples,
            even_if_bad=even_if_bad,
            onto=onto,
            follows=follows,
            resumes=resumes,
            start_over=start_over,
        )
        return await publish_rules(process or self.process(), request, self.events.append)

    async def roll_back(
        self, revision: str | None = None, *, process: ControlPlane | None = None, by: str = "ben", **fields: Any
    ) -> RollbackResult:
        request = RollbackRequest(by=by, revision=revision, **fields)
        return await roll_back(process or self.process(), request, self.events.append)

    async def reconcile(self, *, dry_run: bool = False) -> ReconcileResult:
        return await (plan_reconcile(self.process()) if dry_run else reconcile_fleet(self.process(), "carl"))

    def steps(self) -> list[str]:
        """The steps that were announced, with how they ended."""
        return [f"{event.step} {event.state}" for event in self.events if event.state not in ("begun", "note")]

    def held(self, shard: str) -> list[set[str]]:
        """What each running server of a shard has READY, as `model/versions`."""
        return [
            {
                f"{load.model}/{','.join(map(str, load.versions))}"
                for load in server.repository.holds.values()
                if server.repository.ready(load.model)
            }
            for server in self.launcher.running(shard)
        ]

    def changes(self) -> list[tuple[str, str]]:
        """What was loaded and unloaded, in order."""
        return [
            (event.action, event.model) for event in self.launcher.history if event.action in ("loaded", "unloaded")
        ]

    def live(self) -> str:
        """The live revision."""
        return self.bundles.history[-1].revision

    def broken(self) -> list[str]:
        """Targets of the live rules that a running server which is registered ready cannot answer, and those that none
        of a shard's running servers can. Peeks, so that it takes no time."""
        if not self.bundles.history:
            return []
        found = []
        entries = self.registry.entries.values()
        ready = [self.launcher.server_at(entry.endpoint) for entry in entries if entry.state == "ready"]
        for target in load_bundle(self.bundles.bundles[self.live()]).targets():
            assert target.version is not None
            for shard in target.shards:
                servers = [server for server in ready if server.running and server.endpoint.shard == shard]
                found += [
                    f"{target.name} ({target.model}/{target.version}) on {server.endpoint.url} of {shard}"
                    for server in servers
                    if not server.repository.ready(target.model, target.version)
                ]
        return found

    def look(self) -> None:
        """Note where live is not served. Called at whatever may change that."""
        for each in self.broken():
            self.violations.append(f"after {self.launcher.history[-1:]}: {each}")
