"""The parts of a `ModelInferRequest` besides its tensors' data, read without decoding it, and what is appended to one.

The messages: https://github.com/triton-inference-server/common/blob/main/protobuf/grpc_service.proto. What is appended to a
serialized message overrides it: of a scalar field the last one counts, and entries of a map are merged
(https://protobuf.dev/programming-guides/encoding/#last-one-wins).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from tidegate.errors import EndpointAnswerError, RefusedError, malformed
from tidegate.oip.protobuf import FIXED64, LENGTH, VARINT, Reader, field, number_field, signed
from tidegate.oip.request_json import check_reserved
from tidegate.oip.shapes import MOST_DIMENSIONS, MOST_SHAPES, check_declared, count_elements

_MODEL_NAME, _MODEL_VERSION, _ID, _PARAMETERS, _INPUTS, _OUTPUTS = 1, 2, 3, 4, 5, 6
_ERROR_MESSAGE, _INFER_RESPONSE = 1, 2
_INPUT_SHAPE: Final = 3
_OUTPUT_NAME, _OUTPUT_PARAMETERS = 1, 2
_KEY, _VALUE = 1, 2
_BOOL, _INT64, _STRING, _DOUBLE, _UINT64 = 1, 2, 3, 4, 5
_KINDS: Final = {_BOOL: VARINT, _INT64: VARINT, _STRING: LENGTH, _DOUBLE: FIXED64, _UINT64: VARINT}
_DOUBLE_VALUE: Final = struct.Struct("<d")
_MOST_PARAMETER_BYTES: Final = 128 * 1024
_SEQUENCE_ID: Final = "sequence_id"

Parameter = bool | int | float | str


class ModelName(NamedTuple):
    """The model and the version that a request names; both may be empty."""

    model: str
    version: str


class InferMessage(NamedTuple):
    """What a `ModelInferRequest` says besides its tensors.

    `classified` names the outputs that it wants as classes.
    """

    model: str
    version: str
    id: str
    parameters: Mapping[str, Parameter]
    classified: Sequence[str]


def read_name(message: bytes) -> ModelName:
    """Read any request that has the model in field 1 and the version in field 2, as all requests about a model do.

    Raises:
        RefusedError: the message cannot be read.
    """
    reader = Reader(message)
    model = version = ""
    for number, wire_type, start, end in reader.fields(0, len(message)):
        if wire_type == LENGTH and number == _MODEL_NAME:
            model = reader.text(start, end)
        elif wire_type == LENGTH and number == _MODEL_VERSION:
            version = reader.text(start, end)
    return ModelName(model, version)


def read_infer(message: bytes) -> InferMessage:
    """Read a `ModelInferRequest`.

    Raises:
        RefusedError: it cannot be read, uses a reserved name, or would crash a server.
    """
    reader = Reader(message)
    model = version = request_id = ""
    parameters: dict[str, Parameter] = {}
    classified: list[str] = []
    inputs = declared = parameter_bytes = 0
    has_empty = False
    for number, wire_type, start, end in reader.fields(0, len(message)):
        if wire_type != LENGTH or number > _OUTPUTS:
            continue
        if number == _INPUTS:
            inputs += 1
            if inputs > MOST_SHAPES:
                raise malformed(f"the request declares more than {MOST_SHAPES} shapes")
            elements = count_elements(_shape(reader, start, end))
            has_empty = has_empty or not elements
            declared += elements
        elif number == _OUTPUTS:
            name, wants_classes = _output(reader, start, end)
            if wants_classes:
                classified.append(name)
        elif number == _PARAMETERS:
            parameter_bytes += end - start
            if parameter_bytes > _MOST_PARAMETER_BYTES:
                raise malformed(f"the parameters of the request are larger than {_MOST_PARAMETER_BYTES} bytes")
            key, value = _entry(reader, start, end)
            check_reserved((key,))
            if value is not None:
                parameters[key] = _as_id(value) if key == _SEQUENCE_ID else value
        elif number == _MODEL_NAME:
            model = reader.text(start, end)
        elif number == _MODEL_VERSION:
            version = reader.text(start, end)
        elif number == _ID:
            request_id = reader.text(start, end)
    check_declared(declared, len(message))
    if classified and has_empty:
        # Triton 2.51 crashes when an output that it makes classes of is empty, which most models' are for an empty input.
        raise malformed("an input is empty, and no classes are made of an empty output: ask for the output as it is")
    return InferMessage(model, version, request_id, parameters, classified)


def read_id(message: bytes) -> str:
    """Return the id of a `ModelInferRequest` that was refused, for its error; empty if it has none or cannot be read."""
    reader, found = Reader(message), ""
    with suppress(RefusedError):
        for number, wire_type, start, end in reader.fields(0, len(message)):
            if number == _ID and wire_type == LENGTH:
                found = reader.text(start, end)
    return found


def stream_error(message: bytes) -> str | None:
    """Return the error in a `ModelStreamInferResponse`; None if it has none.

    Raises:
        EndpointAnswerError: the server's message cannot be read.
    """
    reader = Reader(message)
    try:
        for number, wire_type, start, end in reader.fields(0, len(message)):
            if number == _ERROR_MESSAGE and wire_type == LENGTH and end > start:
                return message[start:end].decode(errors="replace")
    except RefusedError:
        # The reader blames the caller, whose message this is not.
        raise EndpointAnswerError("the answer is not a message of the protocol", sent=True) from None
    return None


def stream_error_response(text: str, request_id: str) -> bytes:
    """Return a `ModelStreamInferResponse` with the error of a request."""
    return field(_ERROR_MESSAGE, text.encode(errors="replace")) + field(
        _INFER_RESPONSE, field(_ID, request_id.encode())
    )


def named(model: str, version: int | None) -> bytes:
    """Return what names the model when it is appended to a request; None clears the version."""
    return field(_MODEL_NAME, model.encode()) + field(_MODEL_VERSION, b"" if version is None else b"%d" % version)


def parameter_fields(parameters: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return what adds parameters of type text when it is appended to a `ModelInferRequest`."""
    entries = (field(_KEY, name) + field(_VALUE, field(_STRING, value)) for name, value in parameters)
    return b"".join([field(_PARAMETERS, entry) for entry in entries])


def sequence_id_field(sequence_id: int | str) -> bytes:
    """Return what replaces the `sequence_id` of a `ModelInferRequest` when it is appended: a text, or a number below 2^63."""
    key = field(_KEY, _SEQUENCE_ID.encode())
    if isinstance(sequence_id, str):
        return field(_PARAMETERS, key + field(_VALUE, field(_STRING, sequence_id.encode())))
    return field(_PARAMETERS, key + field(_VALUE, number_field(_INT64, sequence_id)))


def _as_id(value: Parameter) -> int | str:
    """Return a `sequence_id` as Triton takes it: a negative number as the unsigned one with the same bits.

    Raises:
        RefusedError: it is neither a number nor a text.
    """
    if isinstance(value, (bool, float)):
        # In Triton's words.
        raise malformed("invalid value type for 'sequence_id' parameter, expected int64_param or string_param.")
    return value + (1 << 64) if isinstance(value, int) and value < 0 else value


def _shape(reader: Reader, start: int, end: int) -> list[int]:
    """Return the shape of an input: its dimensions, packed or not."""
    shape: list[int] = []
    for number, wire_type, value, stop in reader.fields(start, end):
        if number != _INPUT_SHAPE:
            continue
        if wire_type == VARINT:
            shape.append(signed(reader.varint(value, stop)[0]))
        elif wire_type == LENGTH:
            while value < stop and len(shape) <= MOST_DIMENSIONS:
                size, value = reader.varint(value, stop)
                shape.append(signed(size))
        if len(shape) > MOST_DIMENSIONS:
            break
    return shape


def _output(reader: Reader, start: int, end: int) -> tuple[str, bool]:
    """Return the name of a wanted output, and whether it is wanted as classes."""
    name, count = "", 0
    for number, wire_type, value, stop in reader.fields(start, end):
        if wire_type == LENGTH and number == _OUTPUT_NAME:
            name = reader.text(value, stop)
        elif wire_type == LENGTH and number == _OUTPUT_PARAMETERS:
            key, parameter = _entry(reader, value, stop)
            if key == "classification":
                # Triton truncates it to 32 bits, and takes 0 for none.
                count = parameter & 0xFFFFFFFF if isinstance(parameter, int) else 0
    return name, count != 0


def _entry(reader: Reader, start: int, end: int) -> tuple[str, Parameter | None]:
    """Return name and value of a parameter, an entry of a map; None for a value of no kind that is known."""
    key, parameter = "", None
    seen = 0
    for number, wire_type, value, stop in reader.fields(start, end):
        if wire_type != LENGTH or number > _VALUE:
            continue
        if seen & number:
            raise malformed("a parameter of the request has two names or two values")
        seen |= number
        if number == _KEY:
            key = reader.text(value, stop)
        else:
            parameter = _parameter(reader, value, stop)
    return key, parameter


def _parameter(reader: Reader, start: int, end: int) -> Parameter | None:
    found: Parameter | None = None
    for number, wire_type, value, stop in reader.fields(start, end):
        if _KINDS.get(number) != wire_type:
            continue
        if found is not None:
            raise malformed("a parameter of the request has two values")
        if number == _STRING:
            found = reader.text(value, stop)
        elif number == _DOUBLE:
            found = float(_DOUBLE_VALUE.unpack_from(reader.message, value)[0])
        else:
            whole = reader.varint(value, stop)[0]
            # Not one conditional expression: compiled, its type would be that of the numbers, and a boolean one of them.
            if number == _BOOL:
                found = whole != 0
            elif number == _INT64:
                found = signed(whole)
            else:
                found = whole
    return found
