"""Spans of OpenTelemetry's SDK, exported over OTLP/HTTP by a thread of their own.

What is exported, sampled and named follows OpenTelemetry's own environment variables: see `environment`. A collector that does
not answer costs requests nothing: spans wait in a queue of a fixed length, and what does not fit is dropped and counted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace import Tracer as SdkTracer
from opentelemetry.trace.span import TraceState

from tidegate import __version__
from tidegate.ports.tracing import Attributes
from tidegate.trace_context import trace_parent, trace_states
from tidegate.tracing.environment import most_waiting, traces_endpoint

SERVICE = "tidegate"
"""The name of the service, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` says another."""

REPORT_EVERY_S = 60.0
LONGEST_STATE_BYTES = 8_000
"""The longest `tracestate` that is passed on: Triton resets the connection over a header of more than 8 191 bytes."""

_FAILED = Status(StatusCode.ERROR)
_NO_PARENT = Context()

Report = Callable[[str], None]
"""Gets a text for the log, in the thread that exports."""


class OtlpSpan:
    """A `tidegate.ports.Span`."""

    __slots__ = (
        "_children",
        "_has_ended",
        "_offset_ns",
        "_span",
        "_tracer",
        "is_recorded",
        "trace_id",
        "traceparent",
        "tracestate",
    )

    def __init__(self, tracer: SdkTracer, span: SdkSpan, offset_ns: int, tracestate: bytes) -> None:
        context = span.get_span_context()
        self._tracer = tracer
        self._span = span
        # From the clock that times are given in to Unix time: one for a trace, whatever happens to the machine's clock.
        self._offset_ns = offset_ns
        self._children: list[OtlpSpan] = []
        self._has_ended = False
        self.is_recorded = span.is_recording()
        self.trace_id = f"{context.trace_id:032x}"
        self.traceparent = f"00-{self.trace_id}-{context.span_id:016x}-{context.trace_flags:02x}".encode()
        self.tracestate = tracestate

    def child(self, name: str, at_s: float | None = None, *, is_client: bool = False) -> OtlpSpan:
        if not self.is_recorded:
            return self
        kind = SpanKind.CLIENT if is_client else SpanKind.INTERNAL
        context = set_span_in_context(self._span, _NO_PARENT)
        span = self._tracer.start_span(name, context, kind, start_time=self._time_ns(at_s))
        child = OtlpSpan(self._tracer, span, self._offset_ns, self.tracestate)
        self._children.append(child)
        return child

    def rename(self, name: str) -> None:
        if self.is_recorded and not self._has_ended:
            self._span.update_name(name)

    def set(self, attributes: Attributes) -> None:
        if self.is_recorded and not self._has_ended:
            self._span.set_attributes(attributes)

    def fail(self, kind: str) -> None:
        if self.is_recorded and not self._has_ended:
            self._span.set_attribute("error.type", kind)
            self._span.set_status(_FAILED)

    def end(self, at_s: float | None = None) -> None:
        if self._has_ended or not self.is_recorded:
            return
        self._end(self._time_ns(at_s))

    def _end(self, at_ns: int) -> None:
        for child in self._children:
            if not child._has_ended:
                child._end(at_ns)
        self._has_ended = True
        self._span.end(at_ns)

    def _time_ns(self, at_s: float | None) -> int:
        return self._offset_ns + (time.perf_counter_ns() if at_s is None else int(at_s * 1e9))


class OtlpTracer:
    """A `tidegate.ports.Tracer`.

    Args:
        environment: the variables of this process, which `check_tracing` accepts; the SDK reads its own there.
        report: see `Report`.
    """

    def __init__(self, environment: Mapping[str, str], report: Report) -> None:
        _silence()
        waiting = most_waiting(environment)
        self._exporter = ReportingExporter(OTLPSpanExporter(), traces_endpoint(environment), waiting, report)
        self._processor = CountingProcessor(self._exporter, max_queue_size=waiting)
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("tidegate", __version__)
        self._ending: threading.Thread | None = None

    def begin(self, headers: Sequence[tuple[bytes, bytes]], at_s: float, *, is_client: bool = False) -> OtlpSpan:
        offset_ns = time.time_ns() - time.perf_counter_ns()
        parent, state, context = trace_parent(headers), b"", _NO_PARENT
        if parent is not None:
            found = TraceState.from_header(trace_states(headers))
            state = found.to_header().encode("latin-1")
            if len(state) > LONGEST_STATE_BYTES:
                found, state = TraceState(), b""
            flags = TraceFlags(parent.flags)
            remote = SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), True, flags, found)
            context = set_span_in_context(NonRecordingSpan(remote), _NO_PARENT)
        kind = SpanKind.CLIENT if is_client else SpanKind.SERVER
        span = self._tracer.start_span("request", context, kind, start_time=offset_ns + int(at_s * 1e9))
        return OtlpSpan(self._tracer, span, offset_ns, state)

    def flush(self, most_s: float) -> None:
        self._within(self._processor.force_flush, most_s)

    def close(self, most_s: float) -> None:
        self._within(self._processor.shutdown, most_s)
        self._exporter.report_unsent()

    def _within(self, work: Callable[[], object], most_s: float) -> None:
        """Run work that has no time limit of its own, and wait for it for a while. One call at a time: later ones wait for it."""
        if self._ending is None or not self._ending.is_alive():
            self._ending = threading.Thread(target=work, name="tidegate-traces", daemon=True)
            self._ending.start()
        self._ending.join(most_s)


class ReportingExporter(SpanExporter):
    """Exports by another exporter, and reports how many spans were lost: with the first one, then at most once a minute, when spans
    are exported again, and at the end."""

    def __init__(self, exporter: SpanExporter, endpoint: str, most_waiting: int, report: Report) -> None:
        self.ended = 0
        """How many spans have ended, which the processor counts."""

        self._exporter = exporter
        self._endpoint = endpoint
        self._most_waiting = most_waiting
        self._report = report
        self._taken = 0
        self._exported = 0
        self._reported = 0
        self._reported_at_s = -REPORT_EVERY_S

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._taken += len(spans)
        result = self._exporter.export(spans)
        succeeded = result is SpanExportResult.SUCCESS
        if succeeded:
            self._exported += len(spans)
        # What has neither come here nor fits into the queue was dropped.
        lost = max(self._taken, self.ended - self._most_waiting) - self._exported - self._reported
        now_s = time.monotonic()
        if lost > 0 and (succeeded or now_s - self._reported_at_s >= REPORT_EVERY_S):
            how = "spans are exported again" if succeeded else "requests are answered as before"
            self._report(f"{lost} spans were lost: {self._endpoint} did not take them in time; {how}")
            self._reported, self._reported_at_s = self._reported + lost, now_s
        return result

    def report_unsent(self) -> None:
        """Report how many spans were not exported at the end."""
        lost = self.ended - self._exported - self._reported
        if lost > 0:
            self._report(f"{lost} spans were lost: {self._endpoint} did not take them until the end")

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class CountingProcessor(BatchSpanProcessor):
    """Counts the spans that end: it drops those that do not fit into its queue."""

    def __init__(self, exporter: ReportingExporter, max_queue_size: int) -> None:
        super().__init__(exporter, max_queue_size)
        self._counted = exporter

    def on_end(self, span: ReadableSpan) -> None:
        self._counted.ended += 1
        super().on_end(span)


def _resource() -> Resource:
    found = Resource.create()
    # The SDK's own default, where no variable names the service.
    unnamed = str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    return found.merge(Resource({SERVICE_NAME: SERVICE})) if unnamed else found


def _silence() -> None:
    """Keep the SDK from logging: for each batch that fails, and with the text of a caller's `tracestate` that is malformed."""
    logs = logging.getLogger("opentelemetry")
    logs.propagate = False
    logs.addHandler(logging.NullHandler())
