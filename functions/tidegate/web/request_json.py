"""The JSON of a request to `/v2`: what would end a server is refused, and what a decision goes by is found.

A small request is looked at in some microseconds, and parsed only where it names what a decision goes by. The data of tensors
is never parsed where the JSON is larger than that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.web.errors import malformed, too_much_json
from tidegate.web.inflating import inflated
from tidegate.web.json_body import UnreadableError, parse
from tidegate.web.json_names import JsonName
from tidegate.web.json_walk import UnwalkableError, check_nesting, top_members
from tidegate.web.shapes import check_shapes

MOST_PARSED_BYTES = 128 * 1024
"""Most JSON that is parsed as a whole, or looked at on the event loop; and most of `parameters` or `outputs` in larger JSON."""

_ESCAPE = b"\\u00"
_CLASSES = b"classification"
_RESERVED = re.compile(rb'"tidegate', re.IGNORECASE)
_RESERVED_PREFIX = "tidegate"
_LONGEST_SHOWN = 64


@dataclass(frozen=True, slots=True)
class RequestJson:
    """What a request says besides its tensors: its `parameters`, if they were looked for and are an object, and the names of
    the outputs that it wants as classes."""

    parameters: Mapping[str, Any]
    classified: tuple[str, ...] = ()


_NOTHING = RequestJson({})


def examine_request(
    lengths: Sequence[bytes],
    codings: Sequence[bytes],
    body: bytes,
    size_bytes: int,
    wanted: JsonName,
    most_json_bytes: int,
    most_bytes: int = MOST_PARSED_BYTES,
) -> RequestJson | None:
    """Look at the JSON of a request as it came, compressed or not; None where it is larger than `most_bytes`.

    Args:
        lengths: the values of `Inference-Header-Content-Length`.
        codings: those of the body.
        body: the body, or the start of it with all of the JSON.
        size_bytes: the size of the body.
        wanted: as for `examine`.
        most_json_bytes: the largest JSON that is accepted.
        most_bytes: the largest JSON that is looked at, and what a compressed request may inflate to.

    Raises:
        WebError: as `examine` does; the JSON is too large (413); or the length is malformed.
    """
    if codings:
        if codings not in ([b"gzip"], [b"deflate"]):
            # Triton reads no other, and says so.
            return _NOTHING
        text = inflated(body, most_bytes) if len(body) <= most_bytes else None
        if text is None:
            return None
        body, size_bytes = text, len(text)
    end = json_end(lengths, size_bytes)
    check_json_size(end, most_json_bytes)
    return None if end > most_bytes else examine(body, end, size_bytes, wanted)


def check_json_size(size_bytes: int, most_bytes: int) -> None:
    """Refuse JSON that would take a server too long: it parses less than 10 MB/s, and holds up others' requests meanwhile.

    Raises:
        WebError: it has more than `most_bytes` (413).
    """
    if size_bytes > most_bytes:
        raise too_much_json(most_bytes)


def json_end(lengths: Sequence[bytes], size_bytes: int) -> int:
    """Where the JSON of a request of `size_bytes` ends, by the values of `Inference-Header-Content-Length`.

    Raises:
        WebError: that is no number of bytes that the request has, or there are two, of which a server might go by the other.
    """
    if not lengths:
        return size_bytes
    if len(lengths) > 1:
        raise malformed("the header Inference-Header-Content-Length must be sent once")
    text = lengths[0]
    if text.isdigit() and len(text) <= 18 and int(text) <= size_bytes:
        return int(text)
    shown = text[:32].decode("ascii", "replace")
    raise malformed(f"inference header size should be in range (0, {size_bytes}), got: {shown}")


def examine(text: bytes, end: int, size_bytes: int, wanted: JsonName) -> RequestJson:
    """Look at the JSON of a request.

    Args:
        text: begins with the JSON, inflated.
        end: where the JSON ends.
        size_bytes: the size of the whole request, inflated.
        wanted: the name that the JSON contains where a decision goes by it.

    Raises:
        WebError: it would end a server, uses a reserved name, or may hold what a decision goes by and does not parse.
    """
    try:
        check_nesting(text, end)
    except UnwalkableError as error:
        raise malformed(f"the JSON of the request cannot be read: {error}") from None
    # One byte is found at the speed of memory, and most JSON has no backslash.
    first = text.find(b"\\", 0, end)
    has_escapes = first >= 0 and text.find(_ESCAPE, first, end) >= 0
    check_shapes(text, end, has_escapes, size_bytes)
    is_wanted = wanted.is_in(text, end)
    if is_wanted and end <= MOST_PARSED_BYTES:
        return _of(_parsed(text[:end]))
    if is_wanted or has_escapes or text.find(_CLASSES, 0, end) >= 0 or _may_be_reserved(text, end):
        return _of(_walked(text, end, is_wanted))
    return _NOTHING


def _may_be_reserved(text: bytes, end: int) -> bool:
    # Most names begin with another letter, and two searches for bytes cost less than one that ignores case.
    starts = text.find(b'"t', 0, end) >= 0 or text.find(b'"T', 0, end) >= 0
    return starts and _RESERVED.search(text, 0, end) is not None


def _parsed(text: bytes) -> Mapping[str, Any]:
    """The JSON as an object; empty where it is none.

    Raises:
        WebError: it does not parse: Triton's own reader takes more, and would run a model without the context in it; or a name
            is duplicated in one object, where Triton would go by the other of the two.
    """
    try:
        # Triton reads NaN among the data of tensors.
        document = parse(text, finite=False)
    except UnreadableError as error:
        why = f"the JSON of the request cannot be read for context or a sequence_id: {error}"
        raise malformed(why) from None
    return document if isinstance(document, dict) else {}


def _walked(text: bytes, end: int, is_wanted: bool) -> Mapping[str, Any]:
    """`parameters` and `outputs` of JSON whose other members are skipped."""
    try:
        spans = top_members(text, end)
    except UnwalkableError as error:
        if not is_wanted:
            # Triton reads it in the same way, and refuses it.
            return {}
        raise malformed(f"the JSON of the request cannot be read for context or a sequence_id: {error}") from None
    except ValueError as error:
        raise malformed(f"the JSON of the request cannot be read: {error}") from None
    found: dict[str, Any] = {}
    for name in ("parameters", "outputs"):
        start, stop = spans.get(name, (0, 0))
        if stop - start > MOST_PARSED_BYTES:
            raise malformed(f"the member '{name}' of the request is larger than {MOST_PARSED_BYTES} bytes")
        if stop:
            found[name] = _member(name, text[start:stop])
    return found


def _member(name: str, text: bytes) -> Any:
    try:
        return parse(text, finite=False)
    except UnreadableError as error:
        raise malformed(f"the member '{name}' of the request cannot be read: {error}") from None


def _of(document: Mapping[str, Any]) -> RequestJson:
    parameters = document.get("parameters")
    if not isinstance(parameters, dict):
        parameters = {}
    for name in parameters:
        if name[:8].lower() == _RESERVED_PREFIX:
            raise malformed(
                f"the parameter {name[:_LONGEST_SHOWN]!r} is not for callers: names that begin with 'tidegate' are those of "
                "the rules"
            )
    outputs = document.get("outputs")
    return RequestJson(parameters, tuple(_classified(outputs)) if isinstance(outputs, list) else ())


def _classified(outputs: list[Any]) -> list[str]:
    """The outputs that are wanted as classes. Triton keeps the lower 32 bits of how many, and takes 0 for none."""
    found = []
    for output in outputs:
        parameters = output.get("parameters") if isinstance(output, dict) else None
        count = parameters.get(_CLASSES.decode()) if isinstance(parameters, dict) else None
        if type(count) is int and count & 0xFFFFFFFF:
            found.append(str(output.get("name")))
    return found
