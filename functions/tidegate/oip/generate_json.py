"""The JSON of Triton's generate extension: a request's inputs and parameters as members of one object.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_generate.md. A member that has the name of an
input is that input; every other one, in `parameters` or beside it, is a parameter. Triton turns no headers into parameters here,
so a rule's are written into the JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tidegate.errors import malformed
from tidegate.oip.json_walk import UnwalkableError, check_nesting
from tidegate.oip.metadata import Tensor
from tidegate.oip.request_json import check_reserved
from tidegate.oip.values import encode_inputs, flattened
from tidegate.strict_json import UnreadableError, parse

BESIDE_OUTPUTS = frozenset({"id", "model_name", "model_version", "sequence_id", "sequence_start", "sequence_end"})
"""The members of a response that are not outputs. Triton 2.51 writes those of a sequence into every response of an ensemble."""

_BLANKS = b" \t\r\n"


def read_generate(body: bytes) -> Mapping[str, Any]:
    """Check the JSON of a request, and return its `parameters`, without `sequence_id`: that makes no sequence here.

    An empty body is an empty object, as for Triton.

    Raises:
        RefusedError: it, or its `parameters`, are not an object, it would crash a server, or it uses a reserved name.
    """
    if not body:
        return {}
    try:
        check_nesting(body, len(body))
        document = parse(body, finite=False)
    except (UnwalkableError, UnreadableError) as error:
        raise malformed(f"the JSON of the request cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise malformed("the body must be one JSON object, with the model's inputs and parameters as its members")
    parameters = document.get("parameters", {})
    if not isinstance(parameters, dict):
        raise malformed("the member 'parameters' of the request must be a JSON object")
    check_reserved(document)
    check_reserved(parameters)
    return {name: value for name, value in parameters.items() if name != "sequence_id"}


def with_parameters(body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Add parameters to the JSON of a request that `read_generate` accepts, as `infer` would get them from `headers`.

    All else of the body stays as it is.
    """
    added = [f"{json.dumps(name.decode())}:{json.dumps(value.decode())}" for name, value in headers]
    if not added:
        return body
    start = (body.rstrip(_BLANKS) or b"{}")[:-1].rstrip(_BLANKS)
    comma = b"" if start.endswith(b"{") else b","
    return b"".join((start, comma, ",".join(added).encode(), b"}"))


def encode_generate(tensors: Sequence[Tensor], inputs: Mapping[str, Any], most_values: int) -> bytes:
    """Return the JSON of a request with plain values as its inputs.

    Triton takes an input as a flat list, and finds its shape: the last free dimension has all elements that the fixed ones leave,
    and the others are 1.

    Raises:
        RefusedError: as `encode_inputs` does, or an input's shape is not the one that Triton would find.
    """
    data, length = encode_inputs(tensors, inputs, most_values)
    by_name = {tensor.name: tensor for tensor in tensors}
    document: dict[str, Any] = {}
    for encoded in json.loads(data[:length])["inputs"]:
        name, shape = encoded["name"], encoded["shape"]
        flat = flattened(inputs[name]) if isinstance(inputs[name], list) else [inputs[name]]
        if shape != generated_shape(by_name[name].shape, len(flat)):
            raise malformed(
                f"input {name!r}: a stream takes one row, with one free dimension; this has {shape}", input=name
            )
        document[name] = flat
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def generated_shape(declared: Sequence[int], count: int) -> list[int]:
    """Return the shape that Triton gives a flat list of `count` values, for an input with a declared shape (-1: free)."""
    shape = list(declared)
    left = count // max(math.prod(size for size in shape if size >= 0), 1)
    for position in range(len(shape) - 1, -1, -1):
        if shape[position] < 0:
            shape[position], left = left, 1
    return shape
