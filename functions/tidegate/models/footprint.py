"""Which models a model needs, and how large their files are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate.errors import ModelConfigError
from tidegate.model_layout import is_bytecode
from tidegate.models.closure import closure, cycle_in
from tidegate.models.folder import ModelFolder, model_folders, read_folder

BYTES_PER_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Footprints:
    """The closures and sizes of models.

    Attributes:
        closures: by model, every model of its closure, itself included, with the size of its files in MB, rounded up. It is
            a lower bound of the memory: the process of a Python model takes far more than its files.
        missing: the models, and the steps of models, that have no folder.
    """

    closures: Mapping[str, Mapping[str, int]]
    missing: tuple[str, ...]


def read_footprints(directory: Path, models: Iterable[str]) -> Footprints:
    """Read the closures of models from their configs, and the sizes of the versions that are served.

    Raises:
        ModelConfigError: a config or a file cannot be read, or an ensemble calls itself.
    """
    present = {path.name: path for path in model_folders(directory)}
    folders: dict[str, ModelFolder | None] = {}

    def called(model: str) -> tuple[str, ...]:
        if model not in folders:
            folders[model] = read_folder(present[model]) if model in present else None
        folder = folders[model]
        return () if folder is None else folder.steps

    models = tuple(models)
    cycle = cycle_in(reversed(closure(models, called)), called)
    if cycle:
        raise ModelConfigError(f"{directory / cycle[0]}: an ensemble calls itself: {' -> '.join(cycle)}")
    sizes = {name: _size_mb(present[name], folder) for name, folder in folders.items() if folder is not None}
    closures = {model: {name: sizes[name] for name in closure([model], called) if name in sizes} for model in models}
    missing = sorted(name for name, folder in folders.items() if folder is None)
    return Footprints({model: parts for model, parts in closures.items() if parts}, tuple(missing))


def _size_mb(path: Path, folder: ModelFolder) -> int:
    try:
        files = [file for version in folder.served for file in (path / str(version)).rglob("*")]
        counted = [file for file in files if not any(map(is_bytecode, file.parts)) and file.is_file()]
        return math.ceil(sum(file.stat().st_size for file in counted) / BYTES_PER_MB)
    except OSError as error:
        raise ModelConfigError(f"{error.filename}: cannot be read: {error.strerror}") from error
