"""What every request has around it: its limits are given back, it is counted and logged and its span ends, however it ends."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

from tidegate.gateway.quotas import Lease
from tidegate.gateway.record import Record
from tidegate.ports import CountRequest
from tidegate.web.access_log import AccessLog
from tidegate.web.http import LEASE, RECORD, Answer, App, Receive, Scope, Send
from tidegate.web.routes import method_of, route_of
from tidegate.web.spans import end_http, response_header

_RESERVE_MS: Final = 50.0


def function_time_left_ms(scope: Scope) -> float | None:
    """Return the time that a Lambda invocation has left, less a reserve for sending the answer; None outside Lambda.

    Mangum puts the invocation's context into the scope: https://mangum.fastapiexpert.com/adapter/.
    """
    context = scope.get("aws.context")
    if context is None:
        return None
    return float(context.get_remaining_time_in_millis()) - _RESERVE_MS


async def served(
    app: App,
    log: AccessLog | None,
    traces: bool,
    count: CountRequest | None,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Answer one request by `app` (ASGI), with a `Lease` in the scope, and a `Record` if requests are counted, logged or traced."""
    lease = scope[LEASE] = Lease()
    try:
        if log is None and not traces and count is None:
            await app(scope, receive, send)
            return
        record = scope[RECORD] = Record(scope["headers"])
        noted = _Noted(send, record)
        try:
            await app(scope, receive, noted)
        finally:
            if count is not None:
                took_s = time.perf_counter() - record.began_s
                count(method_of(scope["method"]), route_of(scope["path"]), noted.status, took_s)
            if log is not None:
                log.ended(record, noted.status)
            if record.span is not None:
                end_http(record.span, record, scope, noted.status)
    finally:
        lease.release()


def served_at_once(
    answer_of: Callable[[Scope], Answer], log: AccessLog | None, count: CountRequest | None, scope: Scope
) -> Answer:
    """Return an answer that needs no waiting, with what `served` does around it; such a request is not traced."""
    lease = scope[LEASE] = Lease()
    try:
        if log is None and count is None:
            return answer_of(scope)
        record = scope[RECORD] = Record(scope["headers"])
        answer = answer_of(scope)
        if count is not None:
            took_s = time.perf_counter() - record.began_s
            count(method_of(scope["method"]), route_of(scope["path"]), answer.status, took_s)
        if log is not None:
            log.ended(record, answer.status)
        return answer
    finally:
        lease.release()


class _Noted:
    """Sends messages, with the id of the trace in the head of the answer, and notes its status; None: none has begun."""

    def __init__(self, send: Send, record: Record) -> None:
        self._send = send
        self._record = record
        self.status: int | None = None

    def __call__(self, message: Scope) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._record.span is not None:
                message = {**message, "headers": [*message["headers"], response_header(self._record.span)]}
        return self._send(message)
