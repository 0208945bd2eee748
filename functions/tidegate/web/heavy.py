"""Work whose time grows with a request: pure functions from bytes to bytes, so that they can run in another process.

JSON is parsed and written under Python's global lock, so that a thread would hold up the event loop as much as doing it there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from tidegate.web.errors import Failure, WebError
from tidegate.web.inflating import MOST_INFLATED_BYTES, too_inflated
from tidegate.web.json_body import read_members
from tidegate.web.json_names import PARAMETERS, SEQUENCE_ID, JsonName
from tidegate.web.metadata import ModelMetadata, Tensor
from tidegate.web.request_json import RequestJson, examine_request
from tidegate.web.tensors import decode_outputs, encode_inputs

HEAVY_BYTES = 128 * 1024
"""More than that is not worked on on the event loop, which would be held up for milliseconds."""

_LENGTH_BYTES = 8
_DONE = b"+"
_REFUSED = b"-"


class InlineOffload:
    """A `tidegate.ports.Offload` that works where it is called: for a process with one request at a time."""

    async def run(self, work: str, *parts: bytes | memoryview) -> bytes:
        """Do some work at once."""
        return perform(work, parts)


def perform(work: str, parts: Sequence[bytes | memoryview]) -> bytes:
    """Do some work by its name. The answer, which `result` reads, also has what is wrong with a request."""
    try:
        return _DONE + _WORKS[work](*map(bytes, parts))
    except WebError as error:
        failure = error.failure
        return _REFUSED + _json([failure.status, failure.kind, failure.title, failure.detail, dict(failure.members)])


def result(answer: bytes) -> bytes:
    """What some work resulted in.

    Raises:
        WebError: what is wrong with the request.
    """
    if answer[:1] == _REFUSED:
        raise WebError(Failure(*json.loads(answer[1:])))
    return answer[1:]


def examine_parts(
    lengths: Sequence[bytes], codings: Sequence[bytes], wanted: JsonName, size_bytes: int, most_json_bytes: int
) -> bytes:
    """The first part of the work `examine`, whose second is the body, and whose result `examined` reads."""
    texts = [[each.decode("latin-1") for each in values] for values in (lengths, codings)]
    return _json([*texts, wanted is PARAMETERS, size_bytes, most_json_bytes])


def examined(answer: bytes) -> RequestJson:
    """What `examine` found."""
    parameters, classified = json.loads(result(answer))
    return RequestJson(parameters, tuple(classified))


def encode_parts(metadata: ModelMetadata, members: Sequence[str], most_values: int) -> bytes:
    """The first part of the work `encode`, whose second is the body, and whose result `encoded` reads."""
    tensors = [[each.name, each.datatype, each.shape] for each in metadata.inputs]
    return _json([tensors, list(members), most_values])


def encoded(answer: bytes) -> tuple[bytes, int]:
    """A request in binary form, and the length of its JSON part in bytes."""
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
    return _json([dict(found.parameters), list(found.classified)])


def _read(members: bytes, body: bytes) -> bytes:
    """The members of a body of `/v1` but for its inputs."""
    document = read_members(body, tuple(json.loads(members)))
    document.pop("inputs", None)
    return _json(document)


def _encode(head: bytes, body: bytes) -> bytes:
    tensors, members, most_values = json.loads(head)
    inputs = read_members(body, tuple(members))["inputs"]
    known = tuple(Tensor(name, datatype, tuple(shape)) for name, datatype, shape in tensors)
    data, length = encode_inputs(ModelMetadata((), known, (), 0.0), inputs, most_values)
    return length.to_bytes(_LENGTH_BYTES, "big") + data


def _decode(length: bytes, body: bytes) -> bytes:
    return compact(decode_outputs(body, int(length) if length else None))


def compact(document: Any) -> bytes:
    """A document as JSON for a caller."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _json(document: Any) -> bytes:
    return json.dumps(document).encode()


_WORKS: dict[str, Callable[..., bytes]] = {"examine": _examine, "read": _read, "encode": _encode, "decode": _decode}
