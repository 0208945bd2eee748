"""What a model's config and files say, and what of them would make Triton hang.

The layout: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md
"""

from __future__ import annotations

import ast
from codecs import BOM_UTF8
from collections.abc import Collection

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import TYPE_STRING, ModelConfig

from tidegate.errors import ModelConfigError
from tidegate.triton.python_code import may_have, may_set

CONFIG = "config.pbtxt"
WITHOUT_MARK = "save it as UTF-8 without one"
ARTEFACTS = {"python": "model.py", "onnxruntime": "model.onnx"}
"""The file that each backend looks for in a version's folder, unless the config says `default_model_filename`."""


def parse_config(text: bytes | None, model: str, place: str) -> ModelConfig:
    """A model's config; empty but for the name where there is no file (None), as Triton can complete it.

    Args:
        text: the content of its `config.pbtxt`.
        model: the name of its folder.
        place: the file, as messages name it.

    Raises:
        ModelConfigError: the file is no model config (with its line), or names another model.
    """
    config = ModelConfig()
    if text is not None:
        try:
            if text.startswith(BOM_UTF8):
                raise ValueError(f"it begins with a byte order mark, which Triton refuses: {WITHOUT_MARK}")
            text_format.Parse(text.decode(), config)
        except (text_format.ParseError, ValueError) as error:
            raise ModelConfigError(f"{place}:{error}" if _located(error) else f"{place}: {error}") from error
    if config.name not in ("", model):
        raise ModelConfigError(f"{place}: name is {config.name!r}, but the folder is {model!r}; make them the same")
    config.name = model
    return config


def policy_versions(config: ModelConfig, present: tuple[int, ...]) -> tuple[int, ...]:
    """The versions, ascending, that the config's own policy serves of those `present`; without one it is the latest."""
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return present
        case "specific":
            return tuple(version for version in present if version in policy.specific.versions)
        case "latest":
            return present[-policy.latest.num_versions :] if policy.latest.num_versions else ()
        case _:
            return present[-1:]


def has_text_ids(config: ModelConfig) -> bool:
    """Whether a model takes the correlation ID of a sequence as text."""
    controls = [control for each in config.sequence_batching.control_input for control in each.control]
    return any(
        control.kind == control.CONTROL_SEQUENCE_CORRID and control.data_type == TYPE_STRING for control in controls
    )


def artefact(config: ModelConfig, files: Collection[str], place: str) -> str | None:
    """The file that a version is, as its backend looks for it; None where the backend is none that is known here.

    Args:
        config: the model's config.
        files: the paths of the version's files, relative to its folder.
        place: the version's folder, as messages name it.

    Raises:
        ModelConfigError: the file is missing.
    """
    if config.platform == "ensemble":
        return None
    backend = config.backend or config.platform.removesuffix("_onnx")
    backend = backend or next((each for each, name in ARTEFACTS.items() if name in files), "")
    name = str(config.default_model_filename or ARTEFACTS.get(backend, ""))
    if not name:
        return None
    # An artefact may be a folder, as some ONNX models with external data are.
    if name not in files and not any(each.startswith(f"{name}/") for each in files):
        raise ModelConfigError(f"{place}/{name} is missing: a model of backend {backend!r} is that file")
    return name


def is_python(config: ModelConfig, name: str) -> bool:
    """Whether an artefact is code for Triton's Python backend."""
    return config.backend == "python" or (not config.backend and not config.platform and name == ARTEFACTS["python"])


def check_python(source: bytes, place: str) -> None:
    """Refuse a `model.py` that a stub cannot start from: the load would hang, or fail without a line.

    Raises:
        ModelConfigError: it does not parse, or has no class that Triton could call; with its line.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ModelConfigError(f"{place}:{error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        # The parser runs out of its stack, as Triton's stub would, on generated code.
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise ModelConfigError(f"{place}: {reason}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == "TritonPythonModel":
            is_open = node.bases or node.keywords or node.decorator_list
            if is_open or may_have(node, "execute") or may_set(tree, "execute"):
                return
            raise ModelConfigError(
                f"{place}:{node.lineno}: class TritonPythonModel has no method execute(self, requests)"
            )
        if isinstance(node, ast.Import | ast.ImportFrom) and any(
            "TritonPythonModel" in (alias.name, alias.asname) for alias in node.names
        ):
            return
        if isinstance(node, ast.Name) and node.id == "TritonPythonModel" and isinstance(node.ctx, ast.Store):
            return
    raise ModelConfigError(f"{place}: there is no class TritonPythonModel, which Triton's Python backend looks for")


def _located(error: Exception) -> bool:
    return isinstance(error, text_format.ParseError) and error.GetLine() is not None
