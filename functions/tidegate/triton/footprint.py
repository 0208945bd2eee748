"""Which models a model needs, and how much memory each of them takes, as far as files tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate.errors import ModelConfigError
from tidegate.triton.model_config import policy_versions
from tidegate.triton.model_directory import ModelDirectory

BYTES_PER_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Footprints:
    """What was read of a model repository.

    Attributes:
        closures: by model, every model of its closure, itself included, with the size of its files in MB (rounded up).
            It is a guess of the memory: a Python step's process, say, takes far more than its files.
        missing: the models, and the steps of models, that have no folder.
    """

    closures: Mapping[str, Mapping[str, int]]
    missing: tuple[str, ...]


def read_footprints(directory: ModelDirectory, models: Iterable[str]) -> Footprints:
    """Read the closures of models from their configs, and the sizes of the versions that are served.

    Raises:
        ModelConfigError: a config cannot be read, a file cannot be looked at, or an ensemble calls itself.
    """
    reader = _Reader(directory, frozenset(directory.models()))
    closures = {model: reader.closure(model, ()) for model in models}
    return Footprints(
        {model: {name: reader.sizes[name] for name in names} for model, names in closures.items() if names},
        tuple(sorted(reader.missing)),
    )


class _Reader:
    """Reads each model once."""

    def __init__(self, directory: ModelDirectory, present: frozenset[str]) -> None:
        self.sizes: dict[str, int] = {}
        self.missing: set[str] = set()
        self._directory = directory
        self._present = present
        self._closures: dict[str, tuple[str, ...]] = {}

    def closure(self, model: str, path: tuple[str, ...]) -> tuple[str, ...]:
        """The models of a closure that have a folder."""
        if model in path:
            cycle = " -> ".join([*path[path.index(model) :], model])
            raise ModelConfigError(f"{self._directory.path / model}: an ensemble calls itself: {cycle}")
        if model not in self._present:
            self.missing.add(model)
            return ()
        if model not in self._closures:
            config = self._directory.config(model)
            names = {model: None}
            for step in config.ensemble_scheduling.step:
                names |= dict.fromkeys(self.closure(step.model_name, (*path, model)))
            served = policy_versions(config, self._directory.versions(model))
            folder = self._directory.path / model
            self.sizes[model] = -(-sum(_size_bytes(folder / str(version)) for version in served) // BYTES_PER_MB)
            self._closures[model] = tuple(names)
        return self._closures[model]


def _size_bytes(folder: Path) -> int:
    try:
        files = [path for path in folder.rglob("*") if "__pycache__" not in path.parts and path.is_file()]
        return sum(path.stat().st_size for path in files)
    except OSError as error:
        raise ModelConfigError(f"{error.filename}: cannot be read: {error.strerror}") from error
