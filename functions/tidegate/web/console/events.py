"""`GET /v1/events`: the overview, once a second, as server-sent events.

One question a second to the control plane serves all viewers of a gateway. Each of them must have been let in by the control plane:
its first overview is asked for with its own token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from starlette.requests import Request

from tidegate.asgi_messages import PATIENCE
from tidegate.errors import OverloadedError, TidegateError
from tidegate.ports.console import ConsoleAnswer, ConsoleRequest
from tidegate.web.console.paths import OVERVIEW
from tidegate.web.console.requests import forwarded, response
from tidegate.web.errors import problem
from tidegate.web.http import App, Receive, Scope, Send

EVERY_S = 1.0
MOST_VIEWERS = 16

SILENT_S = 10.0
"""How long a viewer may take nothing. It keeps its place before, as its kernel takes the first events for it."""

Ask = Callable[[ConsoleRequest], Awaitable[ConsoleAnswer]]

_HEADERS = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))


class Events:
    """The streams of one gateway. The question is that of the viewer who was let in last."""

    def __init__(self, ask: Ask, every_s: float = EVERY_S) -> None:
        self._ask = ask
        self._every_s = every_s
        self._viewers = 0
        self._question: ConsoleRequest
        self._polling: asyncio.Task[None] | None = None
        self._next: asyncio.Future[bytes] | None = None
        self._is_ended = False

    async def stream(self, request: Request) -> App:
        """Answer a viewer: with a stream, or with what the control plane says to somebody who may not see it.

        Raises:
            OverloadedError: there are `MOST_VIEWERS` already.
            UnavailableError: the control plane does not answer.
        """
        question = replace(forwarded(request), path=OVERVIEW, query="")
        first = await self._ask(question)
        if first.status != 200:
            return response(first)
        if self._viewers >= MOST_VIEWERS:
            raise OverloadedError(f"{MOST_VIEWERS} viewers have the overview already; ask GET {OVERVIEW} now and then")
        self._question = question

        async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
            await self._send(send, event("overview", first.body))

        return answer

    def end(self) -> None:
        """End every stream, as its process does: a viewer would keep it waiting."""
        self._is_ended = True
        if self._next is not None and not self._next.done():
            self._next.set_result(b"")

    async def _send(self, send: Send, first: bytes) -> None:
        """Send events until the viewer leaves, when the listener cancels this."""
        self._viewers += 1
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            await send({"type": PATIENCE, "seconds": SILENT_S})
            body = first
            while body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
                body = b"" if self._is_ended else await asyncio.shield(self._news())
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._viewers -= 1
            if not self._viewers and self._polling is not None:
                self._polling.cancel()
                self._polling = None

    def _news(self) -> asyncio.Future[bytes]:
        """Return the next event, which all viewers share; a slow one misses some."""
        if self._polling is None or self._polling.done():
            self._next = asyncio.get_running_loop().create_future()
            self._polling = asyncio.create_task(self._poll())
        assert self._next is not None
        return self._next

    async def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._every_s)
            try:
                found = await self._ask(self._question)
                text = event("overview" if found.status == 200 else "problem", found.body)
            except TidegateError as error:
                # A stack whose control plane is busy goes on serving; the viewer learns why nothing changes.
                text = event("problem", problem(error).body)
            waiting, self._next = self._next, loop.create_future()
            if waiting is not None and not waiting.done():
                waiting.set_result(text)


def event(name: str, data: bytes) -> bytes:
    """Return an event with one line of JSON (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)
