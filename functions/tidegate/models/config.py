"""Reads models' configs, and refuses files that would make Triton hang.

The layout: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md
"""

from __future__ import annotations

import ast
from codecs import BOM_UTF8
from collections.abc import Collection, Iterable
from typing import Any

from google.protobuf import text_format

from tidegate.errors import ModelConfigError
from tidegate.models.python_code import may_have, may_set
from tidegate.models.schema import TYPE_STRING, ModelConfig

WITHOUT_MARK = "save it as UTF-8 without one"
NO_TYPE = "TYPE_INVALID"
ARTEFACTS = {"python": "model.py", "onnxruntime": "model.onnx"}
"""The file that a backend loads from a version's folder, unless the config has `default_model_filename`."""


def parse_config(text: bytes | None, model: str, place: str) -> ModelConfig:
    """Return a model's config; with the name alone if there is no file (None), as Triton can complete it.

    Args:
        text: the content of its `config.pbtxt`.
        model: the name of its folder.
        place: the file, for messages.

    Raises:
        ModelConfigError: the file is malformed (the message has the line), or names another model.
    """
    config = ModelConfig()
    if text is not None:
        try:
            if text.startswith(BOM_UTF8):
                raise ValueError(f"it begins with a byte order mark, which Triton refuses: {WITHOUT_MARK}")
            text_format.Parse(text.decode(), config)
        except (text_format.ParseError, ValueError) as error:
            # The message of a located error begins with its line.
            is_located = isinstance(error, text_format.ParseError) and error.GetLine() is not None
            raise ModelConfigError(f"{place}:{error}" if is_located else f"{place}: {error}") from error
    if config.name not in ("", model):
        raise ModelConfigError(f"{place}: name is {config.name!r}, but the folder is {model!r}; make them the same")
    config.name = model
    return config


def policy_versions(config: ModelConfig, present: tuple[int, ...]) -> tuple[int, ...]:
    """Return the versions, ascending, that the config's policy serves of those `present`; by default the latest."""
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


def data_type(tensor: Any) -> str:
    """Return the name of a declared data type, such as `TYPE_FP32`; `NO_TYPE` if it has none."""
    known = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return str(known[tensor.data_type].name) if tensor.data_type in known else NO_TYPE


def is_decoupled(closure: Iterable[ModelConfig]) -> bool:
    """Return whether a model has decoupled responses, so that Triton refuses `infer`: whether it, or a step of it, says so.

    `closure` has the configs of the model and of everything that it calls. An ensemble's own policy has no effect.
    """
    return any(
        config.model_transaction_policy.decoupled
        for config in closure
        if config.platform != "ensemble" and not config.HasField("ensemble_scheduling")
    )


def has_text_ids(config: ModelConfig) -> bool:
    controls = [control for each in config.sequence_batching.control_input for control in each.control]
    return any(
        control.kind == control.CONTROL_SEQUENCE_CORRID and control.data_type == TYPE_STRING for control in controls
    )


def artefact(config: ModelConfig, files: Collection[str], place: str) -> str | None:
    """Return the file that the backend loads of a version; None for an unknown backend.

    Args:
        config: the model's config.
        files: the paths of the version's files, relative to its folder.
        place: the version's folder, for messages.

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
    # It may be a folder, as for some ONNX models with external data.
    if name not in files and not any(each.startswith(f"{name}/") for each in files):
        raise ModelConfigError(f"{place}/{name} is missing: a model of backend {backend!r} is that file")
    return name


def is_python(config: ModelConfig, name: str) -> bool:
    return config.backend == "python" or (not config.backend and not config.platform and name == ARTEFACTS["python"])


def check_python(source: bytes, place: str) -> None:
    """Refuse a `model.py` with which the load would hang, or fail without a line.

    Raises:
        ModelConfigError: it does not parse, or has no class that Triton could call; the message has the line.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ModelConfigError(f"{place}:{error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        # Generated code can exhaust the parser's stack, here and in Triton's stub.
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
