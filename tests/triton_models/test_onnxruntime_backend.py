"""The CPU stand-in of Triton's `onnxruntime` backend, on the real Triton with small models made here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException

from .conftest import Server
from .test_isolation import WAIT_US, at_once, met

Node = tuple[str, Sequence[str], str]
Info = tuple[str, int, Sequence[int | str]]
Put = Callable[..., str]

FLOAT, HALF, TEXT, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.STRING, TensorProto.INT64


def onnx_model(nodes: Sequence[Node], inputs: Sequence[Info], outputs: Sequence[Info], **constants: Any) -> bytes:
    made = helper.make_graph(
        [helper.make_node(operator, list(sources), [target]) for operator, sources, target in nodes],
        "small",
        [helper.make_tensor_value_info(*info) for info in inputs],
        [helper.make_tensor_value_info(*info) for info in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def tensors(kind: str, *items: tuple[str, str, str]) -> str:
    return "".join(
        f'{kind} [ {{ name: "{name}" data_type: TYPE_{data_type} dims: [ {dims} ] }} ]\n'
        for name, data_type, dims in items
    )


DOUBLE = onnx_model(
    [("Add", ["X", "X"], "TWICE"), ("Mul", ["TWICE", "TWICE"], "SQUARE")],
    [("X", FLOAT, ["batch", "n"])],
    [("TWICE", FLOAT, ["batch", "n"]), ("SQUARE", FLOAT, ["batch", "n"])],
)
X = tensors("input", ("X", "FP32", "-1"))
TWICE = tensors("output", ("TWICE", "FP32", "-1"))
SQUARE = tensors("output", ("SQUARE", "FP32", "-1"))
MEETING = f"dynamic_batching {{ max_queue_delay_microseconds: {WAIT_US} preferred_batch_size: [ 2 ] }}\n"


@pytest.fixture
def put(server: Server, extra_models: Path, request: pytest.FixtureRequest) -> Put:
    """Puts a model into the server's second repository; it is removed after the test."""

    def write(name: str, data: bytes, config: str, file: str = "model.onnx", batch: int = 8) -> str:
        folder = extra_models / name
        (folder / "1").mkdir(parents=True)
        request.addfinalizer(lambda: shutil.rmtree(folder))
        request.addfinalizer(lambda: server.client.unload_model(name))
        (folder / "1" / file).write_bytes(data)
        head = f'name: "{name}"\nbackend: "onnxruntime"\nmax_batch_size: {batch}\n'
        (folder / "config.pbtxt").write_text(head + "instance_group [ { kind: KIND_AUTO count: 1 } ]\n" + config)
        return name

    return write


def fp32(*rows: list[float]) -> dict[str, np.ndarray[Any, Any]]:
    return {"X": np.array(rows, np.float32)}


def test_outputs_are_what_the_configuration_names(server: Server, put: Put) -> None:
    server.load(put("one_output", DOUBLE, X + SQUARE))
    answer = server.infer("one_output", fp32([1, 2], [3, 4]))
    assert {name: array.tolist() for name, array in answer.items()} == {"SQUARE": [[4, 16], [36, 64]]}


def test_another_file_name_is_honoured(server: Server, put: Put) -> None:
    server.load(put("renamed", DOUBLE, X + TWICE + 'default_model_filename: "best.onnx"\n', file="best.onnx"))
    assert server.infer("renamed", fp32([1]))["TWICE"].tolist() == [[2]]


def test_requests_of_equal_shape_run_as_one_batch_and_of_unequal_shape_do_not(server: Server, put: Put) -> None:
    model = put("meeting", DOUBLE, X + TWICE + MEETING)
    server.load(model)
    first, second = at_once(server, [(model, fp32([1, 2]), {}), (model, fp32([3, 4]), {})])
    assert (first["TWICE"].tolist(), second["TWICE"].tolist()) == ([[2, 4]], [[6, 8]])
    assert met(server, model)
    short, long = at_once(server, [(model, fp32([1]), {}), (model, fp32([1, 2, 3]), {})])
    assert (short["TWICE"].tolist(), long["TWICE"].tolist()) == ([[2]], [[2, 4, 6]])


def test_a_request_that_fails_does_not_fail_its_neighbour(server: Server, put: Put) -> None:
    gather = onnx_model(
        [("Gather", ["table", "I"], "Y")],
        [("I", INT64, ["batch", 1])],
        [("Y", FLOAT, ["batch", 1])],
        table=np.array([5, 6], np.float32),
    )
    config = tensors("input", ("I", "INT64", "1")) + tensors("output", ("Y", "FP32", "1")) + MEETING
    model = put("gather", gather, config)
    server.load(model)
    good, bad = at_once(server, [(model, {"I": np.array([[1]])}, {}), (model, {"I": np.array([[9]])}, {})])
    assert good["Y"].tolist() == [[6]]
    assert isinstance(bad, InferenceServerException)
    assert "out of data bounds" in str(bad)
    assert met(server, model)


def test_texts_pass_in_and_out(server: Server, put: Put) -> None:
    echo = onnx_model([("Identity", ["T"], "U")], [("T", TEXT, ["batch", 2])], [("U", TEXT, ["batch", 2])])
    server.load(put("texts", echo, tensors("input", ("T", "STRING", "2")) + tensors("output", ("U", "STRING", "2"))))
    sent = np.array([["Amélie".encode(), b""]], np.object_)
    assert server.infer("texts", {"T": sent})["U"].tolist() == sent.tolist()
    with pytest.raises(InferenceServerException, match="input 'T' has text that is not UTF-8"):
        server.infer("texts", {"T": np.array([[b"\xff", b""]], np.object_)})


def test_halves_pass_in_and_out(server: Server, put: Put) -> None:
    half = onnx_model([("Add", ["H", "H"], "K")], [("H", HALF, ["batch", 2])], [("K", HALF, ["batch", 2])])
    config = tensors("input", ("H", "FP16", "2")) + tensors("output", ("K", "FP16", "2"))
    server.load(put("halves", half, config))
    answer = server.infer("halves", {"H": np.array([[0.5, 1.5]], np.float16)})["K"]
    assert answer.dtype == np.float16
    assert answer.tolist() == [[1, 3]]


def test_models_without_batching_run_request_by_request(server: Server, put: Put) -> None:
    total = onnx_model([("ReduceSum", ["X"], "S")], [("X", FLOAT, ["n"])], [("S", FLOAT, [1])])
    server.load(put("total", total, X + tensors("output", ("S", "FP32", "1")), batch=0))
    assert server.infer("total", {"X": np.array([1, 2, 3], np.float32)})["S"].tolist() == [6]


FIXED = onnx_model([("Add", ["X", "X"], "TWICE")], [("X", FLOAT, [1, 2])], [("TWICE", FLOAT, [1, 2])])
MISFITS = {
    "input_name": (DOUBLE, tensors("input", ("Z", "FP32", "-1")) + TWICE, "input 'Z', allowed inputs are: X"),
    "output_name": (
        DOUBLE,
        X + tensors("output", ("Z", "FP32", "-1")),
        "output 'Z', allowed outputs are: SQUARE, TWICE",
    ),
    "input_count": (DOUBLE, X + tensors("input", ("Z", "FP32", "-1")) + TWICE, "expects 2 inputs, model provides 1: X"),
    "type": (
        DOUBLE,
        tensors("input", ("X", "INT32", "-1")) + TWICE,
        "expects datatype TYPE_INT32 for input 'X', model",
    ),
    "rank": (DOUBLE, tensors("input", ("X", "FP32", "2, 2")) + TWICE, "input 'X': the model has shape [-1, -1], the"),
    "shape": (
        DOUBLE,
        X + tensors("output", ("TWICE", "FP32", "3")),
        "output 'TWICE': the model has shape [-1, -1], the",
    ),
    "file": (DOUBLE, X + TWICE + 'default_model_filename: "gone.onnx"\n', "1/gone.onnx does not exist"),
    "fixed_batch": (
        FIXED,
        tensors("input", ("X", "FP32", "2")) + tensors("output", ("TWICE", "FP32", "2")),
        "input 'X': to support batching its first dimension must be free",
    ),
    "threads": (
        DOUBLE,
        X + TWICE + 'parameters { key: "intra_op_thread_count" value { string_value: "many" } }\n',
        "'intra_op_thread_count' must be a count of threads, not 'many'",
    ),
}


def test_a_configuration_that_does_not_fit_the_model_is_refused_at_load(server: Server, put: Put) -> None:
    refusals = server.try_to_load(*(put(f"misfit_{name}", *MISFITS[name][:2]) for name in MISFITS))
    for name, (_, _, message) in MISFITS.items():
        assert message in str(refusals[f"misfit_{name}"])
