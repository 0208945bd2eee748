"""The outputs of an answer, decoded to be compared."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from tidegate.oip.framing import HEAD_LENGTH, RawTensor, read_answer, split_bytes
from tidegate.oip.infer_answer import read_infer_answer
from tidegate.oip.inflating import inflated
from tidegate.oip.shapes import MOST_DIMENSIONS
from tidegate.oip.values import flattened, numbers_of, rounded_numbers
from tidegate.shadows.exchange import Answer

MOST_BYTES = 8 * 1024 * 1024
"""The largest answer that is compared, inflated: it takes about a second."""

MOST_TENSORS = 1000
"""The most outputs of an answer that is compared."""

_CODINGS = (b"gzip", b"deflate")
_LONGEST_NAME_BYTES = 256


class Unreadable(StrEnum):
    """Why an answer with status 200 cannot be compared."""

    CODING = "unknown content coding"
    TOO_LARGE = "larger than is compared"
    MALFORMED = "not in the form of the protocol"


class UnreadableAnswerError(Exception):
    def __init__(self, why: Unreadable) -> None:
        super().__init__(why)
        self.why = why


class Tensor(NamedTuple):
    """An output. `values` are in row-major order: BOOL and BYTES as bytes, anything else as numbers. `raw` is what was sent in
    binary, else None."""

    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Any]
    raw: bytes | None


def read_tensors(answer: Answer) -> Mapping[str, Tensor]:
    """Return the outputs of an answer by name.

    Raises:
        UnreadableAnswerError: it cannot be compared.
    """
    body = _plain(answer)
    try:
        if answer.is_rpc:
            tensors = read_infer_answer(body)
        else:
            length = answer.header(HEAD_LENGTH)
            tensors = read_answer(body, None if length is None else int(length))
        if len(tensors) > MOST_TENSORS:
            raise UnreadableAnswerError(Unreadable.TOO_LARGE)
        found: dict[str, Tensor] = {}
        for raw in tensors:
            # A lone surrogate, which JSON can have, cannot be stored.
            if raw.name in found or len(raw.name.encode()) > _LONGEST_NAME_BYTES:
                raise UnreadableAnswerError(Unreadable.MALFORMED)
            found[raw.name] = _tensor(raw)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, struct.error, RecursionError) as error:
        raise UnreadableAnswerError(Unreadable.MALFORMED) from error
    return found


def _plain(answer: Answer) -> bytes:
    """Return the body of an answer, decompressed."""
    coding = answer.header(b"content-encoding")
    body: bytes | None = answer.body
    if coding is not None and coding.lower() != b"identity":
        if coding.lower() not in _CODINGS:
            raise UnreadableAnswerError(Unreadable.CODING)
        body = inflated(answer.body, MOST_BYTES)
    if body is None or len(body) > MOST_BYTES:
        raise UnreadableAnswerError(Unreadable.TOO_LARGE)
    return body


def _tensor(raw: RawTensor) -> Tensor:
    shape = tuple(raw.shape)
    if len(shape) > MOST_DIMENSIONS or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("a shape is not a short list of whole numbers")
    data = raw.data if isinstance(raw.data, bytes) else None
    values = _of_elements(raw.datatype, flattened(raw.data)) if data is None else _of_binary(raw.datatype, data)
    if len(values) != math.prod(shape):
        raise ValueError("the elements do not fit the shape")
    return Tensor(raw.datatype, shape, values, data)


def _of_binary(datatype: str, data: bytes) -> Sequence[Any]:
    if datatype == "BYTES":
        return split_bytes(data)
    return bytes(map(bool, data)) if datatype == "BOOL" else numbers_of(datatype, data)


def _of_elements(datatype: str, flat: list[Any]) -> Sequence[Any]:
    if datatype == "BYTES":
        # Over gRPC they are bytes.
        return [each if isinstance(each, bytes) else each.encode() for each in flat]
    if datatype == "BOOL":
        if not all(type(value) is bool for value in flat):
            raise TypeError("an element is neither true nor false")
        return bytes(flat)
    return rounded_numbers(datatype, flat)
