"""Inputs and outputs as the config declares them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from tidegate.model_layout import CONFIG
from tidegate.models.lint.files import real, regular_size
from tidegate.models.lint.folder import CheckedFolder, Field, report_duplicates

ANY_SIZE = -1


def check_tensors(model: CheckedFolder) -> None:
    config, text = model.config, model.text
    if config.max_batch_size < 0:
        message = f"max_batch_size is {config.max_batch_size}"
        model.report("batch-size", message, "say 0 for no batching", at=("max_batch_size",))
    if text.whole():
        _check_declared(model)
    for kind in ("input", "output"):
        report_duplicates(model.fields(kind), "tensor-name", kind)
        for tensor in model.fields(kind):
            _check_tensor(model, kind, tensor)


def compatible(left: Sequence[int], right: Sequence[int]) -> bool:
    """Return whether two shapes fit: sizes are equal, or one of them is free."""
    return len(left) == len(right) and all(a == b or ANY_SIZE in (a, b) for a, b in zip(left, right, strict=True))


def fits(shape: Sequence[int], dims: Sequence[int]) -> bool:
    """Return whether a shape is one that declared dims allow."""
    return len(shape) == len(dims) and all(want in (ANY_SIZE, have) for have, want in zip(shape, dims, strict=True))


def completes(model: CheckedFolder) -> bool:
    """Return whether Triton can complete the inputs and outputs of the config: from the model, or by the model's code."""
    if model.is_ensemble:
        return False
    if model.backend == "python":
        sources = (path for folder in model.version_paths.values() for path in folder.glob("*.py"))
        return any(_mentions(path, b"auto_complete_config") for path in sources)
    # An unknown backend may complete configs too.
    return model.backend not in ("identity", "repeat", "square")


def _reads_nothing(model: CheckedFolder) -> bool:
    """Return whether a Python model needs no input: its code reads none, and it does not batch."""
    if model.backend != "python" or model.config.max_batch_size > 0:
        return False
    sources = [path for folder in model.version_paths.values() for path in folder.rglob("*.py")]
    return not any(_mentions(path, word) for path in sources for word in (b"get_input_tensor_by_name", b".inputs("))


def _mentions(path: Path, word: bytes) -> bool:
    try:
        return regular_size(path) is not None and word in path.read_bytes()
    except OSError:
        return False


def _check_declared(model: CheckedFolder) -> None:
    config, text = model.config, model.text
    if completes(model) or (not text.present and not model.versions):
        return
    if not text.present:
        if not model.was_found("config-missing"):
            message = f"there is no {CONFIG}, and Triton cannot complete one for backend {model.backend!r}"
            hint = f"write {CONFIG}, or give the class auto_complete_config" if model.backend == "python" else ""
            model.report("config-missing", message, hint, file="")
        return
    for kind in ("input", "output"):
        if not getattr(config, kind) and not (kind == "input" and _reads_nothing(model)):
            hint = f'{kind} [ {{ name: "…" data_type: TYPE_… dims: [ … ] }} ]'
            model.report("tensors-missing", f"no {kind} is declared", hint, line=1)


def _check_tensor(model: CheckedFolder, kind: str, tensor: Field) -> None:
    value = tensor.value
    noun = f"{kind} {value.name!r}" if value.name else f"{kind} number {int(tensor.place[1]) + 1}"
    if tensor.whole:
        if not value.name:
            tensor.report("tensor-name", f"{noun} has no name", "give it one")
        if not value.data_type:
            tensor.report("tensor-data-type", f"{noun} has no data_type", "say data_type: TYPE_…", "data_type")
        if not value.dims:
            tensor.report("tensor-dims", f"{noun} has no dims", "say dims: [ … ]; -1 is any size", "dims")
    for position, size in enumerate(value.dims):
        if size < 1 and size != ANY_SIZE:
            message = f"{noun} has the dimension {size}"
            tensor.report("tensor-dims", message, "sizes count from 1; -1 is any", "dims", position)
    if value.HasField("reshape"):
        _check_reshape(model, tensor, noun)
    _check_options(model, kind, tensor, noun)
    if kind == "output" and value.label_filename:
        _check_labels(model, str(value.label_filename), tensor)


def _check_reshape(model: CheckedFolder, tensor: Field, noun: str) -> None:
    dims, shape = list(tensor.value.dims), list(tensor.value.reshape.shape)
    if any(size < 1 and size != ANY_SIZE for size in shape):
        message, hint = f"{noun}: reshape has a size below 1", "sizes count from 1; -1 is any"
    elif not shape and model.config.max_batch_size == 0:
        message, hint = f"{noun}: an empty reshape needs batching", "write shape: [ 1 ]"
    elif all(size >= 1 or size == ANY_SIZE for size in dims) and _pieces(dims) != _pieces(shape):
        message = f"{noun}: dims {dims} and reshape {shape} do not hold the same elements"
        hint = "between the -1 of both the products must be equal" if ANY_SIZE in dims + shape else ""
    else:
        return
    tensor.report("tensor-reshape", message, hint, "reshape")


def _pieces(sizes: Sequence[int]) -> list[int]:
    """Return the element counts between the sizes that are free."""
    pieces: list[list[int]] = [[]]
    for size in sizes:
        if size == ANY_SIZE:
            pieces.append([])
        else:
            pieces[-1].append(size)
    return [math.prod(piece) for piece in pieces]


def _check_options(model: CheckedFolder, kind: str, tensor: Field, noun: str) -> None:
    def refuse(name: str, message: str, hint: str) -> None:
        tensor.report("tensor-option", f"{noun}: {message}", hint, name)

    value = tensor.value
    for name in ("is_shape_tensor", "is_non_linear_format_io"):
        if getattr(value, name) and model.backend != "tensorrt":
            refuse(name, f"{name} is for TensorRT alone", "remove it")
    if kind == "output":
        return
    if value.format and len(value.dims) != 3:
        refuse("format", "an image format needs 3 dims", "remove format, or give 3 dims")
    if value.allow_ragged_batch and model.config.max_batch_size < 1:
        message = f"{noun}: allow_ragged_batch has nothing to join: max_batch_size is 0"
        tensor.report("batching-idle", message, "set max_batch_size, or remove it", "allow_ragged_batch")
    if model.backend == "onnxruntime" and value.optional:
        if model.config.max_batch_size > 0:
            refuse("optional", "the ONNX backend has no optional inputs where it batches", "remove optional")
        elif value.allow_ragged_batch:
            refuse("optional", "an optional input cannot be ragged", "remove one of them")


def _check_labels(model: CheckedFolder, name: str, tensor: Field) -> None:
    path = model.path / name
    if not real(path).is_relative_to(real(model.path)):
        message, hint = f"{name!r} is outside the model's folder", "put it into it"
    elif regular_size(path) is None:
        message, hint = f"{name!r} is missing", f"it belongs beside {CONFIG}"
    else:
        return
    tensor.report("label-file", message, hint, "label_filename")
