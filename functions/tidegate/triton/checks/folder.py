"""A model as its folder has it: config, versions, backend. What the checks look at."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tidegate.triton.checks.config_file import ConfigFile, read_config
from tidegate.triton.checks.findings import Report
from tidegate.triton.images.image import Image
from tidegate.triton.model_config import ARTEFACTS, CONFIG, policy_versions

VERSION = re.compile(r"[1-9][0-9]{0,17}")
ENSEMBLE = "ensemble"
PLATFORMS = {
    "ensemble": ENSEMBLE,
    "onnxruntime_onnx": "onnxruntime",
    "tensorrt_plan": "tensorrt",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "pytorch_libtorch": "pytorch",
    "libtorch": "pytorch",
    "torch_aoti": "pytorch",
}
"""The backends that the legacy field `platform` stands for."""

DEFAULT_FILES: dict[str, tuple[str, ...]] = {
    **{backend: (name,) for backend, name in ARTEFACTS.items()},
    "tensorrt": ("model.plan",),
    "pytorch": ("model.pt", "model.pt2"),
    "tensorflow": ("model.savedmodel", "model.graphdef"),
    "openvino": ("model.xml",),
    "dali": ("model.dali", "dali.py"),
    "vllm": ("model.json",),
}
"""The files that a backend takes from a version's folder, any one of them, unless the config names another."""

COMPLETED = frozenset(
    {"onnxruntime", "tensorrt", "tensorflow", "openvino", "pytorch", "dali", "fil", "vllm", "tensorrtllm"}
)
"""Backends that can complete the inputs and outputs of a config from the model itself."""


@dataclass(slots=False)
class ModelFolder:
    """One model. `config` is empty where it could not be read; `report` has what was found about the model so far, and
    `images` is what it will be served from, as far as that is known."""

    name: str
    path: Path
    config: ConfigFile
    report: Report
    entries: tuple[Path, ...] = ()
    images: tuple[Image, ...] = ()

    @property
    def message(self) -> ModelConfig:
        """The config's fields."""
        return self.config.message

    @cached_property
    def versions(self) -> tuple[int, ...]:
        """The versions that have a folder, ascending."""
        folders = (entry.name for entry in self.entries if entry.is_dir())
        return tuple(sorted(int(name) for name in folders if VERSION.fullmatch(name)))

    @cached_property
    def served(self) -> tuple[int, ...]:
        """The versions that the version policy serves of those that have a folder, ascending."""
        return policy_versions(self.message, self.versions)

    def version_path(self, version: int) -> Path:
        """The folder of a version."""
        return self.path / str(version)

    @cached_property
    def backend(self) -> str:
        """The backend that serves the model; `ensemble` for ensembles, empty where nothing tells."""
        config = self.message
        if config.backend:
            return str(config.backend)
        if config.platform:
            return PLATFORMS.get(config.platform, str(config.platform))
        if config.HasField("ensemble_scheduling"):
            return ENSEMBLE
        for version in self.versions:
            for backend, names in DEFAULT_FILES.items():
                wanted = (config.default_model_filename,) if config.default_model_filename else names
                if set(wanted) & set(names) and any((self.version_path(version) / name).exists() for name in wanted):
                    return backend
        return ""

    @property
    def is_ensemble(self) -> bool:
        """Whether the model is an ensemble."""
        return self.backend == ENSEMBLE or self.message.HasField("ensemble_scheduling")

    @cached_property
    def artefacts(self) -> tuple[str, ...]:
        """The names of files of which a version's folder needs one; empty where the backend is free or unknown."""
        if self.is_ensemble:
            return ()
        if self.message.default_model_filename:
            return (str(self.message.default_model_filename),)
        return DEFAULT_FILES.get(self.backend, ())

    def artefact(self, version: int) -> Path | None:
        """The file (or folder) that the backend loads of a version; None where there is none."""
        there = (self.version_path(version) / name for name in self.artefacts)
        return next((path for path in there if path.exists()), None)

    @property
    def input_names(self) -> frozenset[str]:
        """The declared inputs, and whatever else Triton hands to the model: sequence controls, states, batch inputs."""
        config = self.message
        names = [tensor.name for tensor in config.input]
        names += [control.name for control in config.sequence_batching.control_input]
        names += [state.input_name for state in config.sequence_batching.state]
        names += [name for batch_input in config.batch_input for name in batch_input.target_name]
        return frozenset(names)

    @property
    def output_names(self) -> frozenset[str]:
        """The declared outputs, and the states that the model writes."""
        config = self.message
        return frozenset(
            [tensor.name for tensor in config.output] + [state.output_name for state in config.sequence_batching.state]
        )


@dataclass(slots=True)
class Repository:
    """A model repository, each model read once, when it is first asked for.

    `images` has the images that serve a model, by its name, and `image` those that serve every other one.
    """

    path: Path
    images: Mapping[str, tuple[Image, ...]] = field(default_factory=dict)
    image: tuple[Image, ...] = ()
    _models: dict[str, ModelFolder | None] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """The names of all model folders; what begins with `.` or `_` is one where it holds a config.

        Raises:
            OSError: the directory cannot be read.
        """
        folders = (entry for entry in self.path.iterdir() if entry.is_dir())
        return tuple(sorted(entry.name for entry in folders if entry.name[0] not in "._" or (entry / CONFIG).is_file()))

    def model(self, name: str) -> ModelFolder | None:
        """A model by the name of its folder; None where there is no such folder."""
        if name not in self._models:
            self._models[name] = self._read(name)
        return self._models[name]

    def steps(self, name: str) -> tuple[str, ...]:
        """The models that an ensemble calls itself, in order, without repetition; empty for every other model."""
        model = self.model(name)
        if model is None:
            return ()
        return tuple(dict.fromkeys(step.model_name for step in model.message.ensemble_scheduling.step))

    def closure(self, names: Iterable[str]) -> tuple[str, ...]:
        """The models and everything that they call, transitively; those without a folder included."""
        found: dict[str, None] = {}
        pending = list(names)
        while pending:
            name = pending.pop()
            if name not in found:
                found[name] = None
                pending += [step for step in self.steps(name) if step]
        return tuple(sorted(found))

    def _read(self, name: str) -> ModelFolder | None:
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            return None
        path = self.path / name
        try:
            if not path.is_dir():
                return None
            report = Report(name)
        except OSError:
            return None
        config = read_config(path / CONFIG, CONFIG, report)
        entries: tuple[Path, ...] = ()
        try:
            entries = tuple(sorted(path.iterdir()))
        except OSError as error:
            report("unreadable", f"cannot be read: {error.strerror}", "check the permissions", file="")
        return ModelFolder(name, path, config, report, entries, self.images.get(name, self.image))


def by_name(tensors: Iterable[Any]) -> dict[str, Any]:
    """Declared tensors by their names; of several of one name, the first."""
    found: dict[str, Any] = {}
    for tensor in tensors:
        found.setdefault(tensor.name, tensor)
    return found


def each_version(model: ModelFolder) -> Iterator[tuple[int, Path]]:
    """Every version with its folder."""
    return ((version, model.version_path(version)) for version in model.versions)
