"""Answers that came over gRPC are compared as those over HTTP are, whether their tensors are raw or typed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.oip.arrays import NUMPY_TYPES, _to_bytes
from tidegate.rules.contract import Ranking
from tidegate.shadows.copy import ShadowCopy, read_copy
from tidegate.shadows.exchange import Answer, exchanges_of, worker_parts
from tidegate.shadows.tallies import Tallies
from tidegate.shadows.tensors import Unreadable, read_tensors
from tritonclient.grpc import service_pb2

from tests.shadows.answers import PAIR, answer, exchange

CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
VALUES = {
    "BOOL": [True, False, True],
    "FP32": [0.5, -1e30, math.inf],
    "FP64": [0.1, -1e300, math.nan],
    "BYTES": [b"Fargo", b"", b"\xff\x00"],
    "FP16": [0.5, -2.0, 6e-8],
}


def rpc_answer(outputs, *, raw):
    response = service_pb2.ModelInferResponse(model_name="m", model_version="1", id="7")
    response.parameters["sequence_id"].int64_param = 3
    for name, (datatype, array) in outputs.items():
        each = response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            response.raw_output_contents.append(_to_bytes(array.ravel(), datatype))
        else:
            getattr(each.contents, CONTENTS[datatype]).extend(array.ravel().tolist())
    return Answer(200, [], response.SerializeToString(), 2.0, True)


def outputs_of(datatype):
    values = VALUES.get(datatype)
    if values is None:
        limits = np.iinfo(NUMPY_TYPES[datatype])
        values = [int(limits.min), 1, int(limits.max)]
    return {"y": (datatype, np.array([values], object if datatype == "BYTES" else NUMPY_TYPES[datatype]))}


@pytest.mark.parametrize(
    ("datatype", "raw"), [("FP16", True), *((datatype, raw) for datatype in CONTENTS for raw in (True, False))]
)
def test_every_datatype_is_read_as_over_http(datatype, raw):
    outputs = outputs_of(datatype)
    tallies = Tallies()
    tallies.add(exchange(answer(outputs), rpc_answer(outputs, raw=raw)))
    (tally,) = tallies.pairs.values()
    assert (tally.compared, tally.identical, tally.shadow_failed) == (1, 1, {})
    assert tally.outputs["y"].elements == 3


def test_rankings_and_differences_are_compared():
    first = {"ids": ("INT64", np.array([[1, 2, 3]])), "s": ("FP32", np.array([[1.0, 2.0]], np.float32))}
    other = {"ids": ("INT64", np.array([[3, 2, 9]])), "s": ("FP32", np.array([[1.0, 2.5]], np.float32))}
    parts = worker_parts([exchange(rpc_answer(first, raw=True), rpc_answer(other, raw=True), Ranking("ids", 3))])
    tallies = Tallies()
    for each in exchanges_of(parts):
        tallies.add(each)
    (tally,) = tallies.pairs.values()
    assert tally.outputs["s"].absolute.largest == 0.5
    assert tally.overlap.quantile(0) == pytest.approx(0.667)


def test_a_copy_crosses_as_it_is():
    message = rpc_answer(outputs_of("FP32"), raw=True)
    copy = ShadowCopy(PAIR, "r", 1.0, None, "a", ("h", 1), "/m/Infer", [(b"traceparent", b"x")], b"message", message)
    assert read_copy(b"".join(copy.parts())) == copy


@pytest.mark.parametrize(
    "body",
    [
        b"\x00",
        b"\x2a\xff",
        service_pb2.ModelInferResponse(raw_output_contents=[b"1234"]).SerializeToString(),
        service_pb2.ModelInferResponse(
            outputs=[{"name": "y", "datatype": "FP32", "shape": [2]}], raw_output_contents=[b"1234"]
        ).SerializeToString(),
        service_pb2.ModelInferResponse(
            outputs=[{"name": "y", "datatype": "FP31", "shape": [1]}], raw_output_contents=[b"1234"]
        ).SerializeToString(),
        service_pb2.ModelInferResponse(
            outputs=[{"name": "y", "datatype": "FP32", "shape": [-1]}], raw_output_contents=[b"1234"]
        ).SerializeToString(),
    ],
)
def test_a_message_that_is_no_answer_is_counted(body):
    tallies = Tallies()
    same = rpc_answer(outputs_of("FP32"), raw=True)
    tallies.add(exchange(same, Answer(200, [], body, 1.0, True)))
    (tally,) = tallies.pairs.values()
    assert tally.shadow_failed == {Unreadable.MALFORMED: 1}


@settings(max_examples=300)
@given(st.data())
def test_no_message_makes_the_comparison_fail(data):
    body = bytearray(rpc_answer(outputs_of("INT32"), raw=data.draw(st.booleans())).body)
    for at in data.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=3)):
        body[at] = data.draw(st.integers(0, 255))
    same = rpc_answer(outputs_of("INT32"), raw=True)
    tallies = Tallies()
    tallies.add(exchange(same, Answer(200, [], bytes(body), 1.0, True)))
    (tally,) = tallies.pairs.values()
    assert tally.compared + sum(tally.shadow_failed.values()) == 1
    assert read_tensors(same)["y"].shape == (1, 3)
