"""A local stack over servers in memory, and engines from rules that a test writes."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tidegate.control.local_stack import LocalStack
from tidegate.errors import ModelConfigError
from tidegate.ports import FleetEvent, MemoryModel, MemoryServerLauncher, ModelLoad
from tidegate.rules import Engine, Target, compile_directory, load_bundle

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


class Catalog:
    """A `DirectoryCatalog` over models by name; change `models` as files would change on disk."""

    def __init__(self, models: Mapping[str, MemoryModel]) -> None:
        self.models = dict(models)

    def plan(self, targets: Iterable[Target]) -> tuple[ModelLoad, ...]:
        """The closures of all targets: see `DirectoryCatalog.plan`. Pins of other versions than the last give a `config`.

        Raises:
            ModelConfigError: a model or a version is missing, or an ensemble calls itself.
        """
        versions: dict[str, set[int]] = {}
        finished: dict[str, MemoryModel] = {}
        for target in sorted(targets, key=lambda target: target.name):
            self._visit(target.model, target.version, f"target {target.name!r}", versions, finished, ())
        return tuple(_load_of(name, model, versions[name]) for name, model in finished.items())

    def _visit(
        self,
        name: str,
        version: int | None,
        asker: str,
        versions: dict[str, set[int]],
        finished: dict[str, MemoryModel],
        path: tuple[str, ...],
    ) -> None:
        model = self.models.get(name)
        if name in path:
            raise ModelConfigError(f"ensemble {name!r} calls itself: {' -> '.join([*path[path.index(name) :], name])}")
        if model is None or not model.versions:
            raise ModelConfigError(f"{asker} needs model {name!r}, but there is none of that name with a version")
        if version is not None and version not in model.versions:
            raise ModelConfigError(f"{asker} needs version {version} of {name!r}; versions there: {model.versions}")
        versions.setdefault(name, set()).add(model.versions[-1] if version is None else version)
        if name not in finished:
            for step in model.steps:
                step_name, _, pin = step.partition("/")
                self._visit(
                    step_name, int(pin) if pin else None, f"ensemble {name!r}", versions, finished, (*path, name)
                )
            finished[name] = model


def _load_of(name: str, model: MemoryModel, versions: set[int]) -> ModelLoad:
    served = tuple(sorted(versions))
    own = model.versions[-1:]
    config = None if served == own else json.dumps({"version_policy": {"specific": {"versions": served}}})
    steps = tuple(dict.fromkeys(step.partition("/")[0] for step in model.steps))
    return ModelLoad(name, served, config, steps)


class Fleet:
    """A stack, the servers behind it, and requests that last until they are let go."""

    def __init__(self, first: Engine, models: Mapping[str, MemoryModel] | None = None) -> None:
        self.launcher = MemoryServerLauncher()
        self.faults = self.launcher.faults
        self.catalog = Catalog(MODELS if models is None else models)
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
                for load in server.repository.holds.values()
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
