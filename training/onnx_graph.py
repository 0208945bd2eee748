"""Small helpers to write and run ONNX graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 9
"""Both old enough for the ONNX Runtime in NVIDIA's images of 2024."""

FLOAT = TensorProto.FLOAT
INT64 = TensorProto.INT64

Array = npt.NDArray[Any]
Signature = Mapping[str, tuple[int, Sequence[int | str]]]
"""Tensors by name: element type and shape; a text is a free dimension."""


def node(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    """A node with one output."""
    return helper.make_node(operator, list(inputs), [output], **attributes)


def graph(
    name: str, nodes: Sequence[onnx.NodeProto], inputs: Signature, outputs: Signature, constants: Mapping[str, Array]
) -> bytes:
    """A checked model, serialized."""
    made = helper.make_graph(
        list(nodes),
        name,
        tensor_infos(inputs),
        tensor_infos(outputs),
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="tidegate"
    )
    return serialized(model)


def rewired(
    model: onnx.ModelProto,
    *,
    before: Sequence[onnx.NodeProto] = (),
    after: Sequence[onnx.NodeProto] = (),
    inputs: Signature,
    outputs: Signature,
    constants: Mapping[str, Array],
) -> bytes:
    """A model with nodes put before and after its own, and with another signature, checked and serialized."""
    wired = onnx.ModelProto()
    wired.CopyFrom(model)
    inner = wired.graph
    nodes = [*before, *inner.node, *after]
    del inner.node[:], inner.input[:], inner.output[:]
    inner.node.extend(nodes)
    inner.input.extend(tensor_infos(inputs))
    inner.output.extend(tensor_infos(outputs))
    inner.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    return serialized(wired)


def tensor_infos(signature: Signature) -> list[onnx.ValueInfoProto]:
    """A signature as ONNX writes it."""
    return [helper.make_tensor_value_info(name, kind, list(shape)) for name, (kind, shape) in signature.items()]


def serialized(model: onnx.ModelProto) -> bytes:
    """The bytes of a model, after ONNX's own check."""
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def session(model: bytes) -> onnxruntime.InferenceSession:
    """A session on one CPU thread, so that its sums do not depend on the machine's cores."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: bytes, **feeds: Array) -> Array:
    """The first output of a model for named inputs."""
    result: Array = np.asarray(session(model).run(None, feeds)[0])
    return result
