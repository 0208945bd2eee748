"""Warm-up requests: one that does not fit the inputs blocks the load."""

from __future__ import annotations

import math
from typing import Any

from tidegate.rules.shape import did_you_mean
from tidegate.triton.checks.files import regular_size
from tidegate.triton.checks.folder import ModelFolder, by_name
from tidegate.triton.checks.tensors import ANY_SIZE

ELEMENT_BYTES = {
    "TYPE_BOOL": 1,
    "TYPE_UINT8": 1,
    "TYPE_INT8": 1,
    "TYPE_UINT16": 2,
    "TYPE_INT16": 2,
    "TYPE_FP16": 2,
    "TYPE_BF16": 2,
    "TYPE_UINT32": 4,
    "TYPE_INT32": 4,
    "TYPE_FP32": 4,
    "TYPE_UINT64": 8,
    "TYPE_INT64": 8,
    "TYPE_FP64": 8,
}
FOLDER = "warmup"


def check_warmup(model: ModelFolder) -> None:
    """Check every warm-up against the declared inputs; an ensemble must have none, which is checked elsewhere."""
    if model.is_ensemble or not model.message.input:
        return
    for number, warmup in enumerate(model.message.model_warmup):
        _check_one(model, number, warmup)


def _check_one(model: ModelFolder, number: int, warmup: Any) -> None:
    place = ("model_warmup", number)
    line = model.config.line(*place)
    noun = f"warm-up {warmup.name!r}" if warmup.name else f"warm-up number {number + 1}"
    most = max(1, model.message.max_batch_size)
    if warmup.batch_size == 0 and model.config.whole(*place):
        model.report("warmup", f"{noun} has batch_size 0: Triton skips it", "say batch_size: 1", line=line)
    elif warmup.batch_size > most:
        at = model.config.line(*place, "batch_size")
        model.report("warmup", f"{noun} has batch_size {warmup.batch_size}", f"at most {most}", line=at)
    declared = by_name(model.message.input)
    entries = {key: at for key, _, at in model.config.lines.entries(*place, "inputs")}
    for name in warmup.inputs:
        at = entries.get(name, line)
        if name in declared:
            _check_input(model, warmup.inputs[name], declared[name], f"{noun}: input {name!r}", at)
        elif name not in model.input_names:
            hint = did_you_mean(name, set(declared), "input")
            model.report("warmup", f"{noun} gives {name!r}, which is no input", hint, line=at)
    for order, (name, tensor) in enumerate(declared.items()):
        whole = model.config.whole(*place) and model.config.whole("input", order)
        if name not in warmup.inputs and not tensor.optional and whole:
            model.report("warmup", f"{noun} leaves out input {name!r}", "give every input", line=line)


def _check_input(model: ModelFolder, given: Any, declared: Any, noun: str, line: int) -> None:
    dims, wanted = list(given.dims), list(declared.dims)
    types = declared.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    if given.data_type != declared.data_type and declared.data_type:
        name, right = types[given.data_type].name, types[declared.data_type].name
        model.report("warmup", f"{noun} has {name}, declared is {right}", f"say {right}", line=line)
    if any(size < 1 for size in dims):
        hint = "name a size: there is no free one in a warm-up"
        model.report("warmup", f"{noun} has the dims {dims}", hint, line=line)
    elif len(dims) != len(wanted) or any(b not in (a, ANY_SIZE) for a, b in zip(dims, wanted, strict=False)):
        hint = "dims are those of one row, without the batch" if len(dims) == len(wanted) + 1 else ""
        model.report("warmup", f"{noun} has the dims {dims}, declared are {wanted}", hint, line=line)
    match given.WhichOneof("input_data_type"):
        case None:
            model.report("warmup", f"{noun} has no data", "say zero_data: true, or random_data: true", line=line)
        case "input_data_file":
            size_bytes = ELEMENT_BYTES.get(types[given.data_type].name, 0) * math.prod(dims)
            _check_file(model, str(given.input_data_file), noun, size_bytes, line)
        case _:
            pass


def _check_file(model: ModelFolder, name: str, noun: str, size_bytes: int, line: int) -> None:
    size = regular_size(model.path / FOLDER / name)
    if size is None:
        model.report("warmup", f"{noun}: {FOLDER}/{name} is missing", f"it belongs into {FOLDER}/", line=line)
    elif size < size_bytes:
        model.report("warmup", f"{noun}: {FOLDER}/{name} has {size} bytes", f"it needs {size_bytes}", line=line)
