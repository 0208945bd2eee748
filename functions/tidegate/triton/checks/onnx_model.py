"""An ONNX model and its config: both are loaded here, as Triton will load them, and compared as Triton compares them.

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

from tidegate.rules.shape import did_you_mean
from tidegate.triton.checks.files import is_pointer, real, regular_size
from tidegate.triton.checks.folder import ModelFolder, each_version
from tidegate.triton.checks.tensors import ANY_SIZE

LARGEST_LOADED_BYTES = 512 * 1024 * 1024
"""What is larger, with its external data, is described by its file alone and not loaded into the runtime."""

THREADS = ("intra_op_thread_count", "inter_op_thread_count")

_TYPES = {
    1: "TYPE_FP32", 2: "TYPE_UINT8", 3: "TYPE_INT8", 4: "TYPE_UINT16", 5: "TYPE_INT16", 6: "TYPE_INT32",
    7: "TYPE_INT64", 8: "TYPE_STRING", 9: "TYPE_BOOL", 10: "TYPE_FP16", 11: "TYPE_FP64", 12: "TYPE_UINT32",
    13: "TYPE_UINT64", 16: "TYPE_BF16",
}  # fmt: skip
"""onnx.TensorProto.DataType as data types of a config."""

_RUNTIME_TYPES = {
    "bool": "TYPE_BOOL", "double": "TYPE_FP64", "float": "TYPE_FP32", "float16": "TYPE_FP16", "bfloat16": "TYPE_BF16",
    "int8": "TYPE_INT8", "int16": "TYPE_INT16", "int32": "TYPE_INT32", "int64": "TYPE_INT64", "string": "TYPE_STRING",
    "uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16", "uint32": "TYPE_UINT32", "uint64": "TYPE_UINT64",
}  # fmt: skip
"""The runtime's names of types as data types of a config."""


@dataclass(frozen=True, slots=True)
class Signature:
    """A tensor of an ONNX model. `data_type` is empty where it is no tensor; `sizes` has -1 for free ones, and is None
    where the model does not say."""

    name: str
    data_type: str
    sizes: tuple[int, ...] | None
    words: str


def check_onnx(model: ModelFolder) -> None:
    """Check every version of an ONNX model."""
    if model.backend != "onnxruntime":
        return
    _check_parameters(model)
    for version, _ in each_version(model):
        path = model.artefact(version)
        if path is None or is_pointer(path) or regular_size(path) == 0:
            continue
        file = f"{version}/{path.name}"
        if path.is_dir():
            continue
        _check_file(model, path, file)


def _check_parameters(model: ModelFolder) -> None:
    entries = {key: line for key, _, line in model.config.lines.entries("parameters")}
    for name in THREADS:
        if name in model.message.parameters:
            text = model.message.parameters[name].string_value
            if not text.isdecimal():
                message = f"{name} is {text!r}, which is no count of threads"
                model.report("parameter", message, 'say string_value: "1"', line=entries.get(name, 0))


def _check_file(model: ModelFolder, path: Path, file: str) -> None:
    try:
        import onnx
    except ImportError:
        model.report(
            "onnx-unchecked", "the package onnx is not installed here", "pip install 'tidegate[local]'", file=file
        )
        return
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # noqa: BLE001  # protobuf, onnx and the file system share no narrower base
        model.report("onnx-unreadable", f"this is no ONNX model: {_first_line(error)}", "export it again", file=file)
        return
    if not proto.graph.node and not proto.graph.output:
        model.report("onnx-unreadable", "this is no ONNX model: it has no graph", "export it again", file=file)
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


def _check_external_data(model: ModelFolder, proto: Any, path: Path, file: str) -> int | None:
    """The size of a model's external data in bytes; None where some of it is not there."""
    from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data

    places: dict[str, int] = {}
    for tensor in _get_all_tensors(proto):
        if uses_external_data(tensor):
            info = ExternalDataInfo(tensor)
            places[info.location] = max(places.get(info.location, 0), (info.offset or 0) + (info.length or 0))
    sound = True
    for place, needed in sorted(places.items()):
        target = path.parent / place
        outside = Path(place).is_absolute() or not real(target).is_relative_to(real(path.parent))
        size = None if outside else regular_size(target)
        if size is None or size < needed:
            sound = False
            hint = "keep it in the version's folder, and export the model with a relative location"
            problem = (
                "outside the version's folder"
                if outside
                else f"only {size} of {needed} bytes"
                if size is not None
                else "missing"
            )
            model.report("onnx-external-data", f"its external data {place!r} is {problem}", hint, file=file)
        elif is_pointer(target):
            sound = False
    return sum(places.values()) if sound else None


def _check_device(model: ModelFolder, proto: Any, file: str) -> None:
    groups = model.message.instance_group
    on_cpu = bool(groups) and all(group.kind == group.KIND_CPU for group in groups)
    operators = sorted({node.op_type for node in proto.graph.node if node.domain == "ai.onnx.ml"})
    if operators and not on_cpu and model.config.present:
        message = f"{', '.join(operators[:3])} in {file} have no CUDA kernel"
        model.report("onnx-device", message, "say kind: KIND_CPU", line=model.config.line("instance_group", 0, "kind"))


def _describe(
    model: ModelFolder, proto: Any, path: Path, file: str, data_bytes: int
) -> tuple[Mapping[str, Signature], Mapping[str, Signature]] | None:
    """The tensors of a model, as the runtime sees them where it can; None where the model does not load."""
    custom = bool(model.message.model_operations.op_library_filename)
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
        # It prints what it tries next on standard output, which is for results.
        with contextlib.redirect_stdout(io.StringIO()):
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  # the ONNX runtime's exceptions share no narrower base
        _report_refusal(model, str(error), file)
        return None
    return _from_session(session.get_inputs()), _from_session(session.get_outputs())


def _report_refusal(model: ModelFolder, problem: str, file: str) -> None:
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
        found[node.name] = Signature(node.name, _RUNTIME_TYPES.get(match[1], "") if match else "", sizes, node.type)
    return found


def _from_file(
    model: ModelFolder, proto: Any, file: str
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
    found = {}
    for value in values:
        kind = value.type.WhichOneof("value") or ""
        tensor = value.type.tensor_type
        sizes = None
        if kind == "tensor_type" and tensor.HasField("shape"):
            sizes = tuple(each.dim_value if each.HasField("dim_value") else ANY_SIZE for each in tensor.shape.dim)
        data_type = _TYPES.get(tensor.elem_type, "") if kind == "tensor_type" else ""
        found[value.name] = Signature(value.name, data_type, sizes, kind)
    return found


def _compare(model: ModelFolder, kind: str, there: Mapping[str, Signature], file: str) -> None:
    declared = getattr(model.message, kind)
    if not declared or not model.config.whole():
        return
    for number, tensor in enumerate(declared):
        if not tensor.name:
            continue
        if tensor.name not in there:
            hint = did_you_mean(tensor.name, set(there), kind)
            line = model.config.line(kind, number, "name")
            model.report("onnx-tensor", f"{file} has no {kind} {tensor.name!r}", hint, line=line)
        else:
            _compare_tensor(model, kind, number, tensor, there[tensor.name], file)
    if kind == "input":
        names = {tensor.name for tensor in declared} | model.input_names
        for name in there:
            if name not in names and len(there) != len(declared):
                message = f"input {name!r} of {file} is not declared"
                model.report("onnx-tensor", message, "declare it", line=model.config.line("input"))


def _compare_tensor(model: ModelFolder, kind: str, number: int, tensor: Any, there: Signature, file: str) -> None:
    line = model.config.line(kind, number, "data_type")
    types = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    name = types[tensor.data_type].name if tensor.data_type in types else ""
    if not there.data_type:
        message = f"{kind} {tensor.name!r} of {file} is a {there.words}, which Triton cannot serve"
        hint = "export classifiers without ZipMap (skl2onnx: zipmap=False)" if kind == "output" else ""
        model.report("onnx-data-type", message, hint, line=line)
        return
    if tensor.data_type and there.data_type != name:
        message = f"{kind} {tensor.name!r} is {name}, {file} has {there.data_type}"
        model.report("onnx-data-type", message, f"say {there.data_type}", line=line)
    _compare_shape(model, kind, number, tensor, there, file)
    if tensor.optional if kind == "input" else False:
        lacks = "optional inputs"
    elif tensor.HasField("reshape"):
        lacks = "reshape"
    elif kind == "input" and tensor.allow_ragged_batch:
        lacks = "ragged batches"
    else:
        return
    message = f"{kind} {tensor.name!r}: the CPU stand-in of the local stack has no {lacks}"
    model.report("onnx-local", message, "it loads on the native backend alone", line=model.config.line(kind, number))


def _compare_shape(model: ModelFolder, kind: str, number: int, tensor: Any, there: Signature, file: str) -> None:
    ragged = kind == "input" and tensor.allow_ragged_batch
    spread = any(tensor.name in each.target_name for each in model.message.batch_output)
    if there.sizes is None or not tensor.dims or ragged or spread:
        return
    dims = list(tensor.reshape.shape) if tensor.HasField("reshape") else list(tensor.dims)
    if any(size == 0 or size < ANY_SIZE for size in dims):
        return
    line = model.config.line(kind, number, "dims")
    batches, sizes = model.message.max_batch_size > 0, there.sizes
    if batches and sizes[:1] != (ANY_SIZE,):
        message = f"{kind} {tensor.name!r} of {file} has the shape {list(sizes)}: to batch, its first size must be free"
        model.report("onnx-shape", message, "export it with a dynamic batch, or set max_batch_size: 0", line=line)
        return
    full = [ANY_SIZE, *dims] if batches else dims
    if not sizes:
        if any(size != 1 for size in dims):
            message = f"{kind} {tensor.name!r} of {file} is a scalar"
            model.report("onnx-shape", message, "say dims: [ 1 ]", line=line)
        return
    # As the backend does: an input may be narrower than the model, an output must be what the model says.
    fits = len(full) == len(sizes) and all(
        have == want or (kind == "input" and have == ANY_SIZE) for have, want in zip(sizes, full, strict=True)
    )
    if not fits:
        row = list(sizes[1:]) if batches else list(sizes)
        hint = f"say dims: {row}"
        if not batches and len(sizes) == len(dims) + 1 and sizes[0] == ANY_SIZE:
            hint = "set max_batch_size: the first size of the model is the batch"
        elif batches and dims == list(sizes):
            hint = f"{hint}; the batch is not part of dims"
        message = f"{kind} {tensor.name!r} has the shape {full}, {file} has {list(sizes)}"
        model.report("onnx-shape", message, hint, line=line)


def _first_line(problem: object) -> str:
    text = str(problem).strip() or type(problem).__name__
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text.splitlines()[0])
    return text[:240]
