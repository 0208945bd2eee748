"""Models as folders: their configs, an ensemble's closure, and what would make Triton hang, found without Triton.

The layout: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tidegate.errors import ModelConfigError
from tidegate.ports import ModelLoad
from tidegate.rules import Target

CONFIG = "config.pbtxt"
ARTEFACTS = {"python": "model.py", "onnxruntime": "model.onnx"}
"""The file that each backend looks for in a version's folder, unless the config says `default_model_filename`."""

_UNSAFE = re.compile(r"[\s/\\]")


@dataclass(slots=True)
class _Need:
    """What is asked of one model: pinned versions, whether anyone leaves the version open, and who asked first."""

    asker: str
    pins: dict[int, str] = field(default_factory=dict)
    open_asker: str | None = None


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """A model repository on disk, read anew at every call: a `ModelCatalog`."""

    path: Path

    def models(self) -> tuple[str, ...]:
        """The names of all model folders."""
        if not self.path.is_dir():
            raise ModelConfigError(f"{self.path} is no directory; it should hold one folder per model")
        return tuple(
            sorted(entry.name for entry in self.path.iterdir() if entry.is_dir() and entry.name[0] not in "._")
        )

    def config(self, model: str) -> ModelConfig:
        """A model's config; empty but for the name where there is no `config.pbtxt`, as Triton can complete it.

        Raises:
            ModelConfigError: the file is no model config (with its line), or names another model.
        """
        path = self.path / model / CONFIG
        config = ModelConfig()
        if path.is_file():
            try:
                text_format.Parse(path.read_text(), config)
            except (text_format.ParseError, UnicodeDecodeError) as error:
                raise ModelConfigError(f"{path}:{error}" if _located(error) else f"{path}: {error}") from error
        if config.name not in ("", model):
            raise ModelConfigError(f"{path}: name is {config.name!r}, but the folder is {model!r}; make them the same")
        config.name = model
        return config

    def versions(self, model: str) -> tuple[int, ...]:
        """The versions of a model that have a folder."""
        folders = (entry.name for entry in (self.path / model).iterdir() if entry.is_dir())
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
        """The loads that serve all targets: see `ModelCatalog.plan`.

        A pin of a version that the model's own version policy would not serve gets a config override with exactly the
        versions that are needed.

        Raises:
            ModelConfigError: a model is missing, cannot be served as its files stand, or pins and policy contradict.
        """
        needs: dict[str, _Need] = {}
        order: list[str] = []
        for target in sorted(targets, key=lambda target: target.name):
            self._visit(target.model, target.version, f"target {target.name!r}", needs, order, ())
        return tuple(self._load(model, needs[model]) for model in order)

    def _visit(
        self,
        model: str,
        version: int | None,
        asker: str,
        needs: dict[str, _Need],
        order: list[str],
        path: tuple[str, ...],
    ) -> None:
        if model in path:
            cycle = " -> ".join([*path[path.index(model) :], model])
            raise ModelConfigError(f"{self.path / model / CONFIG}: an ensemble calls itself: {cycle}")
        if _UNSAFE.search(model):
            raise ModelConfigError(
                f"{asker} needs model {model!r}: Triton hangs on a name with a blank; rename the model"
            )
        if not (self.path / model).is_dir():
            raise ModelConfigError(f"{asker} needs model {model!r}, but {self.path} has no folder of that name")
        need = needs.setdefault(model, _Need(asker))
        if version is None:
            need.open_asker = need.open_asker or asker
        else:
            need.pins.setdefault(version, asker)
        if model not in order:
            for step in self.config(model).ensemble_scheduling.step:
                pinned = step.model_version if step.model_version > 0 else None
                self._visit(step.model_name, pinned, f"ensemble {model!r}", needs, order, (*path, model))
            order.append(model)

    def _load(self, model: str, need: _Need) -> ModelLoad:
        config, present = self.config(model), self.versions(model)
        folder = self.path / model
        if not present:
            raise ModelConfigError(f"{need.asker} needs {folder}, which has no version: add a folder named 1")
        for version, asker in need.pins.items():
            if version not in present:
                there = ", ".join(map(str, present))
                raise ModelConfigError(
                    f"{asker} needs {folder / str(version)}, which is missing; versions there: {there}"
                )
        own = _policy_versions(config, present)
        if need.open_asker is not None:
            self._check_open(config, need, own)
        if set(need.pins) <= set(own):
            served, override = own, None
        else:
            served = tuple(sorted({*need.pins, *(own if need.open_asker is not None else ())}))
            override = _override(config, served)
        for version in served:
            self._check_artefact(config, folder / str(version))
        steps = tuple(dict.fromkeys(step.model_name for step in config.ensemble_scheduling.step))
        return ModelLoad(model, served, override, steps)

    def _check_open(self, config: ModelConfig, need: _Need, own: tuple[int, ...]) -> None:
        if not own:
            raise ModelConfigError(
                f"{self.path / config.name / CONFIG}: version_policy serves none of the versions that have a folder, and "
                f"{need.open_asker} names no version"
            )
        over = {version: asker for version, asker in need.pins.items() if version > own[-1]}
        if over:
            version, asker = max(over.items())
            raise ModelConfigError(
                f"{asker} pins version {version} of {config.name!r}, above version {own[-1]} that its version_policy gives "
                f"to {need.open_asker}, which would get {version} too: pin {config.name}/{own[-1]} there"
            )

    def _check_artefact(self, config: ModelConfig, folder: Path) -> None:
        backend = _backend(config, folder)
        name = config.default_model_filename or ARTEFACTS.get(backend, "")
        if not name or config.platform == "ensemble":
            return
        artefact = folder / name
        if not artefact.exists():
            raise ModelConfigError(f"{artefact} is missing: a model of backend {backend!r} is that file")
        if backend == "python":
            _check_python(artefact)

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


def _policy_versions(config: ModelConfig, present: tuple[int, ...]) -> tuple[int, ...]:
    """The versions, ascending, that the config's own policy serves; without one it is the latest."""
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return present
        case "specific":
            return tuple(version for version in present if version in policy.specific.versions)
        case _:
            return present[-(policy.latest.num_versions or 1) :]


def _override(config: ModelConfig, versions: tuple[int, ...]) -> str:
    content = json_format.MessageToDict(config, preserving_proto_field_name=True)
    content["version_policy"] = {"specific": {"versions": list(versions)}}
    return json.dumps(content, sort_keys=True)


def _backend(config: ModelConfig, folder: Path) -> str:
    if config.backend or config.platform:
        return str(config.backend or config.platform.removesuffix("_onnx"))
    return next((backend for backend, name in ARTEFACTS.items() if (folder / name).exists()), "")


def _located(error: Exception) -> bool:
    return isinstance(error, text_format.ParseError) and error.GetLine() is not None


def _check_python(path: Path) -> None:
    """Refuse a `model.py` that a stub cannot start from: the load would hang, or fail without a line."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise ModelConfigError(f"{path}:{error.lineno}: {error.msg}") from error
    except ValueError as error:
        raise ModelConfigError(f"{path}: {error}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == "TritonPythonModel":
            methods = (ast.FunctionDef, ast.AsyncFunctionDef)
            if node.bases or any(isinstance(item, methods) and item.name == "execute" for item in node.body):
                return
            raise ModelConfigError(
                f"{path}:{node.lineno}: class TritonPythonModel has no method execute(self, requests)"
            )
        if isinstance(node, ast.Import | ast.ImportFrom) and any(
            "TritonPythonModel" in (alias.name, alias.asname) for alias in node.names
        ):
            return
        if isinstance(node, ast.Name) and node.id == "TritonPythonModel" and isinstance(node.ctx, ast.Store):
            return
    raise ModelConfigError(f"{path}: there is no class TritonPythonModel, which Triton's Python backend looks for")
