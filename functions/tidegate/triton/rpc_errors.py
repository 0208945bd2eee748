"""Errors of RPCs to Triton, as responses over HTTP or as errors of this side."""

from __future__ import annotations

import asyncio
import json
import re

import grpc
import grpc.aio

from tidegate.errors import (
    EndpointAnswerTooLargeError,
    EndpointError,
    EndpointRefusedError,
    EndpointResetError,
    EndpointTimeoutError,
)
from tidegate.oip.error_texts import is_ended_stub, is_tritons_own, unserved_model
from tidegate.ports import HttpResponse

_STATUSES = {
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNIMPLEMENTED: 501,
}
"""Triton's HTTP statuses for its errors; all others are 400."""

_REFUSED = re.compile(r"failed to connect|connection refused|connection attempt timed out", re.IGNORECASE)
_BROKEN = re.compile(
    r"socket closed|connection reset|broken pipe|recvmsg|sendmsg|keepalive|goaway|stream removed|endpoint closing"
    r"|end of tcp|transport|channel (?:closed|destroyed)|fd shutdown|cancelling all calls",
    re.IGNORECASE,
)
_CORE_FAILED = "Internal error from Core"
"""grpcio's text, with the code INTERNAL, where the connection ended just as it began to send or to read."""


def error_response(error: grpc.aio.AioRpcError, is_connected: bool) -> HttpResponse:
    """Return an error of Triton as the response that it would be over HTTP.

    Raises:
        EndpointError: this side made the error: nothing else tells it from one of Triton than its text and the connection.
    """
    code, text = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and (not is_connected or _BROKEN.search(text) or _REFUSED.search(text)):
        raise _broken(text)
    if code is grpc.StatusCode.INTERNAL and text == _CORE_FAILED:
        raise _broken(text)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        raise EndpointTimeoutError("no answer within the attempt's time", sent=is_connected)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in text:
        raise EndpointAnswerTooLargeError("the answer is larger than max_response_bytes")
    return _response(code, text)


def streamed_error(text: str) -> HttpResponse:
    """Return an error in the first message of a stream as the response that it would be over HTTP; a stream has no codes."""
    if unserved_model(text) is not None:
        return _response(grpc.StatusCode.NOT_FOUND, text)
    if is_ended_stub(text) or not is_tritons_own(text):
        return _response(grpc.StatusCode.INTERNAL, text)
    return _response(grpc.StatusCode.INVALID_ARGUMENT, text)


def raise_if_cancelled() -> None:
    """Raise the cancellation that is being handled, if it is of this task, and not of an RPC that it waits for.

    Raises:
        asyncio.CancelledError: this task is cancelled.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _response(code: grpc.StatusCode, text: str) -> HttpResponse:
    headers = [(b"content-type", b"application/json"), (b"grpc-status", b"%d" % code.value[0])]
    return HttpResponse(_STATUSES.get(code, 400), headers, json.dumps({"error": text}).encode())


def _broken(text: str) -> EndpointError:
    if _REFUSED.search(text):
        return EndpointRefusedError("connection failed")
    return EndpointResetError("the connection ended before the answer")
