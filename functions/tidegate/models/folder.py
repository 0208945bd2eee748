"""A model's folder, read from a directory, from the store of pushed models, or from one over the other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from tidegate.errors import ModelConfigError
from tidegate.files import read_regular
from tidegate.model_layout import CONFIG, version_of
from tidegate.models.config import parse_config, policy_versions
from tidegate.models.schema import ModelConfig
from tidegate.ports import ModelStore

MAX_FILE_BYTES = 16 * 1024 * 1024
"""The largest file that is read of a model in a directory: its config, or the source of a Python model."""


@dataclass(frozen=True, eq=False)
class ModelFolder:
    """A model's config, which has only the name if there is no file, and its versions, ascending."""

    name: str
    config: ModelConfig
    versions: tuple[int, ...]

    @property
    def steps(self) -> tuple[str, ...]:
        """The models that an ensemble itself calls, in order, without repetition."""
        return tuple(dict.fromkeys(step.model_name for step in self.config.ensemble_scheduling.step))

    @cached_property
    def served(self) -> tuple[int, ...]:
        """The versions that the config's own policy serves, ascending."""
        return policy_versions(self.config, self.versions)


def versions_in(folder: Path) -> tuple[int, ...]:
    """Return the versions that have a folder in a model's folder, ascending; none if there is no such folder."""
    names = [entry.name for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
    return tuple(sorted(version for name in names if (version := version_of(name))))


def read_file(path: Path) -> bytes | None:
    """Return the content of a model's file; None if there is none.

    Raises:
        ModelConfigError: the file cannot be read.
    """
    try:
        return read_regular(path, MAX_FILE_BYTES) if path.exists() or path.is_symlink() else None
    except OSError as error:
        raise ModelConfigError(f"{path} cannot be read: {error.strerror}") from error


def read_folder(folder: Path) -> ModelFolder:
    """Read a model's folder.

    Raises:
        ModelConfigError: its `config.pbtxt` is malformed (the message has the line), or names another model.
    """
    config = parse_config(read_file(folder / CONFIG), folder.name, str(folder / CONFIG))
    return ModelFolder(folder.name, config, versions_in(folder))


def model_folders(models: Path) -> tuple[Path, ...]:
    """Return the folders of models in a directory, by name.

    Raises:
        ModelConfigError: there is no such directory.
    """
    if not models.is_dir():
        raise ModelConfigError(f"{models} is not a directory; it should hold one folder per model")
    return tuple(sorted(entry for entry in models.iterdir() if entry.is_dir() and entry.name[0] not in "._"))


def are_complete(models: Path) -> bool:
    """Return whether no config of a directory's models leaves out what Triton would have to complete.

    A config that cannot be read counts as incomplete: the error is reported when the model is needed.
    """
    try:
        return all(map(_is_complete, model_folders(models)))
    except ModelConfigError:
        return False


def _is_complete(path: Path) -> bool:
    if not (path / CONFIG).is_file():
        return False
    folder = read_folder(path)
    config = folder.config
    if not (config.backend or config.platform) or not config.input or not config.output:
        return False
    if not all(tensor.name and tensor.data_type and tensor.dims for tensor in (*config.input, *config.output)):
        return False
    sources = [path / str(version) / "model.py" for version in folder.versions]
    return not any("def auto_complete_config" in each.read_text(errors="replace") for each in sources if each.is_file())


class ModelFiles(Protocol):
    """Where a catalog reads models. Versions are ascending; `where` names the place in messages."""

    @property
    def where(self) -> str: ...

    async def has(self, model: str) -> bool:
        """Return whether there is such a model, with or without a version."""
        ...

    async def versions(self, model: str) -> Sequence[int]: ...

    async def all_versions(self) -> Mapping[str, Sequence[int]]:
        """Return the versions of every model that has one."""
        ...

    async def files(self, model: str, version: int) -> Collection[str]:
        """Return the paths of a version's files, relative to its folder."""
        ...

    async def read(self, model: str, path: str) -> bytes | None:
        """Return the content of a file, by its path in the model's folder; None if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class DirectoryFiles:
    """`ModelFiles` in a directory."""

    path: Path

    @property
    def where(self) -> str:
        return str(self.path)

    async def has(self, model: str) -> bool:
        return (self.path / model).is_dir()

    async def versions(self, model: str) -> Sequence[int]:
        return versions_in(self.path / model)

    async def all_versions(self) -> Mapping[str, Sequence[int]]:
        folders = [entry for entry in self.path.iterdir() if entry.is_dir()] if self.path.is_dir() else []
        return {folder.name: versions for folder in folders if (versions := versions_in(folder))}

    async def files(self, model: str, version: int) -> Collection[str]:
        folder = self.path / model / str(version)
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}

    async def read(self, model: str, path: str) -> bytes | None:
        return read_file(self.path / model / path)


@dataclass(frozen=True, slots=True)
class StoreFiles:
    """`ModelFiles` of the pushed models."""

    store: ModelStore
    where: str = "the model store"

    async def has(self, model: str) -> bool:
        return bool(await self.store.versions(model))

    async def versions(self, model: str) -> Sequence[int]:
        return await self.store.versions(model)

    async def all_versions(self) -> Mapping[str, Sequence[int]]:
        return await self.store.models()

    async def files(self, model: str, version: int) -> Collection[str]:
        return {file.path.partition("/")[2] for file in await self.store.files(model, version)}

    async def read(self, model: str, path: str) -> bytes | None:
        return await self.store.read(model, path)


@dataclass(frozen=True, slots=True)
class OverlayFiles:
    """`ModelFiles` of a directory over the store: the models as they will be when the directory is pushed."""

    directory: DirectoryFiles
    store: StoreFiles

    @property
    def where(self) -> str:
        return f"{self.directory.where}, with what was pushed before,"

    async def has(self, model: str) -> bool:
        return await self.directory.has(model) or await self.store.has(model)

    async def versions(self, model: str) -> Sequence[int]:
        return sorted({*await self.directory.versions(model), *await self.store.versions(model)})

    async def all_versions(self) -> Mapping[str, Sequence[int]]:
        here, there = await self.directory.all_versions(), await self.store.all_versions()
        return {model: sorted({*here.get(model, ()), *there.get(model, ())}) for model in here.keys() | there.keys()}

    async def files(self, model: str, version: int) -> Collection[str]:
        return await self.directory.files(model, version) or await self.store.files(model, version)

    async def read(self, model: str, path: str) -> bytes | None:
        content = await self.directory.read(model, path)
        return await self.store.read(model, path) if content is None else content
