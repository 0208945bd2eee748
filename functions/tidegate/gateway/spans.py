"""The spans of a dispatch, with the attributes of OpenTelemetry's semantic conventions:
https://opentelemetry.io/docs/specs/semconv/http/http-spans/ and https://opentelemetry.io/docs/specs/semconv/rpc/grpc/."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from tidegate.gateway.call import Attempt, Call
from tidegate.ports import HttpResponse, Span, Tracer
from tidegate.shadows.copy import ShadowCopy

_CODES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
    "UNAUTHENTICATED",
)  # fmt: skip
"""The codes of gRPC by number."""


def attempt_span(dispatch: Span, call: Call, attempt: Attempt, number: int, is_hedge: bool) -> Span:
    """Begin the span of an attempt: of a request to a Triton server.

    Args:
        dispatch: the span of the dispatch.
        call: what is sent.
        attempt: where to.
        number: how many attempts and places came before it.
        is_hedge: whether it is made beside another one.
    """
    is_rpc = call.appended is not None
    what = f"{call.method} {call.path or '/v2/models/{model}' + call.suffix}"
    if is_rpc and call.path is not None:
        what = call.path[1:]
    span = dispatch.child(what, is_client=True)
    if not span.is_recorded:
        return span
    target, endpoint = attempt.target, attempt.endpoint
    attributes: dict[str, str | int | float | bool] = {
        "server.address": endpoint.host,
        "server.port": endpoint.port,
        "tidegate.attempt": _role(attempt, number, is_hedge),
        "tidegate.model": target.model,
        "tidegate.shard": attempt.shard,
    }
    if target.version is not None:
        attributes["tidegate.version"] = target.version
    if is_rpc:
        attributes["rpc.system.name"] = "grpc"
        attributes["rpc.method"] = what
    else:
        attributes["http.request.method"] = call.method
        attributes["url.full"] = endpoint.url + call.path_for(target, attempt.first)
    span.set(attributes)
    return span


def copy_span(tracer: Tracer, copy: ShadowCopy) -> Span:
    """Begin the span of a copy that is sent to a shadow, in the trace that its headers name."""
    span = tracer.begin(copy.headers, time.perf_counter(), is_client=True)
    if not span.is_recorded:
        return span
    host, port = copy.address
    model, _, version = copy.pair.shadow_model.partition("/")
    attributes: dict[str, str | int | float | bool] = {
        "server.address": host,
        "server.port": port,
        "tidegate.attempt": "shadow",
        "tidegate.objective": copy.pair.objective,
        "tidegate.rule": copy.pair.rule,
        "tidegate.model": model,
        "tidegate.shard": copy.shard,
        "tidegate.revision": copy.revision,
    }
    if version:
        attributes["tidegate.version"] = int(version)
    if copy.primary.is_rpc:
        span.rename(copy.path[1:])
        attributes["rpc.system.name"] = "grpc"
        attributes["rpc.method"] = copy.path[1:]
    else:
        span.rename("POST /v2/models/{model}/infer")
        attributes["http.request.method"] = "POST"
        attributes["url.full"] = f"http://{host}:{port}{copy.path}"
    span.set(attributes)
    return span


def _role(attempt: Attempt, number: int, is_hedge: bool) -> str:
    if is_hedge:
        return "hedge"
    if not attempt.first:
        return "fallback"
    return "retry" if number else "first"


def answered(span: Span, response: HttpResponse, is_rpc: bool) -> None:
    """Note the answer to an attempt. Its span ends here, unless the answer is streamed."""
    if is_rpc:
        # An answer without a code has succeeded.
        number = int(response.header(b"grpc-status") or b"0")
        code = _CODES[number] if number < len(_CODES) else str(number)
        span.set({"rpc.response.status_code": code})
        if number:
            span.fail(code)
    else:
        span.set({"http.response.status_code": response.status})
        if response.status >= 400:
            span.fail(str(response.status))
    if response.stream is None:
        span.end()


def end_with(span: Span, error: BaseException) -> None:
    """End a span with an error, of which only the class is noted: a message may hold what a caller sent."""
    if isinstance(error, asyncio.CancelledError):
        cancelled(span)
        return
    span.fail(type(error).__name__)
    span.end()


def cancelled(span: Span) -> None:
    """End the span of what was cancelled, since its caller has left, or another attempt had its answer first."""
    span.set({"tidegate.cancelled": True})
    span.end()
