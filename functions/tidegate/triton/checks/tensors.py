"""Inputs and outputs as the config declares them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tidegate.triton.checks.files import real, regular_size
from tidegate.triton.checks.folder import COMPLETED, ModelFolder, each_version
from tidegate.triton.model_config import CONFIG

ANY_SIZE = -1


def check_tensors(model: ModelFolder) -> None:
    """Check that inputs and outputs are declared, each once, and each in itself."""
    config, lines = model.message, model.config
    if config.max_batch_size < 0:
        message = f"max_batch_size is {config.max_batch_size}"
        model.report("batch-size", message, "say 0 for no batching", line=lines.line("max_batch_size"))
    if lines.whole():
        _check_declared(model)
    for kind in ("input", "output"):
        _check_names(model, kind)
        for number, tensor in enumerate(getattr(config, kind)):
            _check_tensor(model, kind, number, tensor)


def compatible(left: Sequence[int], right: Sequence[int]) -> bool:
    """Whether two shapes can be one: sizes are equal, or one of them is free."""
    return len(left) == len(right) and all(a == b or ANY_SIZE in (a, b) for a, b in zip(left, right, strict=True))


def completes(model: ModelFolder) -> bool:
    """Whether Triton can complete the inputs and outputs of the config: from the model, or by its own code."""
    if model.is_ensemble:
        return False
    if model.backend == "python":
        sources = (path for _, folder in each_version(model) for path in folder.glob("*.py"))
        return any(_mentions(path, b"auto_complete_config") for path in sources)
    # An unknown backend may complete configs too.
    return model.backend in COMPLETED or model.backend not in ("identity", "repeat", "square")


def _reads_nothing(model: ModelFolder) -> bool:
    """Whether a Python model needs no input: its code reads none, and Triton has no rows to count."""
    if model.backend != "python" or model.message.max_batch_size > 0:
        return False
    sources = [path for _, folder in each_version(model) for path in folder.rglob("*.py")]
    return not any(_mentions(path, word) for path in sources for word in (b"get_input_tensor_by_name", b".inputs("))


def _mentions(path: Path, word: bytes) -> bool:
    try:
        return regular_size(path) is not None and word in path.read_bytes()
    except OSError:
        return False


def _check_declared(model: ModelFolder) -> None:
    config, lines = model.message, model.config
    if completes(model) or (not lines.present and not model.versions):
        return
    if not lines.present:
        if not any(finding.kind == "config-missing" for finding in model.report.findings):
            message = f"there is no {CONFIG}, and Triton cannot complete one for backend {model.backend!r}"
            hint = f"write {CONFIG}, or give the class auto_complete_config" if model.backend == "python" else ""
            model.report("config-missing", message, hint, file="")
        return
    for kind in ("input", "output"):
        if not getattr(config, kind) and not (kind == "input" and _reads_nothing(model)):
            hint = f'{kind} [ {{ name: "…" data_type: TYPE_… dims: [ … ] }} ]'
            model.report("tensors-missing", f"no {kind} is declared", hint, line=1)


def _check_names(model: ModelFolder, kind: str) -> None:
    tensors = getattr(model.message, kind)
    named = sorted((tensor.name, number) for number, tensor in enumerate(tensors) if tensor.name)
    for name, group in groupby(named, key=lambda pair: pair[0]):
        first, *others = (number for _, number in group)
        for number in others:
            stands = model.config.line(kind, first, "name")
            line = model.config.line(kind, number, "name")
            model.report(
                "tensor-name", f"{kind} {name!r} is duplicated", f"it is declared first on line {stands}", line=line
            )


def _check_tensor(model: ModelFolder, kind: str, number: int, tensor: Any) -> None:
    place = (kind, number)
    whole = model.config.whole(*place)
    noun = f"{kind} {tensor.name!r}" if tensor.name else f"{kind} number {number + 1}"
    if not tensor.name and whole:
        model.report("tensor-name", f"{noun} has no name", "give it one", line=model.config.line(*place))
    if not tensor.data_type and whole:
        hint = "say data_type: TYPE_…"
        model.report("tensor-data-type", f"{noun} has no data_type", hint, line=model.config.line(*place, "data_type"))
    if not tensor.dims and whole:
        hint = "say dims: [ … ]; -1 is any size"
        model.report("tensor-dims", f"{noun} has no dims", hint, line=model.config.line(*place, "dims"))
    for position, size in enumerate(tensor.dims):
        if size < 1 and size != ANY_SIZE:
            line = model.config.line(*place, "dims", position)
            model.report("tensor-dims", f"{noun} has the dimension {size}", "sizes count from 1; -1 is any", line=line)
    _check_reshape(model, kind, number, tensor, noun)
    _check_options(model, kind, number, tensor, noun)
    if kind == "output" and tensor.label_filename:
        _check_labels(model, str(tensor.label_filename), model.config.line(*place, "label_filename"))


def _check_reshape(model: ModelFolder, kind: str, number: int, tensor: Any, noun: str) -> None:
    if not tensor.HasField("reshape"):
        return
    line = model.config.line(kind, number, "reshape")
    dims, shape = list(tensor.dims), list(tensor.reshape.shape)
    if any(size < 1 and size != ANY_SIZE for size in shape):
        model.report(
            "tensor-reshape", f"{noun}: reshape has a size below 1", "sizes count from 1; -1 is any", line=line
        )
    elif not shape and model.message.max_batch_size == 0:
        message = f"{noun}: an empty reshape needs batching"
        model.report("tensor-reshape", message, "write shape: [ 1 ]", line=line)
    elif all(size >= 1 or size == ANY_SIZE for size in dims) and _pieces(dims) != _pieces(shape):
        message = f"{noun}: dims {dims} and reshape {shape} do not hold the same elements"
        hint = "between the -1 of both the products must be equal" if ANY_SIZE in dims + shape else ""
        model.report("tensor-reshape", message, hint, line=line)


def _pieces(sizes: Sequence[int]) -> list[int]:
    """The element counts between the sizes that are free."""
    pieces: list[list[int]] = [[]]
    for size in sizes:
        if size == ANY_SIZE:
            pieces.append([])
        else:
            pieces[-1].append(size)
    return [math.prod(piece) for piece in pieces]


def _check_options(model: ModelFolder, kind: str, number: int, tensor: Any, noun: str) -> None:
    def refuse(name: str, message: str, hint: str) -> None:
        model.report("tensor-option", f"{noun}: {message}", hint, line=model.config.line(kind, number, name))

    for name in ("is_shape_tensor", "is_non_linear_format_io"):
        if getattr(tensor, name) and model.backend != "tensorrt":
            refuse(name, f"{name} is for TensorRT alone", "remove it")
    if kind == "output":
        return
    if tensor.format and len(tensor.dims) != 3:
        refuse("format", "an image format needs 3 dims", "remove format, or give 3 dims")
    if tensor.allow_ragged_batch and model.message.max_batch_size < 1:
        line = model.config.line(kind, number, "allow_ragged_batch")
        message = f"{noun}: allow_ragged_batch has nothing to join: max_batch_size is 0"
        model.report("batching-idle", message, "set max_batch_size, or remove it", line=line)
    if model.backend == "onnxruntime" and tensor.optional:
        if model.message.max_batch_size > 0:
            refuse("optional", "the ONNX backend has no optional inputs where it batches", "remove optional")
        elif tensor.allow_ragged_batch:
            refuse("optional", "an optional input cannot be ragged", "remove one of them")


def _check_labels(model: ModelFolder, name: str, line: int) -> None:
    path = model.path / name
    if not real(path).is_relative_to(real(model.path)):
        model.report("label-file", f"{name!r} is outside the model's folder", "put it into it", line=line)
    elif regular_size(path) is None:
        model.report("label-file", f"{name!r} is missing", f"it belongs beside {CONFIG}", line=line)
