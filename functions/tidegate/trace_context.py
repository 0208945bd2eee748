"""The id of a request's trace in its headers: https://www.w3.org/TR/trace-context/."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

TRACEPARENT: Final = b"traceparent"
TRACESTATE: Final = b"tracestate"

_BLANKS = b" \t"
_ZERO_TRACE, _ZERO_SPAN = b"0" * 32, b"0" * 16
# A version after 00 may have further fields. Upper case is not valid.
_FORM = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]*)?")


@dataclass(frozen=True, slots=True)
class TraceParent:
    """The span of a caller: its trace's id and its own, in lower-case hexadecimal digits, and the flags (1: sampled)."""

    trace_id: str
    span_id: str
    flags: int


def trace_parent(headers: Sequence[tuple[bytes, bytes]]) -> TraceParent | None:
    """Return the span of the caller by a request's headers, names in lower case; None if `traceparent` is missing, invalid or sent
    more than once, by which a new trace begins (https://www.w3.org/TR/trace-context/#a-traceparent-is-not-received)."""
    found: bytes | None = None
    for name, value in headers:
        if name == TRACEPARENT:
            if found is not None:
                return None
            found = value
    match = None if found is None else _FORM.fullmatch(found.strip(_BLANKS))
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more is not None) or trace_id == _ZERO_TRACE or span_id == _ZERO_SPAN:
        return None
    return TraceParent(trace_id.decode(), span_id.decode(), int(flags, 16))


def trace_states(headers: Sequence[tuple[bytes, bytes]]) -> list[str]:
    """Return every `tracestate` of a request, in order."""
    return [value.strip(_BLANKS).decode("latin-1") for name, value in headers if name == TRACESTATE]


def without_context(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request, names in lower case, without those of a trace."""
    return [each for each in headers if each[0] != TRACEPARENT and each[0] != TRACESTATE]
