"""A local stack over servers in memory, and engines from rules that a test writes."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tidegate.control.local_stack import LocalStack
from tidegate.ports import FleetEvent, MemoryModel, MemoryModelCatalog, MemoryServerLauncher
from tidegate.rules import Engine, compile_directory, load_bundle

from tests.support.stack import write_rules

MODELS = {
    "features": MemoryModel((1, 2)),
    "scorer": MemoryModel((1, 2, 3)),
    "pipeline": MemoryModel((1,), ("features", "scorer/1")),
    "popular": MemoryModel((1,)),
    "fresh": MemoryModel((1,)),
}
PLACEMENT = {"features": ["a"], "scorer": ["a", "b"], "pipeline": ["a"], "popular": ["b"], "fresh": ["a"]}
SETTLED_S = 60.0
"""Longer than any drain, so that everything that follows a change has happened; it takes no time."""


def engine(shards: Mapping[str, int], placement: Mapping[str, list[str]] | None = None, **objectives: str) -> Engine:
    """The engine of rules where each objective serves one target, or what the YAML of its rules says."""
    with tempfile.TemporaryDirectory() as folder:
        write_rules(Path(folder), shards, PLACEMENT if placement is None else placement, **objectives)
        return load_bundle(compile_directory(folder))


class Fleet:
    """A stack, the servers behind it, and requests that last until they are let go."""

    def __init__(self, first: Engine, models: Mapping[str, MemoryModel] | None = None) -> None:
        self.launcher = MemoryServerLauncher()
        self.faults = self.launcher.faults
        self.catalog = MemoryModelCatalog(MODELS if models is None else models)
        self.stack = LocalStack(first, self.launcher, self.catalog, drain_timeout_s=10)

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Fleet]:
        """Start the stack; leaving stops it and sees that nothing runs on."""
        try:
            await self.stack.start()
            yield self
        finally:
            await self.stack.stop()
            assert self.launcher.running() == []

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """A request that is under way as long as the block."""
        gate = asyncio.Event()

        async def app(*_: object) -> None:
            await gate.wait()

        task = asyncio.create_task(self.stack.in_flight.wrap(app)({"type": "http"}, None, None))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        try:
            yield
        finally:
            gate.set()
            await task

    @staticmethod
    async def settle() -> None:
        """Let everything happen that is on its way."""
        await asyncio.sleep(SETTLED_S)

    def events(self, action: str, shard: str | None = None) -> list[str]:
        """The models that met `action`, in order, as `model/versions`."""
        return [
            _name(event)
            for event in self.launcher.history
            if event.action == action and shard in (None, event.endpoint.shard)
        ]

    def held(self, shard: str) -> list[set[str]]:
        """What each endpoint in the directory holds READY, as `model/versions`."""
        servers = [self.launcher.server_at(endpoint) for endpoint in self.stack.directory.endpoints(shard)]
        return [
            {
                _label(load.model, load.versions)
                for load in server.repository.loaded.values()
                if server.repository.ready(load.model)
            }
            for server in servers
        ]

    def broken(self) -> list[str]:
        """Targets of the live engine that an endpoint in the directory cannot answer."""
        return [
            f"{target.name} on {endpoint.url} of shard {shard}"
            for target in self.stack.engines.engine().targets()
            for shard in target.shards
            for endpoint in self.stack.directory.endpoints(shard)
            if not self.launcher.server_at(endpoint).repository.ready(target.model, target.version)
        ]


def _name(event: FleetEvent) -> str:
    return _label(event.model, event.versions)


def _label(model: str, versions: tuple[int, ...]) -> str:
    return f"{model}/{','.join(map(str, versions))}"
