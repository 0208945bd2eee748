"""A fleet in memory with realistic times: servers that boot and load models, fail, hang and end, and stores that count."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.plane import ControlPlane
from tidegate.errors import ModelLoadError
from tidegate.fleet.directory import RegistryDirectory
from tidegate.fleet.slot import Turn
from tidegate.fleet.supervisor import Supervisor
from tidegate.ports import (
    BundleStore,
    Endpoint,
    EndpointListing,
    ModelLoad,
    ModelRepository,
    ModelStore,
    RegisteredEndpoint,
    Registry,
)
from tidegate.ports.store_rules import SILENCE_S
from tidegate.tasks import cancel
from tidegate.testing import (
    FleetEvent,
    MemoryBundleStore,
    MemoryFaults,
    MemoryGoldenRequests,
    MemoryModel,
    MemoryModelCatalog,
    MemoryModelRepository,
    MemoryModelServer,
    MemoryModelStore,
    MemoryRegistry,
)

EPOCH = 1_700_000_000.0
ZONES = 3
BOOT_S = (60.0, 180.0)
"""From the loss of a server until another one runs: an instance, its containers, Triton."""

ENSEMBLE_S = 0.05
STEP_S = (0.3, 6.0)
"""How long a load takes."""

REFUSED = 0.00002
"""The part of loads that fail once, as where S3 is slow."""

STORE_S, ENDPOINT_S = 0.02, 0.003
"""How long an answer of a store and of a server takes."""

BEAT_S = 10.0
FOLLOW_S, REAL_FOLLOW_S = 10.0, 2.0
"""How often an agent reads its shard's part of the registry here, and really; the counts are as if it were as often as really."""


NO_WEIGHTS: Mapping[str, int] = {}


def clock() -> float:
    """Return Unix seconds by the clock of the running loop."""
    return EPOCH + asyncio.get_running_loop().time()


class Calls:
    """Counts the calls of a kind of process in each second, and lets each take its time."""

    def __init__(self, weights: Mapping[str, int] = NO_WEIGHTS) -> None:
        self.by_second: dict[str, Counter[int]] = {}
        self._weights = weights

    async def note(self, port: str, method: str) -> None:
        second = int(asyncio.get_running_loop().time())
        self.by_second.setdefault(f"{port}.{method}", Counter())[second] += self._weights.get(method, 1)
        await asyncio.sleep(ENDPOINT_S if port == "endpoint" else STORE_S)

    def counted(self, ports: ControlPorts) -> ControlPorts:
        """Return ports whose calls are counted."""
        of = ports.repository_of
        return replace(
            ports,
            bundles=cast(BundleStore, _Counted("bundles", ports.bundles, self)),
            models=cast(ModelStore, _Counted("models", ports.models, self)),
            registry=cast(Registry, _Counted("registry", ports.registry, self)),
            repository_of=lambda entry: cast(ModelRepository, _Counted("endpoint", of(entry), self)),
        )


class _Counted:
    """A port whose calls are counted."""

    def __init__(self, name: str, port: object, calls: Calls) -> None:
        self._name, self._port, self._calls = name, port, calls

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._port, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        async def call(*arguments: Any, **options: Any) -> Any:
            await self._calls.note(self._name, name)
            return await attribute(*arguments, **options)

        # The next call finds it without this.
        self.__dict__[name] = call
        return call


class ShardedRegistry(MemoryRegistry):
    """A registry that reads one shard without looking at the others, as a query of a partition does."""

    def __init__(self) -> None:
        super().__init__(clock=clock, timeout_s=SILENCE_S)
        self._shards: dict[str, MemoryRegistry] = {}

    def _of(self, shard: str) -> MemoryRegistry:
        if shard not in self._shards:
            self._shards[shard] = MemoryRegistry(clock=clock, timeout_s=SILENCE_S)
        return self._shards[shard]

    async def register(self, entry: RegisteredEndpoint) -> None:
        await self._of(entry.endpoint.shard).register(entry)

    async def deregister(self, endpoint: Endpoint) -> None:
        await self._of(endpoint.shard).deregister(endpoint)

    async def mark_wedged(self, endpoint: Endpoint, note: str) -> None:
        await self._of(endpoint.shard).mark_wedged(endpoint, note)

    async def listing(self, shard: str | None = None) -> EndpointListing:
        if shard is not None:
            return await self._of(shard).listing()
        parts = [await each.listing() for _, each in sorted(self._shards.items())]
        return EndpointListing(tuple(entry for part in parts for entry in part.endpoints), ())

    def now(self, shard: str) -> Sequence[RegisteredEndpoint]:
        """Peek, which takes no time."""
        return [entry for entry in self._of(shard).entries.values() if entry.seen_at + SILENCE_S >= clock()]


class SlowRepository(MemoryModelRepository):
    """Loads take time, and a few fail."""

    def __init__(self, server: MemoryModelServer, faults: MemoryFaults, draw: random.Random) -> None:
        super().__init__(server, faults)
        self._draw = draw

    async def load(self, load: ModelLoad, timeout_s: float) -> None:
        if self.holds.get(load.model) != load:
            await asyncio.sleep(ENSEMBLE_S if load.steps else self._draw.uniform(*STEP_S))
            if self._draw.random() < REFUSED:
                raise ModelLoadError(load.model, "refused: failed to poll the repository")
        await super().load(load, timeout_s)


class Launcher:
    """A `ServerLauncher` whose servers take minutes to start."""

    def __init__(self, draw: random.Random) -> None:
        self.servers: list[MemoryModelServer] = []
        self.faults = MemoryFaults()
        self.boots_at_once = True
        self._draw = draw

    async def launch(self, shard: str) -> MemoryModelServer:
        await asyncio.sleep(self._draw.uniform(1, 10) if self.boots_at_once else self._draw.uniform(*BOOT_S))
        history: list[FleetEvent] = []
        server = MemoryModelServer(Endpoint(shard, "memory", len(self.servers) + 1), self.faults, history)
        server.repository = SlowRepository(server, self.faults, self._draw)
        self.servers.append(server)
        return server

    def at(self, endpoint: Endpoint) -> MemoryModelServer:
        return self.servers[endpoint.port - 1]


class Agent:
    """A server with the process beside it: the supervisor, its own reader of the stores, and its directory."""

    def __init__(self, world: World, shard: str, zone: int) -> None:
        self.shard, self.zone = shard, zone
        plane = world.process(world.agents_calls)
        directory = RegistryDirectory(plane.ports.registry, shard)
        self.supervisor = Supervisor(shard, world.launcher, plane, directory, BEAT_S, Turn())
        self._tasks = [
            asyncio.create_task(directory.follow(FOLLOW_S)),
            asyncio.create_task(self.supervisor.run()),
        ]

    def server(self, world: World) -> MemoryModelServer | None:
        slots = self.supervisor.slots
        return world.launcher.at(slots[-1].server.endpoint) if slots else None

    @property
    def is_ready(self) -> bool:
        return self.supervisor.serving is not None

    async def retire(self) -> None:
        await self.supervisor.drain()
        await self.stop()

    async def stop(self) -> None:
        await cancel(*self._tasks)


class World:
    """The stores and agents of one fleet."""

    def __init__(self, models: dict[str, MemoryModel], seed: int = 1) -> None:
        self.draw = random.Random(seed)
        self.launcher = Launcher(self.draw)
        self.bundles = MemoryBundleStore()
        self.models = MemoryModelStore()
        self.registry = ShardedRegistry()
        self.catalog = MemoryModelCatalog(models)
        self.golden = MemoryGoldenRequests()
        self.agents_calls = Calls({"endpoints": round(FOLLOW_S / REAL_FOLLOW_S)})
        self.control_calls = Calls()
        self.agents: dict[str, list[Agent]] = {}

    def process(self, calls: Calls) -> ControlPlane:
        """Return the control plane of another process."""
        for name, model in self.catalog.models.items():
            for version in (None, *model.versions):
                self.models.units.setdefault((name, version), ())
        ports = ControlPorts(
            bundles=self.bundles,
            models=self.models,
            registry=self.registry,
            repository_of=lambda entry: self.launcher.at(entry.endpoint).repository,
            catalog=self.catalog,
            golden=self.golden,
            clock=clock,
        )
        return ControlPlane(calls.counted(ports), ControlConfig(load_timeout_s=120.0))

    def start(self, shard: str, zone: int) -> Agent:
        agent = Agent(self, shard, zone)
        self.agents.setdefault(shard, []).append(agent)
        return agent

    def every(self) -> list[Agent]:
        return [agent for group in self.agents.values() for agent in group]

    def ready(self) -> int:
        return sum(agent.is_ready for agent in self.every())

    def serves(self, shard: str, model: str, version: int | None) -> bool:
        """Return whether a server that is registered ready in a shard has a version of a model READY. Peeks."""
        return any(
            entry.state == "ready" and self.launcher.at(entry.endpoint).repository.ready(model, version)
            for entry in self.registry.now(shard)
        )
