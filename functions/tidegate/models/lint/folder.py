"""A model as the checks see it: config, versions, backend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tidegate.model_layout import CONFIG, version_of
from tidegate.models.closure import closure
from tidegate.models.config import ARTEFACTS
from tidegate.models.folder import ModelFolder
from tidegate.models.images.image import Image
from tidegate.models.lint.config_file import ConfigFile, read_config
from tidegate.models.lint.findings import Report
from tidegate.models.schema import ModelConfig
from tidegate.models.textproto import Place

ENSEMBLE = "ensemble"
PLATFORMS = {
    "ensemble": ENSEMBLE, "onnxruntime_onnx": "onnxruntime", "tensorrt_plan": "tensorrt",
    "tensorflow_graphdef": "tensorflow", "tensorflow_savedmodel": "tensorflow", "pytorch_libtorch": "pytorch",
    "libtorch": "pytorch", "torch_aoti": "pytorch",
}  # fmt: skip
"""The backends of the values of the legacy field `platform`."""

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


@dataclass(frozen=True, eq=False)
class CheckedFolder(ModelFolder):
    """A model in a directory; `config` has what could be read.

    Attributes:
        text: the config with the lines of its fields.
        found: the findings about the model so far.
        entries: the content of the folder.
        images: the images that will serve the model, as far as they are known.
    """

    path: Path
    text: ConfigFile
    found: Report
    entries: tuple[Path, ...] = ()
    images: tuple[Image, ...] = ()

    def report(
        self, kind: str, message: str, hint: str = "", *, at: Place = (), file: str = CONFIG, line: int = 0
    ) -> None:
        """Add a finding, `at` a field of the config or at a line of a file; an empty `file` is the folder itself."""
        self.found(kind, message, hint, file=file, line=self.text.line(*at) if at else line)

    def was_found(self, kind: str) -> bool:
        return any(finding.kind == kind for finding in self.found.findings)

    def fields(self, *names: str) -> Iterator[Field]:
        """Yield the messages of a repeated field of the config, such as `fields("ensemble_scheduling", "step")`."""
        owner: Any = self.config
        place: Place = ()
        for name in names[:-1]:
            owner, place = getattr(owner, name), (*place, name, 0)
        for number, value in enumerate(getattr(owner, names[-1])):
            yield Field(self, (*place, names[-1], number), value)

    @property
    def version_paths(self) -> Mapping[int, Path]:
        return {version: self.path / str(version) for version in self.versions}

    @cached_property
    def backend(self) -> str:
        """The backend that serves the model; `ensemble` for ensembles, empty if unknown."""
        config = self.config
        if config.backend:
            return str(config.backend)
        if config.platform:
            return PLATFORMS.get(config.platform, str(config.platform))
        if config.HasField("ensemble_scheduling"):
            return ENSEMBLE
        for path in self.version_paths.values():
            for backend, names in DEFAULT_FILES.items():
                wanted = (config.default_model_filename,) if config.default_model_filename else names
                if set(wanted) & set(names) and any((path / name).exists() for name in wanted):
                    return backend
        return ""

    @property
    def is_ensemble(self) -> bool:
        return self.backend == ENSEMBLE or self.config.HasField("ensemble_scheduling")

    @cached_property
    def artefacts(self) -> tuple[str, ...]:
        """The names of files of which a version's folder needs one; empty if it needs none, or the backend is unknown."""
        if self.is_ensemble:
            return ()
        if self.config.default_model_filename:
            return (str(self.config.default_model_filename),)
        return DEFAULT_FILES.get(self.backend, ())

    def artefact(self, version: int) -> Path | None:
        """Return the file (or folder) that the backend loads of a version; None if it is missing."""
        there = (self.version_paths[version] / name for name in self.artefacts)
        return next((path for path in there if path.exists()), None)

    @property
    def input_names(self) -> frozenset[str]:
        """The declared inputs, and the others that Triton gives the model: sequence controls, states, batch inputs."""
        config = self.config
        names = [tensor.name for tensor in config.input]
        names += [control.name for control in config.sequence_batching.control_input]
        names += [state.input_name for state in config.sequence_batching.state]
        names += [name for batch_input in config.batch_input for name in batch_input.target_name]
        return frozenset(names)

    @property
    def output_names(self) -> frozenset[str]:
        """The declared outputs, and the states that the model writes."""
        config = self.config
        states = config.sequence_batching.state
        return frozenset([tensor.name for tensor in config.output] + [state.output_name for state in states])


@dataclass(frozen=True, slots=True)
class Field:
    """A message in a model's config, such as an input or a step."""

    model: CheckedFolder
    place: Place
    value: Any

    @property
    def whole(self) -> bool:
        """Whether it was read without a mistake."""
        return self.model.text.whole(*self.place)

    def line(self, *inner: str | int) -> int:
        return self.model.text.line(*self.place, *inner)

    def report(self, kind: str, message: str, hint: str = "", *inner: str | int) -> None:
        """Add a finding at its line, or at that of an inner field."""
        self.model.report(kind, message, hint, at=(*self.place, *inner))


@dataclass(slots=True)
class Repository:
    """A model repository; each model is read once, on first use.

    `images` are those that serve a model, by its name; `image` those that serve every other one.
    """

    path: Path
    images: Mapping[str, tuple[Image, ...]] = field(default_factory=dict)
    image: tuple[Image, ...] = ()
    _models: dict[str, CheckedFolder | None] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """Return the names of all model folders; one that begins with `.` or `_` counts if it has a config.

        Raises:
            OSError: the directory cannot be read.
        """
        folders = (entry for entry in self.path.iterdir() if entry.is_dir())
        return tuple(sorted(entry.name for entry in folders if entry.name[0] not in "._" or (entry / CONFIG).is_file()))

    def model(self, name: str) -> CheckedFolder | None:
        """Return a model by the name of its folder; None if there is no such folder."""
        if name not in self._models:
            self._models[name] = self._read(name)
        return self._models[name]

    def steps(self, name: str) -> tuple[str, ...]:
        """Return the models that an ensemble itself calls."""
        model = self.model(name)
        return () if model is None else model.steps

    def closure(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return models and everything that they call, each after what it calls, including those without a folder."""
        return closure(names, lambda name: [step for step in self.steps(name) if step])

    def closure_of(self, *names: str) -> tuple[CheckedFolder, ...]:
        """Return models and everything that they call, each after what it calls, without those that have no folder."""
        return tuple(model for each in self.closure(names) if (model := self.model(each)) is not None)

    def configs_of(self, name: str) -> list[ModelConfig]:
        """Return the configs of a model and of everything that it calls."""
        return [model.config for model in self.closure_of(name)]

    def _read(self, name: str) -> CheckedFolder | None:
        if not name or "/" in name or "\0" in name or name in (".", ".."):
            return None
        path = self.path / name
        try:
            if not path.is_dir():
                return None
            report = Report(name)
        except OSError:
            return None
        text = read_config(path / CONFIG, CONFIG, report)
        entries: tuple[Path, ...] = ()
        try:
            entries = tuple(sorted(path.iterdir()))
        except OSError as error:
            report("unreadable", f"cannot be read: {error.strerror}", "check the permissions", file="")
        versions = tuple(sorted(version for each in entries if each.is_dir() and (version := version_of(each.name))))
        images = self.images.get(name, self.image)
        return CheckedFolder(name, text.message, versions, path, text, report, entries, images)


def report_duplicates(fields: Iterable[Field], kind: str, noun: str) -> None:
    """Report fields of one name."""
    lines: dict[str, int] = {}
    for each in fields:
        name = each.value.name
        if name in lines:
            each.report(kind, f"{noun} {name!r} is duplicated", f"the first is on line {lines[name]}", "name")
        elif name:
            lines[name] = each.line("name")


def by_name(tensors: Iterable[Any]) -> dict[str, Any]:
    """Return declared tensors by name; of several of one name, the first."""
    found: dict[str, Any] = {}
    for tensor in tensors:
        found.setdefault(tensor.name, tensor)
    return found
