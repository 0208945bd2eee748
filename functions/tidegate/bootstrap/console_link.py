"""The console over the channel of a local stack: the gateway asks, and the control plane's process runs the app."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tidegate.bootstrap.gateway_link import GatewayLink, Message, MessageKind
from tidegate.errors import StoreError, UnavailableError
from tidegate.ports.console import ConsoleAnswer, ConsoleRequest, Pairs

WAIT_S = 15.0
"""The longest wait of a question that reads."""

WORK_WAIT_S = 75.0
"""The longest wait of one that works: a rollback may load models, and edited rules are analysed."""


class LinkedConsole:
    """A `ConsoleBackend` over the channel."""

    def __init__(self, link: GatewayLink) -> None:
        self._link = link

    async def answer(self, request: ConsoleRequest) -> ConsoleAnswer:
        """See `ConsoleBackend`."""
        members = {"method": request.method, "path": request.path, "query": request.query, "headers": request.headers}
        wait_s = WORK_WAIT_S if request.method == "POST" else WAIT_S
        try:
            found = await self._link.ask(Message(MessageKind.CONSOLE, members, request.body), wait_s)
        except StoreError as error:
            raise UnavailableError(str(error)) from error
        headers = tuple((str(name), str(value)) for name, value in found.members["headers"])
        return ConsoleAnswer(int(found.members["status"]), headers, found.payload)


async def answered(app: Any, message: Message) -> Message:
    """Run the console's ASGI app for a question of the gateway. Every value is checked, as the gateway reads what strangers send.

    Raises:
        ValueError, KeyError, TypeError: it is not one.
    """
    request = _request(message.members, message.payload)
    sent: list[Mapping[str, Any]] = []
    received = [{"type": "http.request", "body": request.body, "more_body": False}]

    async def receive() -> Mapping[str, Any]:
        if not received:
            # The app asks whether its caller has left. The gateway answers that alone.
            await asyncio.Event().wait()
        return received.pop()

    async def send(part: Mapping[str, Any]) -> None:
        sent.append(part)

    await app(_scope(request), receive, send)
    start, *parts = sent
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start["headers"]]
    body = b"".join(part.get("body", b"") for part in parts)
    return Message(MessageKind.ANSWER, {"status": start["status"], "headers": headers}, body)


def _request(members: Mapping[str, Any], body: bytes) -> ConsoleRequest:
    method, path = str(members["method"]), str(members["path"])
    headers: Pairs = tuple((str(name).lower(), str(value)) for name, value in members["headers"])
    if not path.startswith("/"):
        raise ValueError("the path of a question is not one")
    return ConsoleRequest(method, path, str(members["query"]), headers, body)


def _scope(request: ConsoleRequest) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.path.encode(),
        "query_string": request.query.encode("latin-1"),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers],
        "client": None,
        "server": None,
    }
