"""Values of samples as arrays, by the data types of a model's config."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

NUMPY_TYPES: dict[str, Any] = {
    "TYPE_BOOL": np.bool_,
    "TYPE_UINT8": np.uint8,
    "TYPE_UINT16": np.uint16,
    "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64,
    "TYPE_INT8": np.int8,
    "TYPE_INT16": np.int16,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_FP64": np.float64,
    "TYPE_BF16": np.float32,
    "TYPE_STRING": np.object_,
}
"""Data types of a config that can be sent from numpy, which has no BF16: float32 holds all its values."""

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "text"}


def data_type(tensor: Any) -> str:
    """The name of a declared tensor's data type, such as `TYPE_FP32`."""
    known = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return str(known[tensor.data_type].name) if tensor.data_type in known else "TYPE_INVALID"


def bfloats(tensors: Iterable[Any]) -> frozenset[str]:
    """The names of the declared tensors whose data type is BF16."""
    return frozenset(tensor.name for tensor in tensors if data_type(tensor) == "TYPE_BF16")


def wire_type(tensor: Any) -> str:
    """The name of a declared tensor's data type in the Open Inference Protocol, such as `FP32`."""
    name = data_type(tensor).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def fits(shape: Sequence[int], dims: Sequence[int]) -> bool:
    """Whether a shape is one that declared dims allow; -1 there allows any size."""
    return len(shape) == len(dims) and all(want in (-1, have) for have, want in zip(shape, dims, strict=True))


def to_array(value: Any, name: str) -> Array:
    """A nested list (or a single value) of a sample as an array of a data type of a config.

    Raises:
        ValueError: it is ragged, holds another type, or a value out of range; the message says so and where.
    """
    if name not in NUMPY_TYPES:
        raise ValueError(f"the data type {name} cannot be written in a sample")
    flat, shape = _flatten(value)
    kind = (
        str
        if name == "TYPE_STRING"
        else bool
        if name == "TYPE_BOOL"
        else float
        if "FP" in name or name == "TYPE_BF16"
        else int
    )
    for position, item in enumerate(flat):
        good = type(item) is kind or (kind is float and type(item) is int)
        if not good:
            raise ValueError(f"element {position} is {item!r:.40}, where {name} takes {_WORDS[kind]}")
    target = NUMPY_TYPES[name]
    if kind is str:
        array = np.empty(len(flat), np.object_)
        array[:] = [item.encode() for item in flat]
        return array.reshape(shape)
    if kind is int:
        limits = np.iinfo(target)
        for position, item in enumerate(flat):
            if not limits.min <= item <= limits.max:
                raise ValueError(f"element {position} is {item}, outside the range of {name}")
    with np.errstate(over="ignore"):
        made = np.array(flat, target)
        if name == "TYPE_BF16":
            made = _to_bfloat16(made)
    if kind is float and not np.isfinite(made).all():
        raise ValueError(f"a number is outside the range of {name}")
    return made.reshape(shape)


def _to_bfloat16(singles: Array) -> Array:
    """Single-precision numbers that are not NaN, rounded half to even to those that BF16 has, as it goes over the wire."""
    words = singles.view(np.uint32).astype(np.uint64)
    rounded = (words + 0x7FFF + (words >> 16 & 1)) & 0xFFFF0000
    return rounded.astype(np.uint32).view(np.float32)


def _flatten(value: Any) -> tuple[list[Any], tuple[int, ...]]:
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        size = len(level[0])
        if any(not isinstance(item, list) or len(item) != size for item in level):
            raise ValueError("the lists in it have different lengths")
        shape.append(size)
        level = [element for item in level for element in item]
        if not level:
            return [], tuple(shape)
    if any(isinstance(item, list) for item in level):
        raise ValueError("the lists in it have different depths")
    return level, tuple(shape)
