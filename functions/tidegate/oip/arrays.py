"""Tensors as numpy arrays. BF16 is held as float32, as numpy has no such type; BYTES are arrays of objects.

`tritonclient.http` does the same, but needs gevent, which the shard agent and the functions do not have. A test compares
the two.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tidegate.oip.framing import MalformedAnswerError, RawTensor, join_bytes, read_answer, split_bytes, write_request

Array = npt.NDArray[Any]

NUMPY_TYPES: Mapping[str, Any] = {
    "BOOL": np.bool_,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "FP16": np.float16, "BF16": np.float32, "FP32": np.float32, "FP64": np.float64,
    "BYTES": np.object_,
}  # fmt: skip

_DATATYPES = {np.dtype(kind): name for name, kind in NUMPY_TYPES.items() if name != "BF16"}
_INFLATE: Mapping[bytes | None, Callable[[bytes], bytes]] = {
    None: bytes,
    b"gzip": gzip.decompress,
    b"deflate": zlib.decompress,
}
_LONGEST_REASON = 600
_QUIET_NAN = 0x7FC0


@dataclass(frozen=True, slots=True)
class Output:
    datatype: str
    array: Array


def encode(inputs: Mapping[str, Array], bfloats: frozenset[str], parameters: Mapping[str, Any]) -> tuple[bytes, int]:
    """Return a request's body, and the size of its JSON head in bytes.

    Args:
        inputs: an array for each input.
        bfloats: the inputs to send as BF16; their arrays are float32.
        parameters: the request's parameters: strings, numbers and booleans.

    Raises:
        ValueError: Triton has no datatype for the type of an array.
    """
    tensors = []
    for name, array in inputs.items():
        datatype = "BF16" if name in bfloats else _DATATYPES.get(array.dtype)
        if datatype is None:
            raise ValueError(f"input {name!r} has the type {array.dtype}, which Triton does not have")
        tensors.append(RawTensor(name, datatype, array.shape, _to_bytes(array, datatype)))
    return write_request(tensors, parameters)


def decode(body: bytes, head_length: bytes | None = None, coding: bytes | None = None) -> dict[str, Output]:
    """Return the outputs of an answer by name. `head_length` is its header `Inference-Header-Content-Length`, `coding` is
    `Content-Encoding`.

    Raises:
        MalformedAnswerError: the answer does not follow the protocol.
    """
    try:
        tensors = read_answer(_INFLATE[coding](body), None if head_length is None else int(head_length))
        return {each.name: Output(each.datatype, _array(each)) for each in tensors}
    except (
        ValueError,
        LookupError,
        TypeError,
        ArithmeticError,
        EOFError,
        OSError,
        RecursionError,
        MemoryError,
        zlib.error,
    ) as error:
        raise MalformedAnswerError(f"the answer cannot be read: {str(error)[:_LONGEST_REASON]}") from error


def rounded_to_bfloat16(singles: Array) -> Array:
    """Round single-precision numbers to the nearest BF16 value, half to even."""
    return (_to_bfloat16(singles).astype(np.uint32) << 16).view(np.float32)


def _to_bytes(array: Array, datatype: str) -> bytes:
    if datatype == "BF16":
        return _to_bfloat16(array).tobytes()
    if datatype != "BYTES":
        return array.tobytes()
    return join_bytes([each if isinstance(each, bytes) else str(each).encode() for each in array.ravel()])


def _array(tensor: RawTensor) -> Array:
    if tensor.datatype not in NUMPY_TYPES:
        raise ValueError(f"Triton has no data type {tensor.datatype!r:.40}")
    kind = NUMPY_TYPES[tensor.datatype]
    if not isinstance(tensor.data, bytes):
        array: Array = np.array(tensor.data, kind)
    elif tensor.datatype == "BYTES":
        elements = split_bytes(tensor.data)
        array = np.empty(len(elements), np.object_)
        array[:] = elements
    elif tensor.datatype == "BF16":
        array = (np.frombuffer(tensor.data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        array = np.frombuffer(tensor.data, kind)
    return array.reshape(tensor.shape)


def _to_bfloat16(singles: Array) -> Array:
    words = singles.astype(np.float32).view(np.uint32)
    rounded = (words.astype(np.uint64) + 0x7FFF + (words >> 16 & 1)) >> 16
    sign = words >> 16 & 0x8000
    return np.where(np.isnan(singles), _QUIET_NAN | sign, rounded).astype(np.uint16)
