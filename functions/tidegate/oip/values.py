"""Conversion between plain JSON values and binary tensors, by a model's metadata.

Datatypes and layout: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
(little-endian, row-major; BYTES elements are a 4-byte length and the data).
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tidegate.errors import ModelAnswerError, Refusal, RefusedError, malformed
from tidegate.oip.datatypes import FLOATS
from tidegate.oip.framing import MalformedAnswerError, RawTensor, join_bytes, read_answer, split_bytes, write_request
from tidegate.oip.metadata import Tensor

_ARRAY_CODES = {
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "FP32": "f", "FP64": "d",
}  # fmt: skip
_HALF = 0x8000
"""The lower half of a single-precision number halfway between two bfloat16 values."""

_BFLOAT16_INFINITE = (0x7F80, 0xFF80)

_WORDS = {"BOOL": "true or false", "BYTES": "text"}


def encode_inputs(tensors: Sequence[Tensor], inputs: Mapping[str, Any], most_values: int) -> tuple[bytes, int]:
    """Return an inference request with binary tensors, and the length of its JSON part in bytes; see `raw_inputs`."""
    return write_request(raw_inputs(tensors, inputs, most_values), {})


def raw_inputs(tensors: Sequence[Tensor], inputs: Mapping[str, Any], most_values: int) -> list[RawTensor]:
    """Return plain JSON values as a model's input tensors.

    All inputs together may have at most `most_values` values. A missing input is not an error here: the model knows which of
    its inputs are optional.

    Raises:
        RefusedError: an input's name is unknown, or its value does not fit its datatype or shape; `input` names it.
    """
    known = {tensor.name: tensor for tensor in tensors}
    raw = []
    for name, value in inputs.items():
        tensor = known.get(name)
        if tensor is None:
            raise malformed(f"unknown input {name!r}; the inputs are {', '.join(map(repr, known))}", input=name)
        if tensor.datatype not in _CHECKS:
            raise malformed(f"input {name!r}: datatype {tensor.datatype} is not supported", input=name)
        flat, sizes = _flatten(tensor, value)
        most_values -= len(flat)
        if most_values < 0:
            raise RefusedError(
                Refusal.TOO_MANY_VALUES,
                "the inputs have more values than max_v1_values allows; send large tensors in binary, to /v2",
                setting="max_v1_values",
            )
        if not flat and len(sizes) < len(tensor.shape):
            raise _unfit(tensor, "is an empty list, which could be no rows or an empty one: write all its dimensions")
        accepts = _CHECKS[tensor.datatype]
        for index, item in enumerate(flat):
            if not accepts(item):
                raise _unfit(tensor, f"holds {_JSON_WORDS[type(item)]}", _position(index, sizes))
        shape = [1] * (len(tensor.shape) - len(sizes)) + sizes
        if any(wanted not in (-1, size) for wanted, size in zip(tensor.shape, shape, strict=True)):
            raise _unfit(tensor, f"has the shape {sizes}")
        raw.append(RawTensor(name, tensor.datatype, shape, _encode(tensor, flat, sizes)))
    return raw


def decode_outputs(body: bytes, header_length: int | None) -> dict[str, Any]:
    """Return the outputs of an inference response by name, as nested lists in their shape.

    Raises:
        ModelAnswerError: the answer does not follow the protocol, or an output has values that JSON cannot represent: not
            finite, or not UTF-8. `output` names it.
    """
    try:
        tensors = read_answer(body, header_length)
    except MalformedAnswerError as error:
        raise ModelAnswerError("the answer is not in the form of the Open Inference Protocol") from error
    return plain_outputs(tensors)


def plain_outputs(tensors: Iterable[RawTensor]) -> dict[str, Any]:
    """Return output tensors by name, as nested lists in their shape.

    Raises:
        ModelAnswerError: as `decode_outputs`.
    """
    outputs: dict[str, Any] = {}
    try:
        for name, datatype, shape, data in tensors:
            flat = _decode(name, datatype, data) if isinstance(data, bytes) else flattened(data)
            if len(flat) != math.prod(shape):
                raise ModelAnswerError(f"output {name!r} holds {len(flat)} elements for the shape {shape}", output=name)
            if datatype in FLOATS and not all(map(math.isfinite, flat)):
                raise ModelAnswerError(f"output {name!r} holds NaN or infinity, which JSON cannot carry", output=name)
            outputs[name] = _nest(flat, shape)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error, RecursionError) as error:
        raise ModelAnswerError("the answer is not in the form of the Open Inference Protocol") from error
    return outputs


def _flatten(tensor: Tensor, value: Any) -> tuple[list[Any], list[int]]:
    """Return the elements of a nested list in order, and its shape (empty for a scalar)."""
    sizes: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        if len(sizes) == len(tensor.shape):
            raise _unfit(tensor, f"has more than {len(tensor.shape)} dimensions")
        size = len(level[0])
        for index, item in enumerate(level):
            if not isinstance(item, list) or len(item) != size:
                raise _unfit(tensor, "is ragged", _position(index, sizes))
        sizes.append(size)
        level = [element for item in level for element in item]
    return level, sizes


def _encode(tensor: Tensor, flat: Sequence[Any], sizes: Sequence[int]) -> bytes:
    """Return the elements in binary form. A number is rounded to the nearest value of the datatype."""
    try:
        return _pack(tensor.datatype, flat)
    except (OverflowError, struct.error, UnicodeEncodeError):
        index = next(index for index, item in enumerate(flat) if not _packs(tensor.datatype, item))
        what = "holds text that is not Unicode" if tensor.datatype == "BYTES" else "holds a value out of range"
        raise _unfit(tensor, what, _position(index, sizes)) from None


def _pack(datatype: str, flat: Sequence[Any]) -> bytes:
    match datatype:
        case "BYTES":
            return join_bytes([item.encode() for item in flat])
        case "BOOL":
            return bytes(flat)
        case "FP16":
            _require_finite(flat)
            return struct.pack(f"<{len(flat)}e", *flat)
        case "BF16":
            return _little_endian(_to_bfloat16(flat)).tobytes()
        case _:
            values = array(_ARRAY_CODES[datatype], flat)
            if datatype in FLOATS:
                _require_finite(values)
            return _little_endian(values).tobytes()


def _require_finite(values: Iterable[Any]) -> None:
    # JSON has no infinity, but a number such as 1e400 is parsed as one.
    if not all(map(math.isfinite, values)):
        raise OverflowError


def _packs(datatype: str, item: Any) -> bool:
    try:
        _pack(datatype, [item])
    except (OverflowError, struct.error, UnicodeEncodeError):
        return False
    return True


def _decode(name: str, datatype: str, data: bytes) -> list[Any]:
    match datatype:
        case "BYTES":
            try:
                return [element.decode() for element in split_bytes(data)]
            except UnicodeDecodeError as error:
                raise ModelAnswerError(f"output {name!r} holds bytes that are no UTF-8 text", output=name) from error
            except MalformedAnswerError as error:
                raise ModelAnswerError(f"output {name!r} ends within an element", output=name) from error
        case "BOOL":
            return [byte != 0 for byte in data]
        case _:
            return list(numbers_of(datatype, data))


def numbers_of(datatype: str, data: bytes) -> Sequence[Any]:
    """Return the elements of a tensor of integers or floating-point numbers.

    Raises:
        KeyError: it is of another datatype.
        ValueError, struct.error: the data ends within an element.
    """
    match datatype:
        case "FP16":
            return array("f", struct.unpack(f"<{len(data) // 2}e", data))
        case "BF16":
            words = array("I", [half << 16 for half in _little_endian(array("H", data))])
            return array("f", words.tobytes())
        case _:
            return _little_endian(array(_ARRAY_CODES[datatype], data))


def rounded_numbers(datatype: str, numbers: Sequence[Any]) -> Sequence[Any]:
    """Return numbers of a JSON answer as the values of their datatype; FP16 and BF16 are held in single precision.

    Raises:
        TypeError, OverflowError: one is not a number, or not an integer in the range of the datatype.
        KeyError: it is not a datatype of numbers.
    """
    return array(_ARRAY_CODES.get(datatype, "f") if datatype in FLOATS else _ARRAY_CODES[datatype], numbers)


def _to_bfloat16(flat: Sequence[Any]) -> array[int]:
    """Round numbers to bfloat16, half to even, as the upper halves of single-precision numbers.

    They are rounded to single precision first, which the standard library can pack. Rounding is monotonic, so rounding twice
    can differ only if the first step ends exactly halfway between two bfloat16 values. There the number itself decides.
    """
    singles = array("f", flat)
    words = array("I", singles.tobytes())
    rounded = array("H", [(word + _HALF - 1 + (word >> 16 & 1)) >> 16 for word in words])
    for index, word in enumerate(words):
        if word & 0xFFFF == _HALF and flat[index] != singles[index]:
            rounded[index] = (word >> 16) + (abs(flat[index]) > abs(singles[index]))
    if any(infinite in rounded for infinite in _BFLOAT16_INFINITE):
        raise OverflowError
    return rounded


def _little_endian(values: array[Any]) -> array[Any]:
    if sys.byteorder == "big":
        values.byteswap()
    return values


def flattened(data: Any) -> list[Any]:
    """Return the elements of nested lists in order; these may be ragged."""
    flat: list[Any] = []
    stack = [data]
    while stack:
        item = stack.pop()
        if isinstance(item, list):
            stack.extend(reversed(item))
        else:
            flat.append(item)
    return flat


def _nest(flat: list[Any], shape: Sequence[int]) -> Any:
    """Return a flat row-major list as nested lists of a shape."""
    if not shape:
        return flat[0]
    if len(shape) == 1:
        return flat
    step = math.prod(shape[1:])
    return [_nest(flat[index * step : (index + 1) * step], shape[1:]) for index in range(shape[0])]


def _position(index: int, sizes: Sequence[int]) -> str:
    """Return the place of element `index` of a flattened list, as `[row][column]`."""
    place: list[int] = []
    for size in reversed(sizes):
        index, rest = divmod(index, size)
        place.append(rest)
    return "".join(f"[{number}]" for number in reversed(place))


def _unfit(tensor: Tensor, what: str, place: str = "") -> RefusedError:
    words = _WORDS.get(tensor.datatype, "numbers" if tensor.datatype in FLOATS else "integers")
    where = f" at {place}" if place else ""
    return malformed(
        f"input {tensor.name!r}{where} {what}; it takes {words} ({tensor.datatype}) in the shape {list(tensor.shape)}",
        input=tensor.name,
        datatype=tensor.datatype,
        shape=list(tensor.shape),
    )


_JSON_WORDS = {
    type(None): "null",
    str: "text",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    dict: "an object",
    list: "a list",
}
_CHECKS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(_ARRAY_CODES, lambda item: type(item) is int),
    **dict.fromkeys(FLOATS, lambda item: type(item) in (float, int)),
    "BOOL": lambda item: type(item) is bool,
    "BYTES": lambda item: type(item) is str,
}
