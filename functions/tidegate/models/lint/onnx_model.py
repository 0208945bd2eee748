"""Loads an ONNX model as Triton will, and compares it with its config as Triton does.

The conditions are those of the native backend (https://github.com/triton-inference-server/onnxruntime_backend,
`src/onnxruntime.cc`) and of the CPU stand-in that the local stack runs.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.language.words import did_you_mean
from tidegate.models.config import NO_TYPE, data_type
from tidegate.models.lint.files import is_pointer, real, regular_size
from tidegate.models.lint.folder import CheckedFolder, Field
from tidegate.models.lint.tensors import ANY_SIZE

LARGEST_LOADED_BYTES = 512 * 1024 * 1024
"""A larger model, with its external data, is not loaded into the runtime."""

THREADS = ("intra_op_thread_count", "inter_op_thread_count")

_TYPES = {
    "bool": "TYPE_BOOL", "double": "TYPE_FP64", "float": "TYPE_FP32", "float16": "TYPE_FP16", "bfloat16": "TYPE_BF16",
    "int8": "TYPE_INT8", "int16": "TYPE_INT16", "int32": "TYPE_INT32", "int64": "TYPE_INT64", "string": "TYPE_STRING",
    "uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16", "uint32": "TYPE_UINT32", "uint64": "TYPE_UINT64",
}  # fmt: skip
"""ONNX's and the runtime's names of types, in small letters, as data types of a config."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A value of an ONNX model. `data_type` is empty if it is not a tensor; `sizes` has -1 for free ones, and is None if
    unknown."""

    name: str
    data_type: str
    sizes: tuple[int, ...] | None
    words: str


def check_onnx(model: CheckedFolder) -> None:
    if model.backend != "onnxruntime":
        return
    _check_parameters(model)
    for version in model.versions:
        path = model.artefact(version)
        if path is not None and not path.is_dir() and not is_pointer(path) and regular_size(path) != 0:
            _check_file(model, path, f"{version}/{path.name}")


def _check_parameters(model: CheckedFolder) -> None:
    lines = dict(model.text.lines.entries("parameters"))
    for name in THREADS:
        if name in model.config.parameters:
            text = model.config.parameters[name].string_value
            if not text.isdecimal():
                message = f"{name} is {text!r}, which is not a count of threads"
                model.report("parameter", message, 'say string_value: "1"', line=lines.get(name, 0))


def _check_file(model: CheckedFolder, path: Path, file: str) -> None:
    try:
        import onnx
    except ImportError:
        message, hint = "the package onnx is not installed here", "pip install 'tidegate[local]'"
        model.report("onnx-unchecked", message, hint, file=file)
        return
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # noqa: BLE001  # protobuf, onnx and the file system share no narrower base
        message = f"this is not an ONNX model: {_first_line(error)}"
        model.report("onnx-unreadable", message, "export it again", file=file)
        return
    if not proto.graph.node and not proto.graph.output:
        model.report("onnx-unreadable", "this is not an ONNX model: it has no graph", "export it again", file=file)
        return
    data_bytes = _check_external_data(model, proto, path, file)
    if data_bytes is None:
        return
    _check_device(model, proto, file)
    described = _describe(model, proto, path, file, data_bytes)
    if described is not None:
        inputs, outputs = described
        _compare(model, "input", inputs, file)
        _compare(model, "output", outputs, file)


def _check_external_data(model: CheckedFolder, proto: Any, path: Path, file: str) -> int | None:
    """Return the size of a model's external data in bytes; None if some of it is missing."""
    from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data

    places: dict[str, int] = {}
    for tensor in _get_all_tensors(proto):
        if uses_external_data(tensor):
            info = ExternalDataInfo(tensor)
            places[info.location] = max(places.get(info.location, 0), (info.offset or 0) + (info.length or 0))
    is_whole = True
    for place, needed in sorted(places.items()):
        target = path.parent / place
        size = regular_size(target)
        problem = None
        if Path(place).is_absolute() or not real(target).is_relative_to(real(path.parent)):
            problem = "outside the version's folder"
        elif size is None or size < needed:
            problem = "missing" if size is None else f"only {size} of {needed} bytes"
        if problem is not None:
            hint = "keep it in the version's folder, and export the model with a relative location"
            model.report("onnx-external-data", f"its external data {place!r} is {problem}", hint, file=file)
        is_whole = is_whole and problem is None and not is_pointer(target)
    return sum(places.values()) if is_whole else None


def _check_device(model: CheckedFolder, proto: Any, file: str) -> None:
    groups = model.config.instance_group
    on_cpu = bool(groups) and all(group.kind == group.KIND_CPU for group in groups)
    operators = sorted({node.op_type for node in proto.graph.node if node.domain == "ai.onnx.ml"})
    if operators and not on_cpu and model.text.present:
        message = f"{', '.join(operators[:3])} in {file} have no CUDA kernel"
        model.report("onnx-device", message, "say kind: KIND_CPU", at=("instance_group", 0, "kind"))


def _describe(
    model: CheckedFolder, proto: Any, path: Path, file: str, data_bytes: int
) -> tuple[Mapping[str, Signature], Mapping[str, Signature]] | None:
    """Return the inputs and outputs of a model, from the runtime if possible; None if the model does not load."""
    custom = bool(model.config.model_operations.op_library_filename)
    size_bytes = (regular_size(path) or 0) + data_bytes
    try:
        import onnxruntime
    except ImportError:
        return _from_file(model, proto, file)
    if custom or size_bytes > LARGEST_LOADED_BYTES:
        return _from_file(model, proto, file)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        # It prints on standard output, which is for results.
        with contextlib.redirect_stdout(io.StringIO()):
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  # the ONNX runtime's exceptions share no narrower base
        _report_refusal(model, str(error), file)
        return None
    return _from_session(session.get_inputs()), _from_session(session.get_outputs())


def _report_refusal(model: CheckedFolder, problem: str, file: str) -> None:
    if match := re.search(r"Opset (\d+).*?(?:till|until) opset (\d+)", problem, re.DOTALL):
        message = f"it uses opset {match[1]}, the runtime here knows {match[2]}"
        model.report("onnx-version", message, f"export it with opset {match[2]} or older", file=file)
    elif match := re.search(r"model IR version: (\d+), max supported IR version: (\d+)", problem):
        message = f"it has the IR version {match[1]}, the runtime here knows {match[2]}"
        model.report("onnx-version", message, f"save it with ir_version {match[2]} or older", file=file)
    else:
        model.report("onnx-unreadable", f"the runtime refuses it: {_first_line(problem)}", "export it again", file=file)


def _from_session(nodes: Sequence[Any]) -> Mapping[str, Signature]:
    found = {}
    for node in nodes:
        match = re.fullmatch(r"tensor\((\w+)\)", node.type)
        sizes = tuple(size if isinstance(size, int) and size >= 0 else ANY_SIZE for size in node.shape)
        found[node.name] = Signature(node.name, _TYPES.get(match[1], "") if match else "", sizes, node.type)
    return found


def _from_file(
    model: CheckedFolder, proto: Any, file: str
) -> tuple[Mapping[str, Signature], Mapping[str, Signature]] | None:
    from onnx import defs

    newest = defs.onnx_opset_version()
    for opset in proto.opset_import:
        if opset.domain in ("", "ai.onnx") and opset.version > newest:
            message = f"it uses opset {opset.version}, onnx here knows {newest}"
            model.report("onnx-version", message, f"export it with opset {newest} or older", file=file)
            return None
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = [node for node in proto.graph.input if node.name not in constants]
    return _from_values(inputs), _from_values(proto.graph.output)


def _from_values(values: Sequence[Any]) -> Mapping[str, Signature]:
    from onnx import TensorProto

    names = {number: name.lower() for name, number in TensorProto.DataType.items()}
    found = {}
    for value in values:
        kind = value.type.WhichOneof("value") or ""
        tensor = value.type.tensor_type
        sizes = None
        if kind == "tensor_type" and tensor.HasField("shape"):
            sizes = tuple(each.dim_value if each.HasField("dim_value") else ANY_SIZE for each in tensor.shape.dim)
        data_type = _TYPES.get(names.get(tensor.elem_type, ""), "") if kind == "tensor_type" else ""
        found[value.name] = Signature(value.name, data_type, sizes, kind)
    return found


def _compare(model: CheckedFolder, kind: str, there: Mapping[str, Signature], file: str) -> None:
    declared = [each for each in model.fields(kind) if each.value.name]
    if not declared or not model.text.whole():
        return
    for tensor in declared:
        name = tensor.value.name
        if name in there:
            _compare_tensor(model, kind, tensor, there[name], file)
        else:
            tensor.report("onnx-tensor", f"{file} has no {kind} {name!r}", did_you_mean(name, set(there), kind), "name")
    if kind == "input" and len(there) != len(model.config.input):
        for name in there.keys() - model.input_names:
            model.report("onnx-tensor", f"input {name!r} of {file} is not declared", "declare it", at=("input",))


def _compare_tensor(model: CheckedFolder, kind: str, tensor: Field, there: Signature, file: str) -> None:
    value, name, noun = tensor.value, data_type(tensor.value), f"{kind} {tensor.value.name!r}"
    if not there.data_type:
        message = f"{noun} of {file} is a {there.words}, which Triton cannot serve"
        hint = "export classifiers without ZipMap (skl2onnx: zipmap=False)" if kind == "output" else ""
        tensor.report("onnx-data-type", message, hint, "data_type")
        return
    if there.data_type != name != NO_TYPE:
        message = f"{noun} is {name}, {file} has {there.data_type}"
        tensor.report("onnx-data-type", message, f"say {there.data_type}", "data_type")
    is_ragged = kind == "input" and value.allow_ragged_batch
    is_spread = any(value.name in each.target_name for each in model.config.batch_output)
    if value.dims and not is_ragged and not is_spread:
        _compare_shape(model, kind, tensor, there, file)
    lacks = "ragged batches" if is_ragged else None
    if value.HasField("reshape"):
        lacks = "reshape"
    if kind == "input" and value.optional:
        lacks = "optional inputs"
    if lacks is not None:
        message = f"{noun}: the CPU stand-in of the local stack has no {lacks}"
        tensor.report("onnx-local", message, "it loads on the native backend alone")


def _compare_shape(model: CheckedFolder, kind: str, tensor: Field, there: Signature, file: str) -> None:
    value, sizes, batches = tensor.value, there.sizes, model.config.max_batch_size > 0
    noun = f"{kind} {value.name!r}"
    dims = list(value.reshape.shape) if value.HasField("reshape") else list(value.dims)
    if sizes is None or any(size == 0 or size < ANY_SIZE for size in dims):
        return
    full = [ANY_SIZE, *dims] if batches else dims
    if batches and sizes[:1] != (ANY_SIZE,):
        message = f"{noun} of {file} has the shape {list(sizes)}: to batch, its first size must be free"
        hint = "export it with a dynamic batch, or set max_batch_size: 0"
    elif not sizes:
        if all(size == 1 for size in dims):
            return
        message, hint = f"{noun} of {file} is a scalar", "say dims: [ 1 ]"
    # As the backend does: an input may be narrower than the model, an output must be what the model says.
    elif len(full) == len(sizes) and all(
        have == want or (kind == "input" and have == ANY_SIZE) for have, want in zip(sizes, full, strict=True)
    ):
        return
    else:
        message = f"{noun} has the shape {full}, {file} has {list(sizes)}"
        hint = f"say dims: {list(sizes[1:] if batches else sizes)}"
        if not batches and len(sizes) == len(dims) + 1 and sizes[0] == ANY_SIZE:
            hint = "set max_batch_size: the first size of the model is the batch"
        elif batches and dims == list(sizes):
            hint = f"{hint}; the batch is not part of dims"
    tensor.report("onnx-shape", message, hint, "dims")


def _first_line(problem: object) -> str:
    text = str(problem).strip() or type(problem).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text.splitlines()[0])
    return text[:240]
