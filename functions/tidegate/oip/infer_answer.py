"""The outputs of a `ModelInferResponse`, whose tensors are raw bytes or typed contents.

The messages: https://github.com/triton-inference-server/common/blob/main/protobuf/grpc_service.proto. Triton's answers are raw.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from typing import Any

from tidegate.errors import RefusedError
from tidegate.oip.framing import MalformedAnswerError, RawTensor
from tidegate.oip.protobuf import FIXED32, FIXED64, LENGTH, VARINT, Reader, signed

_OUTPUTS, _RAW_CONTENTS = 5, 6
_NAME, _DATATYPE, _SHAPE, _CONTENTS = 1, 2, 3, 5
_BOOLS, _INTS, _INT64S, _UINTS, _UINT64S, _FLOATS, _DOUBLES, _BYTES = range(1, 9)
_FIXED = {_FLOATS: "f", _DOUBLES: "d"}


def read_infer_answer(message: bytes) -> list[RawTensor]:
    """Return the outputs of a serialized `ModelInferResponse`; data is bytes, or a list of elements, those of BYTES as bytes.

    Data may be shorter than its tensor's shape: that is not checked.

    Raises:
        MalformedAnswerError: the message cannot be read.
    """
    reader, outputs, raw = Reader(message), [], []
    try:
        for number, wire_type, start, end in reader.fields(0, len(message)):
            if wire_type == LENGTH and number == _OUTPUTS:
                outputs.append(_output(reader, start, end))
            elif wire_type == LENGTH and number == _RAW_CONTENTS:
                raw.append(message[start:end])
    except RefusedError as error:
        raise MalformedAnswerError(str(error)) from error
    if not raw:
        return outputs
    if len(raw) != len(outputs):
        raise MalformedAnswerError("there are more or fewer raw contents than outputs")
    return [each._replace(data=data) for each, data in zip(outputs, raw, strict=True)]


def _output(reader: Reader, start: int, end: int) -> RawTensor:
    name = datatype = ""
    shape: list[int] = []
    data: list[Any] = []
    for number, wire_type, value, stop in reader.fields(start, end):
        if number == _SHAPE:
            shape += map(signed, _varints(reader, wire_type, value, stop))
        elif wire_type != LENGTH:
            continue
        elif number == _NAME:
            name = reader.text(value, stop)
        elif number == _DATATYPE:
            datatype = reader.text(value, stop)
        elif number == _CONTENTS:
            data += _contents(reader, value, stop)
    return RawTensor(name, datatype, shape, data)


def _contents(reader: Reader, start: int, end: int) -> list[Any]:
    """Return the elements of an `InferTensorContents`, which has those of one datatype."""
    found: list[Any] = []
    for number, wire_type, value, stop in reader.fields(start, end):
        if number == _BYTES and wire_type == LENGTH:
            found.append(reader.message[value:stop])
        elif number in _FIXED and wire_type in (LENGTH, FIXED32, FIXED64):
            numbers = array(_FIXED[number], reader.message[value:stop])
            if sys.byteorder == "big":
                numbers.byteswap()
            found += numbers
        elif number in (_INTS, _INT64S):
            found += map(signed, _varints(reader, wire_type, value, stop))
        elif number in (_UINTS, _UINT64S):
            found += _varints(reader, wire_type, value, stop)
        elif number == _BOOLS:
            found += map(bool, _varints(reader, wire_type, value, stop))
    return found


def _varints(reader: Reader, wire_type: int, start: int, end: int) -> Sequence[int]:
    """Return the numbers of a repeated field, packed or not."""
    found: list[int] = []
    at = start
    while wire_type in (VARINT, LENGTH) and at < end:
        number, at = reader.varint(at, end)
        found.append(number)
    return found
