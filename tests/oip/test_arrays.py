"""Golden requests and answers are encoded and decoded as by Triton's own client."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tidegate.oip.arrays import decode, encode
from tidegate.oip.framing import MalformedAnswerError
from tritonclient.http import InferenceServerClient, InferInput, InferResult
from tritonclient.utils import np_to_triton_dtype

TYPES = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
]
SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    shape = draw(SHAPES)
    if draw(st.booleans()):
        return draw(arrays.arrays(np.dtype(draw(st.sampled_from(TYPES))), shape))
    array = np.empty(shape, np.object_)
    array[...] = draw(st.binary(max_size=5))
    return array


def by_client(inputs: dict[str, Any], bfloats: frozenset[str], parameters: dict[str, Any]) -> tuple[bytes, int]:
    """Return the body that Triton's client sends."""
    given = []
    for name, array in inputs.items():
        sent = array.astype(ml_dtypes.bfloat16) if name in bfloats else array
        datatype = "BF16" if name in bfloats else np_to_triton_dtype(array.dtype)
        given.append(InferInput(name, list(array.shape), datatype).set_data_from_numpy(sent))
    body, length = InferenceServerClient.generate_request_body(given, parameters=parameters)
    return body, len(body) if length is None else length


@settings(max_examples=60, deadline=None)
@given(tensors(), tensors(), st.dictionaries(st.sampled_from("ab"), st.booleans() | st.integers(0, 9) | st.text()))
def test_requests_are_those_of_the_client(one: Any, two: Any, parameters: dict[str, Any]) -> None:
    inputs, bfloats = {"ONE": one, "TWO": two}, frozenset({"TWO"} if two.dtype == np.float32 else ())
    body, length = encode(inputs, bfloats, parameters)
    expected, expected_length = by_client(inputs, bfloats, parameters)
    assert json.loads(body[:length]) == json.loads(expected[:expected_length])
    assert body[length:] == expected[expected_length:]


@settings(max_examples=60, deadline=None)
@given(tensors(), st.sampled_from([None, "gzip", "deflate"]))
def test_answers_are_read_as_the_client_reads_them(array: Any, coding: str | None) -> None:
    body, length = encode({"OUT": array}, frozenset(), {})
    head = json.loads(body[:length])
    text = json.dumps({"outputs": [*head["inputs"], {"name": "J", "shape": [2], "datatype": "FP32", "data": [1, 2.5]}]})
    plain = text.encode() + body[length:]
    sent = {"gzip": gzip.compress, "deflate": zlib.compress}.get(coding or "", bytes)(plain)
    outputs = decode(sent, b"%d" % len(text), coding.encode() if coding else None)
    result = InferResult.from_response_body(sent, header_length=len(text), content_encoding=coding)
    for name, output in outputs.items():
        np.testing.assert_array_equal(output.array, result.as_numpy(name))
        assert output.array.dtype == result.as_numpy(name).dtype


def test_bfloats_are_read_as_single_precision() -> None:
    body, length = encode({"OUT": np.array([1.5, -2], np.float32)}, frozenset({"OUT"}), {})
    head = json.dumps({"outputs": json.loads(body[:length])["inputs"]}).encode()
    found = decode(head + body[length:], b"%d" % len(head))["OUT"]
    assert (found.datatype, found.array.dtype, found.array.tolist()) == ("BF16", np.float32, [1.5, -2.0])


@pytest.mark.parametrize(
    "document",
    [
        "no JSON", [], {}, {"outputs": 7}, {"outputs": [{}]}, {"outputs": [{"name": "A", "datatype": "FP32"}]},
        {"outputs": [{"name": "A", "datatype": "FP8", "shape": [1], "data": [1]}]},
        {"outputs": [{"name": "A", "datatype": "FP32", "shape": [3], "data": [1]}]},
        {"outputs": [{"name": "A", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}]},
        {"outputs": [{"name": "A", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 3}}]},
    ],
)  # fmt: skip
def test_what_is_no_answer_of_the_protocol_is_malformed(document: Any) -> None:
    body = document.encode() if isinstance(document, str) else json.dumps(document).encode() + b"abc"
    length = len(body) - (0 if isinstance(document, str) else 3)
    with pytest.raises(MalformedAnswerError):
        decode(body, b"%d" % length)
