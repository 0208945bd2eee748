"""JSON values to tensors and back, by a model's own metadata, in the protocol's binary form.

Datatypes and layout: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
(little-endian, row-major; BYTES elements are a 4-byte length and the data).
"""

from __future__ import annotations

import json
import math
import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tidegate.web.errors import WebError, bad_model_answer, malformed, too_many_values
from tidegate.web.metadata import ModelMetadata, Tensor

_ARRAY_CODES = {
    "INT8": "b", "INT16": "h", "INT32": "i", "INT64": "q",
    "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q",
    "FP32": "f", "FP64": "d",
}  # fmt: skip
_FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})
_HALF = 0x8000
"""The lower half of a single-precision number that lies between two bfloat16s, as far from one as from the other."""

_BFLOAT16_INFINITE = (0x7F80, 0xFF80)

_WORDS = {"BOOL": "true or false", "BYTES": "text"}


def encode_inputs(metadata: ModelMetadata, inputs: Mapping[str, Any], most_values: int) -> tuple[bytes, int]:
    """An inference request in binary form, and the length of its JSON part in bytes.

    All inputs together have at most `most_values` values. An input that is left out is left out of the request: the model
    knows which of its inputs are optional.

    Raises:
        WebError: an input's name is unknown, or its value does not fit its datatype or shape; `input` names it.
    """
    known = {tensor.name: tensor for tensor in metadata.inputs}
    described, blobs = [], []
    for name, value in inputs.items():
        tensor = known.get(name)
        if tensor is None:
            raise malformed(f"unknown input {name!r}; the inputs are {', '.join(map(repr, known))}", input=name)
        if tensor.datatype not in _CHECKS:
            raise malformed(f"input {name!r}: datatype {tensor.datatype} is not supported", input=name)
        flat, sizes = _flatten(tensor, value)
        most_values -= len(flat)
        if most_values < 0:
            raise too_many_values()
        if not flat and len(sizes) < len(tensor.shape):
            raise _unfit(tensor, "is an empty list, which could be no rows or an empty one: write all its dimensions")
        _check_kind(tensor, flat, sizes)
        shape = [1] * (len(tensor.shape) - len(sizes)) + sizes
        if any(wanted not in (-1, size) for wanted, size in zip(tensor.shape, shape, strict=True)):
            raise _unfit(tensor, f"has the shape {sizes}")
        data = _encode(tensor, flat, sizes)
        blobs.append(data)
        described.append(
            {
                "name": name,
                "datatype": tensor.datatype,
                "shape": shape,
                "parameters": {"binary_data_size": len(data)},
            }
        )
    head = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    return b"".join((head, *blobs)), len(head)


def decode_outputs(body: bytes, header_length: int | None) -> dict[str, Any]:
    """The outputs of an inference response as nested lists in their shape, by name.

    Raises:
        WebError: the answer is not in the protocol's form, or an output is not finite or not UTF-8 text, none of which
            JSON can carry; `output` names it.
    """
    try:
        end = len(body) if header_length is None else header_length
        document = json.loads(body[:end])
        outputs: dict[str, Any] = {}
        for tensor in document["outputs"]:
            name, datatype, shape = str(tensor["name"]), str(tensor["datatype"]), tensor["shape"]
            size = tensor.get("parameters", {}).get("binary_data_size")
            if size is None:
                flat = _from_json(tensor["data"])
            else:
                flat = _decode(name, datatype, body[end : end + size])
                end += size
            if len(flat) != math.prod(shape):
                raise bad_model_answer(f"output {name!r} holds {len(flat)} elements for the shape {shape}", output=name)
            if datatype in _FLOATS and not all(map(math.isfinite, flat)):
                raise bad_model_answer(f"output {name!r} holds NaN or infinity, which JSON cannot carry", output=name)
            outputs[name] = _nest(flat, shape)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, struct.error, RecursionError) as error:
        raise bad_model_answer("the answer is not in the form of the Open Inference Protocol") from error
    return outputs


def _flatten(tensor: Tensor, value: Any) -> tuple[list[Any], list[int]]:
    """The elements of a nested list in order, and the list's own shape (a scalar's is empty)."""
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


def _check_kind(tensor: Tensor, flat: Sequence[Any], sizes: Sequence[int]) -> None:
    accepts = _CHECKS[tensor.datatype]
    for index, item in enumerate(flat):
        if not accepts(item):
            raise _unfit(tensor, f"holds {_JSON_WORDS[type(item)]}", _position(index, sizes))


def _encode(tensor: Tensor, flat: Sequence[Any], sizes: Sequence[int]) -> bytes:
    """The elements in binary form, a number as the value of the datatype that is nearest to it."""
    try:
        return _pack(tensor.datatype, flat)
    except (OverflowError, struct.error, UnicodeEncodeError):
        index = next(index for index, item in enumerate(flat) if not _packs(tensor.datatype, item))
        what = "holds text that is not Unicode" if tensor.datatype == "BYTES" else "holds a value out of range"
        raise _unfit(tensor, what, _position(index, sizes)) from None


def _pack(datatype: str, flat: Sequence[Any]) -> bytes:
    match datatype:
        case "BYTES":
            encoded = [item.encode() for item in flat]
            return b"".join(struct.pack("<I", len(item)) + item for item in encoded)
        case "BOOL":
            return bytes(flat)
        case "FP16":
            _require_finite(flat)
            return struct.pack(f"<{len(flat)}e", *flat)
        case "BF16":
            return _little_endian(_to_bfloat16(flat)).tobytes()
        case _:
            values = array(_ARRAY_CODES[datatype], flat)
            if datatype in _FLOATS:
                _require_finite(values)
            return _little_endian(values).tobytes()


def _require_finite(values: Iterable[Any]) -> None:
    # JSON has no infinity, but a number such as 1e400 is read as one.
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
            return _decode_bytes(name, data)
        case "BOOL":
            return [byte != 0 for byte in data]
        case "FP16":
            return list(struct.unpack(f"<{len(data) // 2}e", data))
        case "BF16":
            halves = array("H", data)
            return _from_bfloat16(_little_endian(halves))
        case _:
            values = array(_ARRAY_CODES[datatype])
            values.frombytes(data)
            return _little_endian(values).tolist()


def _decode_bytes(name: str, data: bytes) -> list[str]:
    elements, at = [], 0
    try:
        while at < len(data):
            (size,) = struct.unpack_from("<I", data, at)
            end = at + 4 + size
            if end > len(data):
                raise bad_model_answer(f"output {name!r} ends within an element", output=name)
            elements.append(data[at + 4 : end].decode())
            at = end
    except UnicodeDecodeError as error:
        raise bad_model_answer(f"output {name!r} holds bytes that are no UTF-8 text", output=name) from error
    return elements


def _to_bfloat16(flat: Sequence[Any]) -> array[int]:
    """Each number as the upper half of a single-precision one, rounded to it half to even.

    Single precision comes between, since packing it is the standard library's: rounding is monotonous, so that this can be
    wrong only where a number was rounded to exactly half of the last place. There the number itself decides.

    All are rounded in one addition: no sum of 32 bits carries into the next one, as no number here is NaN.
    """
    singles = array("f", flat)
    count, order = len(singles), sys.byteorder
    words = int.from_bytes(singles.tobytes(), order)
    odd = words >> 16 & _repeated(1, count)
    halves = array("H", (words + odd + _repeated(_HALF - 1, count)).to_bytes(4 * count, order))
    rounded = halves[1::2] if order == "little" else halves[0::2]
    lower = array("H", singles.tobytes())[slice(0 if order == "little" else 1, None, 2)]
    for index in _places(lower, _HALF):
        given, single = flat[index], singles[index]
        if given != single:
            (word,) = struct.unpack("=I", struct.pack("=f", single))
            rounded[index] = (word >> 16) + (abs(given) > abs(single))
    if any(infinite in rounded for infinite in _BFLOAT16_INFINITE):
        raise OverflowError
    return rounded


def _repeated(word: int, count: int) -> int:
    """A number of `count` times 32 bits, each 32 of which are `word`."""
    return int.from_bytes(word.to_bytes(4, sys.byteorder) * count, sys.byteorder)


def _places(values: array[int], wanted: int) -> Iterator[int]:
    start = 0
    while True:
        try:
            start = values.index(wanted, start) + 1
        except ValueError:
            return
        yield start - 1


def _from_bfloat16(halves: array[int]) -> list[float]:
    words = array("H", bytes(4 * len(halves)))
    words[slice(1, None, 2) if sys.byteorder == "little" else slice(0, None, 2)] = halves
    singles = array("f")
    singles.frombytes(words.tobytes())
    return singles.tolist()


def _little_endian(values: array[Any]) -> array[Any]:
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _from_json(data: Any) -> list[Any]:
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
    """A flat row-major list as nested lists."""
    if not shape:
        return flat[0]
    if len(shape) == 1:
        return flat
    step = math.prod(shape[1:])
    return [_nest(flat[index * step : (index + 1) * step], shape[1:]) for index in range(shape[0])]


def _position(index: int, sizes: Sequence[int]) -> str:
    """Where the element `index` of a flattened list stands, as `[row][column]`."""
    place: list[int] = []
    for size in reversed(sizes):
        index, rest = divmod(index, size)
        place.append(rest)
    return "".join(f"[{number}]" for number in reversed(place))


def _unfit(tensor: Tensor, what: str, place: str = "") -> WebError:
    words = _WORDS.get(tensor.datatype, "numbers" if tensor.datatype in _FLOATS else "integers")
    where = f" at {place}" if place else ""
    return malformed(
        f"input {tensor.name!r}{where} {what}; it takes {words} ({tensor.datatype}) in the shape {list(tensor.shape)}",
        input=tensor.name,
        datatype=tensor.datatype,
        shape=list(tensor.shape),
    )


def _is_integer(item: Any) -> bool:
    return type(item) is int


def _is_number(item: Any) -> bool:
    return type(item) is float or type(item) is int


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
    **dict.fromkeys(_ARRAY_CODES, _is_integer),
    **dict.fromkeys(_FLOATS, _is_number),
    "BOOL": lambda item: type(item) is bool,
    "BYTES": lambda item: type(item) is str,
}
