"""Examines the JSON of a request to `/v2`: refuses what would crash a server, and finds what a decision depends on.

Examining a small request takes microseconds; it is parsed only if it names something that a decision depends on. In larger
JSON, tensors' data is never parsed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tidegate.errors import Refusal, RefusedError, malformed
from tidegate.oip.inflating import inflated
from tidegate.oip.json_walk import UnwalkableError, check_nesting, top_members
from tidegate.oip.sequence_id import sequence_id_at
from tidegate.oip.shapes import check_shapes
from tidegate.rules.contract import RESERVED_PARAMETERS
from tidegate.strict_json import UnreadableError, parse

MOST_PARSED_BYTES: Final = 128 * 1024
"""The largest JSON that is parsed as a whole, or examined on the event loop; in larger JSON, the largest `parameters` or
`outputs`."""

_ESCAPE: Final = b"\\u00"
_CLASSES: Final = b"classification"
_RESERVED: Final = re.compile(f'"{RESERVED_PARAMETERS}'.encode(), re.IGNORECASE)
_LONGEST_SHOWN: Final = 64


class JsonName:
    """A member name to find in JSON without parsing it, which would cost more than all other work on a request.

    It is also found with escaped letters: `"par\\u0061meters"` is the name `parameters`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._plain = f'"{name}"'.encode()
        letters = (rf"(?:{letter}|\\u00(?i:{ord(letter):02x}))" for letter in name)
        self._escaped = re.compile(f'"{"".join(letters)}"'.encode())

    def is_in(self, text: bytes, end: int, has_escapes: bool) -> bool:
        """Return whether the name occurs in the first `end` bytes of some JSON, possibly as a string value."""
        is_plain = text.find(self._plain, 0, end) >= 0
        return is_plain or (has_escapes and self._escaped.search(text, 0, end) is not None)


PARAMETERS: Final = JsonName("parameters")
SEQUENCE_ID: Final = JsonName("sequence_id")


class RequestJson(NamedTuple):
    """The parts of a request besides its tensors.

    `parameters` are the request's, if they were looked for and are an object; `classified` names the outputs that it wants as
    classes. `sequence_id_at` is where the uncompressed JSON has the value of the parameter `sequence_id`, if that names a sequence.
    """

    parameters: Mapping[str, Any]
    classified: tuple[str, ...] = ()
    sequence_id_at: tuple[int, int] | None = None


_NOTHING: Final = RequestJson({})

_MOST_KEPT: Final = 1_024
_MOST_KEPT_BYTES: Final = 512
_known_harmless: set[tuple[bytes, int, str]] = set()
"""JSON in which nothing was found, with the size of its request and the name that was looked for."""


def examine_request(
    lengths: Sequence[bytes],
    codings: Sequence[bytes],
    body: bytes,
    size_bytes: int,
    wanted: JsonName,
    most_json_bytes: int,
    most_bytes: int = MOST_PARSED_BYTES,
) -> RequestJson | None:
    """Examine the JSON of a request as it was sent, compressed or not; return None if it is larger than `most_bytes`.

    Args:
        lengths: the values of `Inference-Header-Content-Length`.
        codings: the content codings of the body.
        body: the body, or the start of it, with all of the JSON.
        size_bytes: the size of the body.
        wanted: as for `examine`.
        most_json_bytes: the largest JSON that is accepted.
        most_bytes: the largest JSON to examine, and the most that a compressed request may inflate to.

    Raises:
        RefusedError: as `examine` does, or the JSON is too large, or its length is malformed.
    """
    if codings:
        if tuple(codings) not in ((b"gzip",), (b"deflate",)):
            # Triton supports no other, and refuses it.
            return _NOTHING
        text = inflated(body, most_bytes) if len(body) <= most_bytes else None
        if text is None:
            return None
        body, size_bytes = text, len(text)
    end = json_end(lengths, size_bytes)
    check_json_size(end, most_json_bytes)
    return None if end > most_bytes else examine(body, end, size_bytes, wanted)


def check_json_size(size_bytes: int, most_bytes: int) -> None:
    """Refuse JSON that would take a server too long: it parses less than 10 MB/s, and blocks other requests meanwhile.

    Raises:
        RefusedError: the JSON is larger than `most_bytes`.
    """
    if size_bytes > most_bytes:
        raise RefusedError(
            Refusal.JSON_TOO_LARGE,
            f"the JSON of the request is larger than {most_bytes} bytes (max_json_bytes); send its tensors in binary, with "
            "`binary_data_size`: "
            "https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md",
            limit_bytes=most_bytes,
            setting="max_json_bytes",
        )


def json_end(lengths: Sequence[bytes], size_bytes: int) -> int:
    """Return where the JSON of a request of `size_bytes` ends, by the values of `Inference-Header-Content-Length`.

    Raises:
        RefusedError: the value is not a number of bytes within the request, or there are two: a server might use the other.
    """
    if not lengths:
        return size_bytes
    if len(lengths) > 1:
        raise malformed("the header Inference-Header-Content-Length must be sent once")
    text = lengths[0]
    if text.isdigit() and len(text) <= 18 and (end := int(text)) <= size_bytes:
        return end
    shown = text[:32].decode("ascii", "replace")
    raise malformed(f"inference header size should be in range (0, {size_bytes}), got: {shown}")


def examine(text: bytes, end: int, size_bytes: int, wanted: JsonName) -> RequestJson:
    """Examine the JSON of a request. Where it is small, and names nothing that a decision depends on, the result is kept: the
    requests of a model whose tensors follow in binary have the same JSON.

    Args:
        text: begins with the JSON, inflated.
        end: where the JSON ends.
        size_bytes: the size of the whole request, inflated.
        wanted: the name of what the decision depends on, if the JSON contains it.

    Raises:
        RefusedError: the JSON would crash a server, uses a reserved name, or contains `wanted` and cannot be parsed.
    """
    if end > _MOST_KEPT_BYTES:
        return _examine(text, end, size_bytes, wanted)
    key = (text[:end], size_bytes, wanted.name)
    if key in _known_harmless:
        return _NOTHING
    found = _examine(key[0], end, size_bytes, wanted)
    if found is _NOTHING:
        if len(_known_harmless) >= _MOST_KEPT:
            _known_harmless.clear()
        _known_harmless.add(key)
    return found


def _examine(text: bytes, end: int, size_bytes: int, wanted: JsonName) -> RequestJson:
    try:
        check_nesting(text, end)
    except UnwalkableError as error:
        raise malformed(f"the JSON of the request cannot be read: {error}") from None
    # Searching for one byte is fast, and most JSON has no backslash.
    first = text.find(b"\\", 0, end)
    has_escapes = first >= 0 and text.find(_ESCAPE, first, end) >= 0
    has_empty = check_shapes(text, end, has_escapes, size_bytes)
    is_wanted = wanted.is_in(text, end, has_escapes)
    if is_wanted and end <= MOST_PARSED_BYTES:
        return _located(_of(_parsed(text[:end]), has_empty), text, end)
    # Few names begin with this letter, and two plain searches cost less than one that ignores case.
    has_t = text.find(b'"t', 0, end) >= 0 or text.find(b'"T', 0, end) >= 0
    is_reserved = has_t and _RESERVED.search(text, 0, end) is not None
    if is_wanted or has_escapes or is_reserved or text.find(_CLASSES, 0, end) >= 0:
        return _located(_of(_walked(text, end, is_wanted), has_empty), text, end)
    return _NOTHING


def _located(found: RequestJson, text: bytes, end: int) -> RequestJson:
    if not found.parameters.get("sequence_id"):
        return found
    return found._replace(sequence_id_at=sequence_id_at(text, end))


def _parsed(text: bytes) -> Mapping[str, Any]:
    """Parse the JSON as an object; return an empty one for another value.

    Raises:
        RefusedError: it cannot be parsed. Triton's parser is more lenient and would run a model without the context in it, and
            of two members with the same name it would use the other one.
    """
    try:
        # Triton accepts NaN in the data of tensors.
        document = parse(text, finite=False)
    except UnreadableError as error:
        why = f"the JSON of the request cannot be read for context or a sequence_id: {error}"
        raise malformed(why) from None
    return document if isinstance(document, dict) else {}


def _walked(text: bytes, end: int, is_wanted: bool) -> Mapping[str, Any]:
    """Parse `parameters` and `outputs` alone, skipping the other members."""
    try:
        spans = top_members(text, end)
    except UnwalkableError as unwalkable:
        if not is_wanted:
            # Triton cannot parse it either, and refuses it.
            return {}
        raise malformed(f"the JSON of the request cannot be read for context or a sequence_id: {unwalkable}") from None
    except ValueError as error:
        raise malformed(f"the JSON of the request cannot be read: {error}") from None
    found: dict[str, Any] = {}
    for name in ("parameters", "outputs"):
        start, stop = spans.get(name, (0, 0))
        if stop - start > MOST_PARSED_BYTES:
            raise malformed(f"the member '{name}' of the request is larger than {MOST_PARSED_BYTES} bytes")
        if stop:
            try:
                found[name] = parse(text[start:stop], finite=False)
            except UnreadableError as error:
                raise malformed(f"the member '{name}' of the request cannot be read: {error}") from None
    return found


def _of(document: Mapping[str, Any], has_empty: bool) -> RequestJson:
    parameters = document.get("parameters")
    if not isinstance(parameters, dict):
        parameters = {}
    check_reserved(parameters)
    outputs = document.get("outputs")
    classified = _classified(outputs) if isinstance(outputs, list) else []
    if classified and has_empty:
        # Triton 2.51 crashes when an output that it makes classes of is empty, which most models' are for an empty input.
        raise malformed("an input is empty, and no classes are made of an empty output: ask for the output as it is")
    return RequestJson(parameters, tuple(classified))


def check_reserved(parameters: Iterable[str]) -> None:
    """Refuse parameters whose names are reserved for Tidegate's own.

    Raises:
        RefusedError: a name begins with 'tidegate'.
    """
    for name in parameters:
        if name.lower().startswith(RESERVED_PARAMETERS):
            raise malformed(
                f"the parameter {name[:_LONGEST_SHOWN]!r} is not for callers: names that begin with 'tidegate' are "
                "reserved"
            )


def _classified(outputs: list[Any]) -> list[str]:
    """Return the outputs that are wanted as classes. Triton truncates their count to 32 bits, and takes 0 for none."""
    found = []
    for output in outputs:
        parameters = output.get("parameters") if isinstance(output, dict) else None
        count = parameters.get(_CLASSES.decode()) if isinstance(parameters, dict) else None
        if type(count) is int and count & 0xFFFFFFFF:
            found.append(str(output.get("name")))
    return found
