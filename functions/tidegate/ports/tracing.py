"""The Protocols of traces: what a gateway records of the way of a request. The terms are OpenTelemetry's:
https://opentelemetry.io/docs/specs/otel/trace/api/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tidegate.trace_context import TRACEPARENT, TRACESTATE, without_context

Attributes = Mapping[str, str | int | float | bool]
"""Attributes of a span by name. Never a value of a context, of a header or of a payload."""


class Span(Protocol):
    """A part of a trace. Times are those of `time.perf_counter`. Once it has ended, its methods do nothing."""

    @property
    def trace_id(self) -> str:
        """The trace's id, 32 hexadecimal digits."""

    @property
    def traceparent(self) -> bytes:
        """The header of a request that continues the trace from here."""

    @property
    def tracestate(self) -> bytes:
        """The same; empty: the trace has none."""

    @property
    def is_recorded(self) -> bool:
        """Whether the trace is sampled; without, the methods do nothing, and a child is the span itself."""

    def child(self, name: str, at_s: float | None = None, *, is_client: bool = False) -> Span:
        """Begin a child, now or at a time; `is_client` marks a request to another process."""

    def rename(self, name: str) -> None:
        """Replace the span's name, once more is known."""

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""

    def fail(self, kind: str) -> None:
        """Mark the span as failed, by the class of the error or the status of the answer."""

    def end(self, at_s: float | None = None) -> None:
        """End the span, now or at a time, and with it the children that have not ended."""


class Tracer(Protocol):
    def begin(self, headers: Sequence[tuple[bytes, bytes]], at_s: float, *, is_client: bool = False) -> Span:
        """Begin the first span of this process for a request: in the trace that its headers name, else in a new one."""

    def flush(self, most_s: float) -> None:
        """Export the spans that have ended, and wait for that for at most so many seconds."""

    def close(self, most_s: float) -> None:
        """Export the spans that have ended, and no others; as `flush`."""


def continued(headers: Sequence[tuple[bytes, bytes]], span: Span) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request that continues a trace from a span.

    Without the trace, if that is not recorded: Triton 2.51 records every request with a `traceparent`, whatever its flags say.
    """
    kept = without_context(headers)
    if span.is_recorded:
        kept.append((TRACEPARENT, span.traceparent))
        if span.tracestate:
            kept.append((TRACESTATE, span.tracestate))
    return kept
