"""What a person publishes: a directory of rules and a folder of models."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tidegate.control.following import FollowMode
from tidegate.control.rules_child import prove_in_child
from tidegate.control.sources import CheckedRules
from tidegate.errors import ModelConfigError, RulesError
from tidegate.ports import ModelCatalog, ModelStore
from tidegate.rules import load_bundle
from tidegate.rules.proving import CaseTally
from tidegate.triton.catalog import DirectoryFiles, OverlayFiles, StoreFiles, TritonCatalog

if TYPE_CHECKING:
    from tidegate.triton.checks import Repository


@dataclass(frozen=True, slots=True)
class CompiledRules:
    """A `RulesSource` of a directory that is compiled and not analysed: for someone who writes rules and watches them."""

    path: Path

    async def check(self) -> CheckedRules:
        """Compile them in a child process.

        Raises:
            RulesError: they do not compile.
        """
        proof = await prove_in_child(self.path, time.time(), only_compile=True)
        if proof.errors:
            raise RulesError(list(proof.errors))
        return CheckedRules(proof.bundle, proof.demand, proof.summary)

    async def test(self, checked: CheckedRules) -> str:  # noqa: ARG002  # the protocol's
        """Cases are for those who want them."""
        return "left out: the rules are only compiled"


@dataclass(slots=True)
class ProvedRules:
    """A `RulesSource` of a directory that is compiled, analysed and tested: what goes live where others depend on it."""

    path: Path
    _tested: dict[bytes, CaseTally] = field(default_factory=dict, init=False)

    async def check(self) -> CheckedRules:
        """Compile and analyse them in a child process; warnings are the notes.

        Raises:
            RulesError: they have errors.
        """
        proof = await prove_in_child(self.path, time.time())
        if proof.errors:
            raise RulesError(list(proof.errors))
        self._tested = {proof.bundle: proof.cases}
        return CheckedRules(proof.bundle, proof.demand, proof.summary, tuple(map(str, proof.warnings)))

    async def test(self, checked: CheckedRules) -> str:
        """What came of the cases, which ran with the check.

        Raises:
            RulesError: a case fails, or a file of cases has errors.
            KeyError: `checked` does not come from this source's last check.
        """
        tally = self._tested[checked.bundle]
        if tally.failures:
            raise RulesError(list(tally.failures))
        return tally.summary()


def followed_rules(path: Path, mode: FollowMode) -> CompiledRules | ProvedRules:
    """What a directory that is followed must pass before it goes live."""
    return CompiledRules(path) if mode is FollowMode.UNCHECKED else ProvedRules(path)


class RulesFolder(Protocol):
    """Rules that are in a folder, once they were checked."""

    @property
    def path(self) -> Path:
        """The rules directory."""
        ...


def local_repository(path: Path) -> Repository:
    """A folder of models that this machine's Triton will serve."""
    from tidegate.triton.checks import Repository
    from tidegate.triton.images.known import local_image

    return Repository(path, image=(local_image(),))


async def check_served(path: Path, bundle: bytes) -> None:
    """Check the models of a folder that compiled rules serve, with what they call.

    Raises:
        ModelConfigError: they have errors; the message has every one with its place.
    """
    from tidegate.triton.checks import judge_models

    models = {target.model for target in load_bundle(bundle).targets()}
    names = sorted(model for model in models if (path / model).is_dir())
    repository = await asyncio.to_thread(local_repository, path)
    judged = await asyncio.to_thread(judge_models, repository, names)
    if judged.errors:
        raise ModelConfigError("the models have errors\n" + "\n".join(map(str, judged.errors)))


@dataclass(frozen=True, slots=True)
class FolderModels:
    """A `ModelsSource` of a folder, over what was pushed before. Every `catalog` reads the folder again.

    A `strict` one refuses models with errors; another one only reports them, and leaves it to Triton whether they load.
    Models are checked for the images of the shards of `rules`, which are read when models are checked; without them, for
    this machine's Triton.
    """

    path: Path
    store: ModelStore
    strict: bool = True
    rules: RulesFolder | None = None

    @property
    def catalog(self) -> ModelCatalog:
        """The models as they will be when the folder is pushed."""
        return TritonCatalog(OverlayFiles(DirectoryFiles(self.path), StoreFiles(self.store)))

    def folder(self, model: str) -> Path | None:
        """The folder of a model; None where it has none here."""
        folder = self.path / model
        return folder if folder.is_dir() else None

    async def size_bytes(self, model: str, version: int) -> int | None:
        """How big the files of a version in the folder are; None where it has none here."""
        folder = self.path / model / str(version)
        if not folder.is_dir():
            return None
        return await asyncio.to_thread(_size_bytes, folder)

    async def check(self, models: Iterable[str]) -> tuple[str, ...]:
        """Check models of the folder by their files; what is not refused, in words.

        Raises:
            ModelConfigError: they have errors, and this is strict; the message has every one.
        """
        from tidegate.triton.checks import judge_models

        repository = await asyncio.to_thread(self._repository)
        judged = await asyncio.to_thread(judge_models, repository, tuple(models))
        if judged.errors and self.strict:
            raise ModelConfigError("the models have errors\n" + "\n".join(map(str, judged.errors)))
        return tuple(map(str, judged.findings))

    def _repository(self) -> Repository:
        """The folder, with the images that serve its models.

        Raises:
            ModelConfigError: a manifest is malformed.
        """
        if self.rules is None:
            return local_repository(self.path)
        from tidegate.rules.directory import read_directory
        from tidegate.triton.checks import Repository
        from tidegate.triton.images.serving import images_of_models

        program, _ = read_directory(self.rules.path)
        return Repository(self.path, images_of_models(program.world, self.rules.path, self.path))


def _size_bytes(folder: Path) -> int:
    """How big the files below a folder are. What vanishes meanwhile, such as an editor's temporary file, counts nothing."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found = Path(parent, name).stat()
                size += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return size
