"""The models that could be loaded: a `ModelCatalog` over a directory, over the model store, or over both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tidegate.errors import ModelConfigError
from tidegate.files import read_regular
from tidegate.ports import ModelLoad, ModelStore, Resolution
from tidegate.rules import Target
from tidegate.triton.model_config import CONFIG, artefact, check_python, is_python, parse_config
from tidegate.triton.planning import Planner, Steps

AT_ONCE = 16
MAX_FILE_BYTES = 16 * 1024 * 1024
"""The largest file that is read of a model in a directory: its config, or the source of a Python model."""

FEW = 8
"""Up to so many models are each asked for their versions; of more, all versions of all models are."""


class ModelFiles(Protocol):
    """Where a catalog reads models."""

    @property
    def where(self) -> str:
        """The place, as messages name it."""
        ...

    async def has(self, model: str) -> bool:
        """Whether there is such a model, with or without a version."""
        ...

    async def versions(self, model: str) -> Sequence[int]:
        """The versions of a model, ascending; none for an unknown one."""
        ...

    async def all_versions(self) -> Mapping[str, Sequence[int]]:
        """The versions of every model that has one."""
        ...

    async def files(self, model: str, version: int) -> Collection[str]:
        """The paths of a version's files, relative to its folder."""
        ...

    async def read(self, model: str, path: str) -> bytes | None:
        """The content of a file of a model; None where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class DirectoryFiles:
    """Models in a directory, as `ModelDirectory` sees them."""

    path: Path

    @property
    def where(self) -> str:
        """Its path."""
        return str(self.path)

    async def has(self, model: str) -> bool:
        """Whether there is such a folder."""
        return (self.path / model).is_dir()

    async def versions(self, model: str) -> Sequence[int]:
        """The versions that have a folder."""
        folder = self.path / model
        names = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdecimal() and not name.startswith("0"))

    async def all_versions(self) -> Mapping[str, Sequence[int]]:
        """The versions of every folder."""
        folders = [entry.name for entry in self.path.iterdir() if entry.is_dir()] if self.path.is_dir() else []
        return {model: versions for model in folders if (versions := await self.versions(model))}

    async def files(self, model: str, version: int) -> Collection[str]:
        """The paths of a version's files."""
        folder = self.path / model / str(version)
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}

    async def read(self, model: str, path: str) -> bytes | None:
        """The content of a file."""
        file = self.path / model / path
        try:
            return read_regular(file, MAX_FILE_BYTES) if file.exists() or file.is_symlink() else None
        except OSError as error:
            raise ModelConfigError(f"{file} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class StoreFiles:
    """The pushed models. `where` names the store in messages."""

    store: ModelStore
    where: str = "the model store"

    async def has(self, model: str) -> bool:
        """Whether a version of it was pushed."""
        return bool(await self.store.versions(model))

    async def versions(self, model: str) -> Sequence[int]:
        """The versions that were pushed whole."""
        return await self.store.versions(model)

    async def all_versions(self) -> Mapping[str, Sequence[int]]:
        """The versions of every pushed model."""
        return await self.store.models()

    async def files(self, model: str, version: int) -> Collection[str]:
        """The paths of a version's files."""
        return {file.path.partition("/")[2] for file in await self.store.files(model, version)}

    async def read(self, model: str, path: str) -> bytes | None:
        """The content of a pushed file."""
        return await self.store.read(model, path)


@dataclass(frozen=True, slots=True)
class OverlayFiles:
    """A directory over the store: the models as they will be when the directory is pushed."""

    directory: DirectoryFiles
    store: StoreFiles

    @property
    def where(self) -> str:
        """Both places."""
        return f"{self.directory.where}, with what was pushed before,"

    async def has(self, model: str) -> bool:
        """Whether one of the two has it."""
        return await self.directory.has(model) or await self.store.has(model)

    async def versions(self, model: str) -> Sequence[int]:
        """The versions of both."""
        return sorted({*await self.directory.versions(model), *await self.store.versions(model)})

    async def all_versions(self) -> Mapping[str, Sequence[int]]:
        """The versions of both."""
        here, there = await self.directory.all_versions(), await self.store.all_versions()
        return {model: sorted({*here.get(model, ()), *there.get(model, ())}) for model in here.keys() | there.keys()}

    async def files(self, model: str, version: int) -> Collection[str]:
        """The directory's files of a version, else the store's."""
        return await self.directory.files(model, version) or await self.store.files(model, version)

    async def read(self, model: str, path: str) -> bytes | None:
        """The directory's file, else the store's."""
        content = await self.directory.read(model, path)
        return await self.store.read(model, path) if content is None else content


class _Snapshot:
    """What a plan needs to know of the models, read ahead: the `Facts` of a planner."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.configs: dict[str, ModelConfig | None] = {}
        self.present: dict[str, set[int]] = {}

    def has(self, model: str) -> bool:
        return self.configs.get(model) is not None

    def config(self, model: str) -> ModelConfig:
        config = self.configs[model]
        assert config is not None
        return config

    def versions(self, model: str) -> tuple[int, ...]:
        return tuple(sorted(self.present.get(model, ())))


class TritonCatalog:
    """A `ModelCatalog` over the files of models.

    What was read once, or is in a load that was planned before, is not read again. Take a `fresh` one where the files of a
    directory, or of models that were never live, may have changed.
    """

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        self._configs: dict[str, ModelConfig] = {}
        self._learned: dict[str, ModelConfig] = {}
        self._checked: dict[str, set[int]] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)

    def learn(self, loads: Iterable[ModelLoad]) -> None:
        """Take loads that were planned before as read and checked: see `ModelCatalog.learn`."""
        for load in loads:
            if load.config is not None:
                self._learned[load.model] = json_format.ParseDict(json.loads(load.config), ModelConfig())
            self._checked.setdefault(load.model, set()).update(load.versions)

    def fresh(self) -> TritonCatalog:
        """The same models, of which nothing was read yet."""
        return TritonCatalog(self._files)

    async def resolve(self, targets: Iterable[Target], settled: Steps) -> Resolution:
        """A version for every target and every open step: see `ModelCatalog.resolve`.

        Raises:
            ModelConfigError: a model or version is missing, or cannot be served as its files stand.
            StoreError: the store did not answer.
        """
        targets = tuple(targets)
        return Planner(await self._read(targets, {})).resolve(targets, settled)

    async def plan(self, targets: Iterable[Target], steps: Steps) -> tuple[ModelLoad, ...]:
        """The closures of resolved targets: see `ModelCatalog.plan`.

        Raises:
            ModelConfigError: a model or version is missing, or cannot be served as its files stand.
            StoreError: the store did not answer.
        """
        targets = tuple(targets)
        loads = Planner(await self._read(targets, steps)).plan(targets, steps)
        checks = ((load.model, version) for load in loads for version in load.versions)
        await asyncio.gather(*(self._check(model, version) for model, version in checks))
        return loads

    async def _read(self, targets: Sequence[Target], pins: Steps) -> _Snapshot:
        """Read the closures of targets, level by level."""
        snapshot = _Snapshot(self._files.where)
        asked: set[tuple[str, int | None]] = {(target.model, target.version) for target in targets}
        while asked:
            # Whose version is open must be read itself: a load does not say what the model's own version policy is.
            unread = {model for model, version in asked if version is None and model not in self._configs}
            models = {model for model, _ in asked if model not in snapshot.configs} | unread
            await asyncio.gather(*(self._read_config(model, snapshot, own=model in unread) for model in models))
            listed = await self._files.all_versions() if self._unknown(asked) > FEW else None
            await asyncio.gather(*(self._read_versions(model, version, snapshot, listed) for model, version in asked))
            asked = {
                (
                    step.model_name,
                    step.model_version if step.model_version > 0 else pins.get(model, {}).get(step.model_name),
                )
                for model in models
                if (config := snapshot.configs[model]) is not None
                for step in config.ensemble_scheduling.step
            }
        return snapshot

    async def _read_config(self, model: str, snapshot: _Snapshot, *, own: bool) -> None:
        if model in self._learned and not own and model not in self._configs:
            snapshot.configs[model] = self._learned[model]
            return
        if model not in self._configs:
            async with self._gate:
                text = await self._files.read(model, CONFIG)
                if text is None and not await self._files.has(model):
                    snapshot.configs[model] = None
                    return
            self._configs[model] = parse_config(text, model, f"{self._files.where}/{model}/{CONFIG}")
        snapshot.configs[model] = self._configs[model]

    def _unknown(self, asked: Iterable[tuple[str, int | None]]) -> int:
        """Of how many models somebody must be asked which versions there are."""
        return sum(version is None or version not in self._checked.get(model, ()) for model, version in asked)

    async def _read_versions(
        self, model: str, version: int | None, snapshot: _Snapshot, listed: Mapping[str, Sequence[int]] | None
    ) -> None:
        """Find out which versions there are; a version that was checked before is there, so nobody is asked about it."""
        present = snapshot.present.setdefault(model, set())
        if version is not None and version in self._checked.get(model, ()):
            present.add(version)
        elif listed is not None:
            present.update(listed.get(model, ()))
        elif version is None or version not in present:
            async with self._gate:
                present.update(await self._files.versions(model))

    async def _check(self, model: str, version: int) -> None:
        """Refuse a version that would make Triton hang, or that it could not load for want of a file."""
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
