"""Requests and answers with binary tensors: a JSON head, followed by the data of the tensors in order.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

HEAD_LENGTH = b"inference-header-content-length"
"""The header with the size of the JSON head in bytes."""

BINARY = (b"content-type", b"application/octet-stream")


class MalformedAnswerError(ValueError):
    """An answer does not follow the Open Inference Protocol."""


class RawTensor(NamedTuple):
    """A tensor as it is sent. `data` is bytes, or nested lists if an answer has the tensor in its JSON."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: bytes | Any


def write_request(tensors: Iterable[RawTensor], parameters: Mapping[str, Any]) -> tuple[bytes, int]:
    """Return a request's body, and the size of its JSON head in bytes. It requests all outputs in binary."""
    described, blobs = [], []
    for tensor in tensors:
        size = {"binary_data_size": len(tensor.data)}
        described.append(
            {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype, "parameters": size}
        )
        blobs.append(tensor.data)
    document = {"inputs": described, "parameters": {"binary_data_output": True, **parameters}}
    head = json.dumps(document, separators=(",", ":")).encode()
    return b"".join((head, *blobs)), len(head)


def join_bytes(elements: Iterable[bytes]) -> bytes:
    """Return elements of a BYTES tensor as its data: each with its length before it."""
    return b"".join(struct.pack("<I", len(each)) + each for each in elements)


def split_bytes(data: bytes) -> list[bytes]:
    """Return the elements of a BYTES tensor.

    Raises:
        MalformedAnswerError: the data ends within an element.
    """
    elements, at = [], 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if end > len(data):
            raise MalformedAnswerError("it ends within an element")
        elements.append(data[at + 4 : end])
        at = end
    return elements


def read_answer(body: bytes, head_length: int | None) -> list[RawTensor]:
    """Return the outputs of an uncompressed answer. `head_length` is None if all of it is JSON.

    Data may be shorter than its tensor's shape: that is not checked.

    Raises:
        MalformedAnswerError: the answer does not follow the protocol.
    """
    start = len(body) if head_length is None else head_length
    tensors = []
    try:
        for each in json.loads(body[:start])["outputs"]:
            size = each.get("parameters", {}).get("binary_data_size")
            data = each["data"] if size is None else body[start : start + size]
            start += size or 0
            tensors.append(RawTensor(str(each["name"]), str(each["datatype"]), each["shape"], data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MalformedAnswerError(str(error)) from error
    return tensors
