"""Reading a `ModelInferRequest` without decoding it agrees with Protocol Buffers, and refuses what it cannot agree on."""

from __future__ import annotations

import time
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tidegate.errors import RefusedError
from tidegate.oip.infer_message import InferMessage, named, parameter_fields, read_infer, read_name, sequence_id_field
from tidegate.oip.protobuf import MOST_FIELDS, field
from tritonclient.grpc import service_pb2

Request = service_pb2.ModelInferRequest

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_KINDS = {
    "bool_param": st.booleans(),
    "int64_param": st.integers(-(2**63), 2**63 - 1),
    "uint64_param": st.integers(0, 2**64 - 1),
    "double_param": st.floats(allow_nan=False),
    "string_param": _TEXTS,
}
_PARAMETER = st.sampled_from(sorted(_KINDS)).flatmap(lambda kind: st.tuples(st.just(kind), _KINDS[kind]))
_KEYS = _TEXTS.filter(lambda key: not key.lower().startswith("tidegate"))


@st.composite
def requests(draw: st.DrawFn) -> Any:
    request = Request(model_name=draw(_TEXTS), model_version=draw(_TEXTS), id=draw(_TEXTS))
    for key, (kind, value) in draw(st.dictionaries(_KEYS, _PARAMETER, max_size=3)).items():
        setattr(request.parameters[key], kind, value)
    for name in draw(st.lists(_TEXTS, max_size=3)):
        request.inputs.add(name=name, datatype="UINT8", shape=[draw(st.integers(1, 4))])
        request.raw_input_contents.append(b"1234")
    for name in draw(st.lists(_TEXTS, max_size=2)):
        count = draw(st.sampled_from([None, 0, 1, 3, 2**32]))
        output = request.outputs.add(name=name)
        if count is not None:
            output.parameters["classification"].int64_param = count
    return request


def by_protobuf(message: bytes) -> InferMessage:
    decoded = Request.FromString(message)
    values = {key: each.WhichOneof("parameter_choice") for key, each in decoded.parameters.items()}
    classified = [
        each.name
        for each in decoded.outputs
        if each.parameters["classification"].int64_param & 0xFFFFFFFF or each.parameters["classification"].bool_param
    ]
    return InferMessage(
        decoded.model_name,
        decoded.model_version,
        decoded.id,
        {key: getattr(decoded.parameters[key], kind) for key, kind in values.items() if kind is not None},
        classified,
    )


@given(requests())
def test_a_request_reads_as_protocol_buffers_decode_it(request: Any) -> None:
    message = request.SerializeToString()
    assert read_infer(message) == by_protobuf(message)
    assert read_name(message) == (request.model_name, request.model_version)


@given(requests(), requests())
def test_of_repeated_fields_the_last_one_counts(first: Any, second: Any) -> None:
    message = first.SerializeToString() + second.SerializeToString()
    assert read_infer(message) == by_protobuf(message)


@given(requests(), st.data())
def test_damaged_bytes_are_refused_or_read_as_protocol_buffers_decode_them(request: Any, data: st.DataObject) -> None:
    message = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(message)))
        match data.draw(st.sampled_from(["change", "insert", "cut", "remove"])):
            case "change" if at < len(message):
                message[at] = data.draw(st.integers(0, 255))
            case "insert":
                message[at:at] = data.draw(st.binary(min_size=1, max_size=4))
            case "cut":
                del message[at:]
            case _:
                del message[at : at + 1]
    _agrees(bytes(message))


@given(st.binary(max_size=64))
def test_any_bytes_are_refused_or_read_as_protocol_buffers_decode_them(message: bytes) -> None:
    _agrees(message)


def _agrees(message: bytes) -> None:
    try:
        found = read_infer(message)
    except RefusedError:
        return
    try:
        expected = by_protobuf(message)
    except DecodeError:
        # The tensors are not decoded here; Triton refuses the request.
        return
    assert _comparable(found) == _comparable(expected)


def _comparable(found: InferMessage) -> InferMessage:
    """The same with its parameters as texts, since NaN equals no other NaN."""
    return found._replace(parameters={name: repr(value) for name, value in found.parameters.items()})


@given(requests(), _TEXTS, st.none() | st.integers(1, 2**31))
def test_what_is_appended_overrides_the_callers_name_and_adds_parameters(
    request: Any, model: str, version: int | None
) -> None:
    added = [(b"Tidegate-Param-k", b"4"), (b"Tidegate-Param-n", "ü".encode())]
    message = request.SerializeToString() + parameter_fields(added) + named(model, version)
    decoded = Request.FromString(message)
    assert decoded.model_name == model
    assert decoded.model_version == ("" if version is None else str(version))
    assert decoded.parameters["Tidegate-Param-n"].string_param == "ü"
    assert len(decoded.parameters) == len(request.parameters) + 2
    assert decoded.inputs == request.inputs
    assert decoded.raw_input_contents == request.raw_input_contents


@pytest.mark.parametrize("name", ["tidegate", "tidegate_traffic", "TideGate-Param-x", "Tidegate-Param-x"])
def test_a_reserved_parameter_is_refused_wherever_it_stands(name: str) -> None:
    request = Request(model_name="o")
    request.parameters[name].string_param = "1"
    own, plain = request.SerializeToString(), Request(model_name="o", id="7").SerializeToString()
    for message in (own, own + plain, plain + own, own + plain + own):
        with pytest.raises(RefusedError, match="not for callers"):
            read_infer(message)


def _entry(*parts: bytes) -> bytes:
    return field(4, b"".join(parts))


_PLAIN_VALUE = field(2, field(3, b"v"))


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0a" + b"\xff" * 12,
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x0a\xff\xff\xff\xff\x07abc",
        b"\xff" * 3,
        b"\x00\x01",
        b"\x0b\x0c",
        b"\x0c",
        b"\x0f\x01",
        b"\x9b\x06" * 100_000,
        b"\x09\x01",
        b"\x0a\x01\xff",
        field(4, b"\x0a\x09a"),
        field(4, b"\x0a\x01\xfe"),
        _entry(field(1, b"a"), field(1, b"tidegate_x"), _PLAIN_VALUE),
        _entry(field(1, b"a"), _PLAIN_VALUE, _PLAIN_VALUE),
        _entry(field(1, b"a"), field(2, field(3, b"v") + b"\x10\x01")),
        field(5, b"\x1a\x01\xff"),
        field(6, field(2, b"\x0a\x05a")),
    ],
)
def test_hostile_bytes_are_refused(message: bytes) -> None:
    with pytest.raises(RefusedError):
        read_infer(field(1, b"o") + message)


@pytest.mark.parametrize(
    ("shapes", "why"),
    [
        ([[2**62]], "more elements"),
        ([[2**32, 2**32]], "more elements"),
        ([[60, 60]], "more elements"),
        ([[40], [40]], "more elements"),
        ([[0, 2**62]], "product"),
        ([[1] * 65], "dimensions"),
    ],
)
def test_shapes_that_would_crash_a_server_are_refused(shapes: list[list[int]], why: str) -> None:
    request = Request(model_name="o")
    for shape in shapes:
        request.inputs.add(name="i", datatype="UINT8", shape=shape)
    packed = request.SerializeToString()
    loose = field(1, b"o") + b"".join(field(5, b"".join(b"\x18" + _number(size) for size in shape)) for shape in shapes)
    for message in (packed, loose):
        with pytest.raises(RefusedError, match=why):
            read_infer(message)


def test_classes_of_an_empty_output_are_refused() -> None:
    request = Request(model_name="o")
    request.inputs.add(name="i", datatype="FP32", shape=[0])
    request.outputs.add(name="x").parameters["classification"].int64_param = 1
    with pytest.raises(RefusedError, match="empty"):
        read_infer(request.SerializeToString())


def test_the_work_for_one_request_is_bounded() -> None:
    began_s = time.process_time()
    for message in (
        b"\x38\x01" * 8_000_000,
        field(5, b"\x38\x01" * 8_000_000),
        field(5, field(3, b"\x01" * 16_000_000)),
    ):
        with pytest.raises(RefusedError):
            read_infer(message)
    assert time.process_time() - began_s < 2.0


def test_many_inputs_are_read() -> None:
    request = Request(model_name="o")
    for _ in range(1_000):
        request.inputs.add(name="i", datatype="UINT8", shape=[1])
        request.raw_input_contents.append(b"1")
    assert MOST_FIELDS > 1_000 * 6
    assert read_infer(request.SerializeToString()).model == "o"


def _number(value: int) -> bytes:
    """Serialize a varint."""
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


@pytest.mark.parametrize("sent", [1, 2**63 - 1, "a-text"])
def test_the_sequence_id_that_is_appended_overrides_the_callers_whatever_its_kind(sent: int | str) -> None:
    for kind, given_id in (("int64_param", 7), ("string_param", "seven"), ("uint64_param", 7)):
        request = service_pb2.ModelInferRequest(model_name="m")
        setattr(request.parameters["sequence_id"], kind, given_id)
        request.parameters["sequence_start"].bool_param = True
        message = request.SerializeToString() + sequence_id_field(sent)
        decoded = service_pb2.ModelInferRequest.FromString(message)
        found = decoded.parameters["sequence_id"]
        assert found.WhichOneof("parameter_choice") == ("string_param" if isinstance(sent, str) else "int64_param")
        assert (found.string_param if isinstance(sent, str) else found.int64_param) == sent
        assert decoded.parameters["sequence_start"].bool_param
        assert len(decoded.parameters) == 2


def test_a_negative_sequence_id_is_the_number_that_triton_takes_it_for() -> None:
    request = service_pb2.ModelInferRequest(model_name="m")
    request.parameters["sequence_id"].int64_param = -1
    request.parameters["other"].int64_param = -1
    assert read_infer(request.SerializeToString()).parameters == {"sequence_id": 2**64 - 1, "other": -1}


@pytest.mark.parametrize(("kind", "value"), [("bool_param", True), ("double_param", 7.0)])
def test_a_sequence_id_of_another_kind_is_refused(kind: str, value: object) -> None:
    request = service_pb2.ModelInferRequest(model_name="m")
    setattr(request.parameters["sequence_id"], kind, value)
    with pytest.raises(RefusedError, match="expected int64_param or string_param"):
        read_infer(request.SerializeToString())
