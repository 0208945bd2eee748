"""Requests and responses as the gateway and the control plane hand them to each other."""

from __future__ import annotations

from starlette.requests import Request

from tidegate.ports.console import ConsoleAnswer, ConsoleRequest
from tidegate.web.http import Answer

HEADERS = (
    "accept",
    "authorization",
    "content-encoding",
    "content-type",
    "host",
    "if-none-match",
    "origin",
    "tidegate-operator",
)
"""The headers that are passed on."""


def forwarded(request: Request, body: bytes = b"") -> ConsoleRequest:
    """Return what the control plane gets of a request."""
    scope = request.scope
    sent = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
    headers = tuple((name, value) for name, value in sent if name in HEADERS)
    return ConsoleRequest(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), headers, body)


def response(answer: ConsoleAnswer) -> Answer:
    """Return the control plane's answer as a response."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    return Answer(answer.status, headers, answer.body)
