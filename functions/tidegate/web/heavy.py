"""Work whose time grows with a request's size, as functions from bytes to bytes that can run in another process.

A thread would not help: JSON is parsed and written under the global interpreter lock, which would block the event loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from tidegate.errors import ModelAnswerError, Refusal, RefusedError
from tidegate.oip.generate_json import encode_generate, read_generate
from tidegate.oip.inflating import MOST_INFLATED_BYTES, inflated_whole, too_inflated
from tidegate.oip.metadata import ModelMetadata, Tensor
from tidegate.oip.request_json import PARAMETERS, SEQUENCE_ID, JsonName, RequestJson, examine_request
from tidegate.oip.values import decode_outputs, encode_inputs
from tidegate.web.http import compact
from tidegate.web.json_body import read_members

HEAVY_BYTES = 128 * 1024
"""Larger bodies are offloaded: parsing them would block the event loop for milliseconds."""

_LENGTH_BYTES = 8
_DONE = b"+"
_REFUSED = b"-"


class InlineOffload:
    """A `tidegate.ports.Offload` that works on the event loop, for a process that serves one request at a time."""

    async def run(self, work: str, *parts: bytes | memoryview) -> bytes:
        """Run `perform` at once."""
        return perform(work, parts)


def perform(work: str, parts: Sequence[bytes | memoryview]) -> bytes:
    """Do the work named `work` and return its encoded result or error, which `result` decodes."""
    try:
        return _DONE + _WORKS[work](*map(bytes, parts))
    except RefusedError as error:
        return _REFUSED + _json([error.kind, str(error), error.details])
    except ModelAnswerError as error:
        return _REFUSED + _json([None, str(error), error.details])


def result(answer: bytes) -> bytes:
    """Return the result that `perform` encoded.

    Raises:
        RefusedError: the work refused the request.
        ModelAnswerError: the work refused the model's answer.
    """
    if answer[:1] == _REFUSED:
        kind, detail, details = json.loads(answer[1:])
        raise ModelAnswerError(detail, **details) if kind is None else RefusedError(Refusal(kind), detail, **details)
    return answer[1:]


def examine_parts(
    lengths: Sequence[bytes], codings: Sequence[bytes], wanted: JsonName, size_bytes: int, most_json_bytes: int
) -> bytes:
    """Return the first part of the work `examine`. The second part is the body; `examined` decodes the result."""
    texts = [[each.decode("latin-1") for each in values] for values in (lengths, codings)]
    return _json([*texts, wanted is PARAMETERS, size_bytes, most_json_bytes])


def examined(answer: bytes) -> RequestJson:
    """Decode the result of `examine`."""
    parameters, classified, at = json.loads(result(answer))
    return RequestJson(parameters, tuple(classified), None if at is None else (at[0], at[1]))


def encode_parts(metadata: ModelMetadata, members: Sequence[str], most_values: int) -> bytes:
    """Return the first part of the works `encode`, whose result `encoded` decodes, and `encode_generate`, whose result is the JSON of
    a request. The second part is the body."""
    tensors = [[each.name, each.datatype, each.shape] for each in metadata.inputs]
    return _json([tensors, list(members), most_values])


def encoded(answer: bytes) -> tuple[bytes, int]:
    """Decode the result of `encode`: a request with binary tensors, and the length of its JSON part in bytes."""
    data = result(answer)
    return data[_LENGTH_BYTES:], int.from_bytes(data[:_LENGTH_BYTES], "big")


def _examine(head: bytes, body: bytes) -> bytes:
    *texts, is_for_context, size_bytes, most_json_bytes = json.loads(head)
    lengths, codings = [[each.encode("latin-1") for each in values] for values in texts]
    wanted = PARAMETERS if is_for_context else SEQUENCE_ID
    found = examine_request(
        lengths, codings, body, size_bytes, wanted, most_json_bytes, max(len(body), MOST_INFLATED_BYTES)
    )
    if found is None:
        raise too_inflated()
    return _json([dict(found.parameters), list(found.classified), found.sequence_id_at])


def _inflate(body: bytes) -> bytes:
    text = inflated_whole(body, MOST_INFLATED_BYTES)
    if text is None:
        raise too_inflated()
    return text


def _read(members: bytes, body: bytes) -> bytes:
    """Return the members of a `/v1` body without `inputs`, which may be large and are read again by `encode`."""
    document = read_members(body, tuple(json.loads(members)))
    document.pop("inputs", None)
    return _json(document)


def _encode(head: bytes, body: bytes) -> bytes:
    tensors, members, most_values = json.loads(head)
    inputs = read_members(body, tuple(members))["inputs"]
    known = tuple(Tensor(name, datatype, tuple(shape)) for name, datatype, shape in tensors)
    data, length = encode_inputs(known, inputs, most_values)
    return length.to_bytes(_LENGTH_BYTES, "big") + data


def _decode(length: bytes, body: bytes) -> bytes:
    return compact(decode_outputs(body, int(length) if length else None))


def _compare_shadows(*parts: bytes) -> bytes:
    # Imported by a worker that compares, and by no gateway.
    from tidegate.shadows.tallies import compare_parts

    return compare_parts(*parts)


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()


def _encode_generate(head: bytes, body: bytes) -> bytes:
    tensors, members, most_values = json.loads(head)
    known = tuple(Tensor(name, datatype, tuple(shape)) for name, datatype, shape in tensors)
    return encode_generate(known, read_members(body, tuple(members))["inputs"], most_values)


def _generate(body: bytes) -> bytes:
    return _json(read_generate(body))


_WORKS: dict[str, Callable[..., bytes]] = {
    "examine": _examine,
    "inflate": _inflate,
    "read": _read,
    "encode": _encode,
    "decode": _decode,
    "compare_shadows": _compare_shadows,
    "generate": _generate,
    "encode_generate": _encode_generate,
}
