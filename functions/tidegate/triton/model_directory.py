"""A model repository on disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tidegate.errors import ModelConfigError
from tidegate.ports import ModelLoad
from tidegate.rules import Target
from tidegate.triton.model_config import CONFIG, artefact, check_python, is_python, parse_config
from tidegate.triton.planning import Planner


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """A model repository on disk, read anew at every call."""

    path: Path

    @property
    def where(self) -> str:
        """Its path."""
        return str(self.path)

    def models(self) -> tuple[str, ...]:
        """The names of all model folders."""
        if not self.path.is_dir():
            raise ModelConfigError(f"{self.path} is no directory; it should hold one folder per model")
        return tuple(
            sorted(entry.name for entry in self.path.iterdir() if entry.is_dir() and entry.name[0] not in "._")
        )

    def has(self, model: str) -> bool:
        """Whether there is such a folder."""
        return (self.path / model).is_dir()

    def config(self, model: str) -> ModelConfig:
        """A model's config; empty but for the name where there is no `config.pbtxt`, as Triton can complete it.

        Raises:
            ModelConfigError: the file is no model config (with its line), or names another model.
        """
        path = self.path / model / CONFIG
        return parse_config(path.read_bytes() if path.is_file() else None, model, str(path))

    def versions(self, model: str) -> tuple[int, ...]:
        """The versions of a model that have a folder; none where the model has none."""
        folder = self.path / model
        folders = (entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else ()
        return tuple(sorted(int(name) for name in folders if name.isdecimal() and not name.startswith("0")))

    def complete(self) -> bool:
        """Whether Triton needs to complete no model's config, so that it may be told not to try.

        A config that cannot be read counts as incomplete: what is wrong is said where the model is needed.
        """
        try:
            return all(self._complete(model) for model in self.models())
        except ModelConfigError:
            return False

    def plan(self, targets: Iterable[Target]) -> tuple[ModelLoad, ...]:
        """The loads that serve targets as the files are now: what they leave open is resolved, and what would make Triton
        hang is refused.

        Raises:
            ModelConfigError: a model is missing or cannot be served as its files stand.
        """
        targets, planner = tuple(targets), Planner(self)
        resolution = planner.resolve(targets, {})
        resolved = [replace(target, version=resolution.versions[target.name]) for target in targets]
        loads = planner.plan(resolved, resolution.steps)
        for load in loads:
            for version in load.versions:
                self._check(load.model, version)
        return loads

    def _check(self, model: str, version: int) -> None:
        config, folder = self.config(model), self.path / model / str(version)
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
        name = artefact(config, files, str(folder))
        if name is not None and is_python(config, name):
            check_python((folder / name).read_bytes(), str(folder / name))

    def _complete(self, model: str) -> bool:
        if not (self.path / model / CONFIG).is_file():
            return False
        config = self.config(model)
        tensors = [*config.input, *config.output]
        if not (config.backend or config.platform) or not config.input or not config.output:
            return False
        if not all(tensor.name and tensor.data_type and tensor.dims for tensor in tensors):
            return False
        sources = (self.path / model / str(version) / "model.py" for version in self.versions(model))
        return not any(
            "def auto_complete_config" in path.read_text(errors="replace") for path in sources if path.is_file()
        )
