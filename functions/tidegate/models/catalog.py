"""A `ModelCatalog` over a directory, the model store, or both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from google.protobuf import json_format

from tidegate.model_layout import CONFIG
from tidegate.models.closure import read_closure
from tidegate.models.config import artefact, check_python, is_python, parse_config
from tidegate.models.folder import DirectoryFiles, ModelFiles, ModelFolder
from tidegate.models.planning import Planner, Steps
from tidegate.models.schema import ModelConfig
from tidegate.ports import ModelLoad, Resolution
from tidegate.rules import Target

AT_ONCE = 16
FEW = 8
"""The versions of up to so many models are listed one by one; of more, those of all models are listed at once."""

Asked = tuple[str, int | None]
"""A model, and the version that is needed; None if that is open."""


class TritonCatalog:
    """A `ModelCatalog` over the files of models. It reads each file once, and none that a learned load makes needless.

    `resolve` and `plan` raise `ModelConfigError` (a model or version is missing, or cannot be served as its files are) and
    `StoreError`.
    """

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        self._configs: dict[str, ModelConfig] = {}
        self._learned: dict[str, ModelConfig] = {}
        self._checked: dict[str, set[int]] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)

    def learn(self, loads: Iterable[ModelLoad]) -> None:
        for load in loads:
            if load.config is not None:
                self._learned[load.model] = json_format.ParseDict(json.loads(load.config), ModelConfig())
            self._checked.setdefault(load.model, set()).update(load.versions)

    def fresh(self) -> TritonCatalog:
        return TritonCatalog(self._files)

    async def resolve(self, targets: Iterable[Target], settled: Steps) -> Resolution:
        targets = tuple(targets)
        return (await self._planner(targets, {})).resolve(targets, settled)

    async def plan(self, targets: Iterable[Target], steps: Steps) -> tuple[ModelLoad, ...]:
        targets = tuple(targets)
        loads = (await self._planner(targets, steps)).plan(targets, steps)
        checks = ((load.model, version) for load in loads for version in load.versions)
        await asyncio.gather(*(self._check(model, version) for model, version in checks))
        return loads

    async def _planner(self, targets: Iterable[Target], pins: Steps) -> Planner:
        """Read the closures of targets, level by level."""
        configs: dict[str, ModelConfig | None] = {}
        present: dict[str, set[int]] = {}

        async def called(asked: Collection[Asked]) -> list[Asked]:
            # If the version is open, the model's own config must be read: a load does not have its version policy.
            unread = {model for model, version in asked if version is None and model not in self._configs}
            models = {model for model, _ in asked if model not in configs} | unread
            found = await asyncio.gather(*(self._config(model, own=model in unread) for model in models))
            configs.update(zip(models, found, strict=True))
            unknown = sum(version is None or version not in self._checked.get(model, ()) for model, version in asked)
            listed = await self._files.all_versions() if unknown > FEW else None
            await asyncio.gather(*(self._read_versions(each, present, listed) for each in asked))
            return [
                (name, step.model_version if step.model_version > 0 else pins.get(model, {}).get(name))
                for model in models
                if (config := configs[model]) is not None
                for step in config.ensemble_scheduling.step
                for name in [step.model_name]
            ]

        await read_closure([(target.model, target.version) for target in targets], called)
        folders = {
            model: ModelFolder(model, config, tuple(sorted(present.get(model, ()))))
            for model, config in configs.items()
            if config is not None
        }
        return Planner(self._files.where, folders)

    async def _config(self, model: str, *, own: bool) -> ModelConfig | None:
        """Return a model's `own` config, or that of a load; None if there is no such model."""
        if model in self._learned and not own and model not in self._configs:
            return self._learned[model]
        if model not in self._configs:
            async with self._gate:
                text = await self._files.read(model, CONFIG)
                if text is None and not await self._files.has(model):
                    return None
            self._configs[model] = parse_config(text, model, f"{self._files.where}/{model}/{CONFIG}")
        return self._configs[model]

    async def _read_versions(
        self, asked: Asked, found: dict[str, set[int]], listed: Mapping[str, Sequence[int]] | None
    ) -> None:
        model, version = asked
        present = found.setdefault(model, set())
        if version is not None and version in self._checked.get(model, ()):
            present.add(version)  # versions are immutable, so it is still there
        elif listed is not None:
            present.update(listed.get(model, ()))
        elif version is None or version not in present:
            async with self._gate:
                present.update(await self._files.versions(model))

    async def _check(self, model: str, version: int) -> None:
        """Refuse a version that would make Triton hang, or that lacks the file to load."""
        checked = self._checked.setdefault(model, set())
        config = self._configs.get(model) or self._learned[model]
        if version in checked or config.platform == "ensemble":
            return
        place = f"{self._files.where}/{model}/{version}"
        async with self._gate:
            name = artefact(config, await self._files.files(model, version), place)
            if name is not None and is_python(config, name):
                check_python(await self._files.read(model, f"{version}/{name}") or b"", f"{place}/{name}")
        checked.add(version)


async def plan_directory(models: Path, targets: Iterable[Target]) -> tuple[ModelLoad, ...]:
    """Resolve targets by the files of a directory, and return the loads that serve them. Raises `ModelConfigError`."""
    targets, catalog = tuple(targets), TritonCatalog(DirectoryFiles(models))
    resolution = await catalog.resolve(targets, {})
    resolved = [replace(target, version=resolution.versions[target.name]) for target in targets]
    return await catalog.plan(resolved, resolution.steps)
