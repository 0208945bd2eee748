"""Requests and answers of the Open Inference Protocol in its binary form, as NumPy arrays.

`tritonclient.http` does the same, but needs gevent, which the shard agent and the functions do not have. A test compares the
two: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tritonclient.utils import (
    InferenceServerException,
    deserialize_bytes_tensor,
    np_to_triton_dtype,
    serialize_byte_tensor,
    triton_to_np_dtype,
)

from tidegate.ports import HttpResponse
from tidegate.triton.golden.tensors import Array

MAX_REASON = 600
_INFLATE: Mapping[bytes | None, Callable[[bytes], bytes]] = {
    None: bytes,
    b"gzip": gzip.decompress,
    b"deflate": zlib.decompress,
}


class MalformedAnswerError(ValueError):
    """A response is not in the form of the Open Inference Protocol."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output of an answer: its data type in the protocol's words, and its values in their shape."""

    datatype: str
    array: Array


def encode(inputs: Mapping[str, Array], bfloats: frozenset[str], parameters: Mapping[str, Any]) -> tuple[bytes, int]:
    """A request's body, and how many bytes of JSON it begins with. All outputs are asked for in binary.

    Args:
        inputs: an array for each input.
        bfloats: the inputs that go out as BF16, whose arrays are float32.
        parameters: the request's parameters: texts, numbers, true or false.

    Raises:
        ValueError: an array is of a type that Triton does not have.
    """
    described, blobs = [], []
    for name, array in inputs.items():
        datatype = "BF16" if name in bfloats else np_to_triton_dtype(array.dtype)
        if datatype is None:
            raise ValueError(f"input {name!r} has the type {array.dtype}, which Triton does not have")
        blob = _bytes(array, datatype)
        size = {"binary_data_size": len(blob)}
        described.append({"name": name, "shape": list(array.shape), "datatype": datatype, "parameters": size})
        blobs.append(blob)
    document = {"inputs": described, "parameters": {"binary_data_output": True, **parameters}}
    head = json.dumps(document, separators=(",", ":")).encode()
    return b"".join((head, *blobs)), len(head)


def decode(response: HttpResponse) -> dict[str, Output]:
    """The outputs of a response, by name.

    Raises:
        MalformedAnswerError: it is not in the form of the protocol.
    """
    try:
        body = _INFLATE[response.header(b"content-encoding")](response.body)
        length = response.header(b"inference-header-content-length")
        start = len(body) if length is None else int(length)
        outputs: dict[str, Output] = {}
        for each in json.loads(body[:start])["outputs"]:
            size = (each.get("parameters") or {}).get("binary_data_size")
            blob = None if size is None else body[start : start + size]
            start += size or 0
            outputs[str(each["name"])] = Output(str(each["datatype"]), _array(each, blob))
    except (
        ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, EOFError, RecursionError, MemoryError,
        struct.error, zlib.error, OSError, InferenceServerException,
    ) as error:  # fmt: skip
        raise MalformedAnswerError(f"the answer cannot be read: {str(error)[:MAX_REASON]}") from error
    return outputs


def _bytes(array: Array, datatype: str) -> bytes:
    if datatype != "BYTES":
        return array.astype(triton_to_np_dtype(datatype)).tobytes()
    packed = serialize_byte_tensor(array)
    return bytes(packed.item()) if packed.size else b""


def _array(described: Mapping[str, Any], blob: bytes | None) -> Array:
    datatype = described["datatype"]
    kind = triton_to_np_dtype(datatype)
    if kind is None:
        raise ValueError(f"Triton has no data type {datatype!r:.40}")
    if blob is None:
        array = np.array(described["data"], kind)
    elif datatype == "BYTES":
        array = deserialize_bytes_tensor(blob)
    else:
        array = np.frombuffer(blob, kind)
    # A type of the client library's is not a number to numpy; float32 holds all its values.
    return array.reshape(described["shape"]).astype(np.float32 if datatype == "BF16" else array.dtype, copy=False)
