"""Models that a person publishes: a folder, over what was pushed before."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.errors import ModelConfigError
from tidegate.models.catalog import TritonCatalog
from tidegate.models.folder import DirectoryFiles, OverlayFiles, StoreFiles
from tidegate.ports import ModelCatalog, ModelStore
from tidegate.rules import load_bundle

if TYPE_CHECKING:
    from tidegate.bootstrap.archived_rules import ArchivedRules
    from tidegate.bootstrap.rules_sources import ProvedRules
    from tidegate.models.lint.folder import Repository


def local_repository(path: Path) -> Repository:
    from tidegate.models.images.image import local_image
    from tidegate.models.lint.folder import Repository

    return Repository(path, image=(local_image(),))


async def check_served(path: Path, bundle: bytes) -> None:
    """Check the models of a folder that compiled rules serve, with what they call. Raises `ModelConfigError`."""
    from tidegate.models.lint.checker import judge_models

    models = {target.model for target in load_bundle(bundle).targets()}
    names = sorted(model for model in models if (path / model).is_dir())
    repository = await asyncio.to_thread(local_repository, path)
    judged = await asyncio.to_thread(judge_models, repository, names)
    if judged.errors:
        raise ModelConfigError("the models have errors\n" + "\n".join(map(str, judged.errors)))


class ModelErrors(Enum):
    """The treatment of models with errors in their files."""

    REFUSE = auto()
    REPORT = auto()
    """Leave it to Triton whether they load."""


@dataclass(frozen=True, slots=True)
class FolderModels:
    """A `ModelsSource` of a folder, over what was pushed before. Every `catalog` reads the folder again.

    Models are checked for the images of the shards of `rules`, which are read when models are checked; without them, for
    this machine's Triton.
    """

    path: Path
    store: ModelStore
    errors: ModelErrors = ModelErrors.REFUSE
    rules: ProvedRules | ArchivedRules | None = None

    @property
    def catalog(self) -> ModelCatalog:
        return TritonCatalog(OverlayFiles(DirectoryFiles(self.path), StoreFiles(self.store)))

    def folder(self, model: str) -> Path | None:
        folder = self.path / model
        return folder if folder.is_dir() else None

    async def size_bytes(self, model: str, version: int) -> int | None:
        folder = self.path / model / str(version)
        if not folder.is_dir():
            return None
        return await asyncio.to_thread(_size_bytes, folder)

    async def check(self, models: Iterable[str]) -> tuple[str, ...]:
        """Check models of the folder by their files. Return the findings that do not refuse them."""
        from tidegate.models.lint.checker import judge_models

        repository = await asyncio.to_thread(self._repository)
        judged = await asyncio.to_thread(judge_models, repository, tuple(models))
        if judged.errors and self.errors is ModelErrors.REFUSE:
            raise ModelConfigError("the models have errors\n" + "\n".join(map(str, judged.errors)))
        return tuple(map(str, judged.findings))

    def _repository(self) -> Repository:
        """The folder, with the images that serve its models. Raises `ModelConfigError`: a manifest is malformed."""
        if self.rules is None:
            return local_repository(self.path)
        from tidegate.language.directory import read_directory
        from tidegate.models.images.serving import images_of_models
        from tidegate.models.lint.folder import Repository

        program, _ = read_directory(self.rules.path)
        return Repository(self.path, images_of_models(program.world, self.rules.path, self.path))


def _size_bytes(folder: Path) -> int:
    """Return the total size of the files below a folder, without those that vanish meanwhile, such as an editor's."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found = Path(parent, name).stat()
                size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return size
