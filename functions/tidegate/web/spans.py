"""The span of a request: attributes by OpenTelemetry's semantic conventions, and what its line in the log has of its decision.

https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server and https://opentelemetry.io/docs/specs/semconv/rpc/grpc/.
No attribute has a value of the context, of a header or of the payload.
"""

from __future__ import annotations

from tidegate.gateway.record import Record
from tidegate.ports import Span
from tidegate.ports.tracing import Attributes
from tidegate.web.access_log import RequestOutcome, known_fields, outcome_of
from tidegate.web.http import Scope
from tidegate.web.routes import route_of

TRACERESPONSE = b"traceresponse"
"""The response header with the id of the trace (https://w3c.github.io/trace-context/#traceresponse-header, a draft): `traceparent` is a
header of requests only."""

_SERVERS_FAULT = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""The codes that the conventions count as errors of a server."""

_LONGEST_TEXT = 256
_LEFT_OUT = frozenset({"error", "decide_ms", "dispatch_ms", "triton_ms"})
"""What the spans say themselves."""


def response_header(span: Span) -> tuple[bytes, bytes]:
    """Return the header of an answer that names the trace."""
    return TRACERESPONSE, span.traceparent


def end_http(span: Span, record: Record, scope: Scope, status: int | None) -> None:
    """End the span of a request over HTTP; `status` is None if its caller left before an answer had begun."""
    if span.is_recorded:
        method, route = scope["method"], route_of(scope["path"])
        span.rename(f"{method} {route}")
        attributes = {
            **_decided(span, record, status),
            "http.request.method": method,
            "http.route": route,
            "url.path": scope["path"][:_LONGEST_TEXT],
            "url.scheme": scope.get("scheme", "http"),
            "network.protocol.version": scope.get("http_version", "1.1"),
        }
        if status is not None:
            attributes["http.response.status_code"] = status
            if status >= 500:
                span.fail(record.error or str(status))
        span.set(attributes)
    span.end()


def end_rpc(span: Span, record: Record, method: str, code: str | None) -> None:
    """End the span of a request over gRPC, by its code; None: its caller has left."""
    if span.is_recorded:
        name = method[1:]
        span.rename(name)
        attributes = {**_decided(span, record, code), "rpc.system.name": "grpc", "rpc.method": name}
        if code is not None:
            attributes["rpc.response.status_code"] = code
            if code in _SERVERS_FAULT:
                span.fail(record.error or code)
        span.set(attributes)
    span.end()


def _decided(span: Span, record: Record, status: int | str | None) -> dict[str, str | int | float | bool]:
    outcome = outcome_of(record, status)
    if outcome is RequestOutcome.BROKEN:
        span.fail(outcome.value)
    named: Attributes = {
        f"tidegate.{name}": value for name, value in known_fields(record).items() if name not in _LEFT_OUT
    }
    return {
        **named,
        "tidegate.objective": str(record.objective)[:_LONGEST_TEXT],
        "tidegate.outcome": outcome.value,
        **({} if record.error is None else {"error.type": record.error}),
    }
