"""What every request has around it: its limits are given back and its line is logged, however it ends."""

from __future__ import annotations

import time

from tidegate.gateway.quotas import Lease
from tidegate.gateway.record import Record
from tidegate.web.access_log import AccessLog
from tidegate.web.http import LEASE, RECORD, App, Receive, Scope, Send


async def served(app: App, log: AccessLog | None, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request by `app` (ASGI), with a `Lease` in the scope, and a `Record` if requests are logged."""
    lease = scope[LEASE] = Lease()
    try:
        if log is None:
            await app(scope, receive, send)
            return
        began_s = time.perf_counter()
        record = scope[RECORD] = Record()
        noted = _Noted(send)
        try:
            await app(scope, receive, noted)
        finally:
            log.ended(record, scope["headers"], noted.status, time.perf_counter() - began_s)
    finally:
        lease.release()


class _Noted:
    """Sends messages, and notes the status of the answer; None: none has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def __call__(self, message: Scope) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)
