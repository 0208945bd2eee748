"""Models in memory: what could be loaded, and what it needs."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tidegate.errors import ModelConfigError
from tidegate.ports.models import ModelLoad, Resolution
from tidegate.rules import Target


class MemoryModel(NamedTuple):
    """A model in a `MemoryModelCatalog`.

    `versions` are ascending; the last one is the default. `steps` are what an ensemble calls, as `model` (its version is left
    open) or `model/version`. `decoupled` says whether it may give several responses, `rankable` which outputs can list ids.
    """

    versions: tuple[int, ...] = (1,)
    steps: tuple[str, ...] = ()
    decoupled: bool = False
    rankable: frozenset[str] = frozenset()

    @property
    def open_steps(self) -> tuple[str, ...]:
        return tuple(step for step in self.steps if "/" not in step)

    def pinned_steps(self, pins: Mapping[str, int]) -> list[tuple[str, int]]:
        named = (step.partition("/") for step in self.steps)
        return [(name, int(version) if version else pins[name]) for name, _, version in named]


class MemoryModelCatalog:
    """A `ModelCatalog` over models by name; change `models` as pushes would."""

    def __init__(self, models: Mapping[str, MemoryModel]) -> None:
        self.models = dict(models)

    def learn(self, loads: Iterable[ModelLoad]) -> None:
        """Everything is known already."""

    def fresh(self) -> MemoryModelCatalog:
        """Nothing is kept beside `models` itself."""
        return self

    async def resolve(self, targets: Iterable[Target], settled: Mapping[str, Mapping[str, int]]) -> Resolution:
        await asyncio.sleep(0)
        wanted = sorted(targets, key=lambda target: target.name)
        finished = self._closures(wanted)
        versions = {
            each.name: self.models[each.model].versions[-1] if each.version is None else each.version for each in wanted
        }
        steps = {
            name: {step: settled.get(name, {}).get(step, self.models[step].versions[-1]) for step in model.open_steps}
            for name, model in finished.items()
            if model.open_steps
        }
        notes = tuple(
            f"ensemble {name!r} leaves the version of step {step!r} open; it gets {version}"
            for name, pins in steps.items()
            for step, version in pins.items()
        )
        decoupled = frozenset(name for name, model in finished.items() if model.decoupled)
        rankable = {each.model: self.models[each.model].rankable for each in wanted}
        return Resolution(versions, steps, notes, decoupled, rankable)

    async def plan(self, targets: Iterable[Target], steps: Mapping[str, Mapping[str, int]]) -> tuple[ModelLoad, ...]:
        await asyncio.sleep(0)
        wanted = sorted(targets, key=lambda target: target.name)
        needed: dict[str, set[int]] = {}
        finished = self._closures(wanted)
        for target in wanted:
            assert target.version is not None
            needed.setdefault(target.model, set()).add(target.version)
        for name, model in finished.items():
            for step, version in model.pinned_steps(steps.get(name, {})):
                needed.setdefault(step, set()).add(version)
        return tuple(_load_of(name, model, needed[name], steps.get(name, {})) for name, model in finished.items())

    def _closures(self, targets: Iterable[Target]) -> dict[str, MemoryModel]:
        finished: dict[str, MemoryModel] = {}
        for target in targets:
            self._visit(target.model, target.version, f"target {target.name!r}", finished, ())
        return finished

    def _visit(
        self, name: str, version: int | None, asker: str, finished: dict[str, MemoryModel], path: tuple[str, ...]
    ) -> None:
        model = self.models.get(name)
        if name in path:
            raise ModelConfigError(f"ensemble {name!r} calls itself: {' -> '.join([*path[path.index(name) :], name])}")
        if model is None or not model.versions:
            raise ModelConfigError(f"{asker} needs model {name!r}, but there is none of that name with a version")
        if version is not None and version not in model.versions:
            raise ModelConfigError(f"{asker} needs version {version} of {name!r}; versions there: {model.versions}")
        if name not in finished:
            for step in model.steps:
                step_name, _, pin = step.partition("/")
                self._visit(step_name, int(pin) if pin else None, f"ensemble {name!r}", finished, (*path, name))
            finished[name] = model


def _load_of(name: str, model: MemoryModel, versions: set[int], steps: Mapping[str, int]) -> ModelLoad:
    served = tuple(sorted(versions))
    config: dict[str, object] = {"version_policy": {"specific": {"versions": served}}}
    if model.steps:
        pinned = [{"model_name": step, "model_version": version} for step, version in model.pinned_steps(steps)]
        config["ensemble_scheduling"] = {"step": pinned}
    return ModelLoad(
        name,
        served,
        json.dumps(config, sort_keys=True),
        tuple(dict.fromkeys(step.partition("/")[0] for step in model.steps)),
    )


@functools.lru_cache(maxsize=1 << 15)
def pinned_steps(config: str | None) -> tuple[tuple[str, int], ...]:
    content: dict[str, Any] = json.loads(config or "{}")
    steps = content.get("ensemble_scheduling", {}).get("step", ())
    return tuple((step["model_name"], int(step["model_version"])) for step in steps)
