"""Requests of operators and of the console's page, which the gateway passes on to the control plane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ConsoleRequest:
    """An HTTP request. `query` is without its `?`, header names are in lower case."""

    method: str
    path: str
    query: str
    headers: Pairs
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class ConsoleAnswer:
    """The HTTP response, whole."""

    status: int
    headers: Pairs
    body: bytes


class ConsoleBackend(Protocol):
    """What answers operators; `web/console/app.py` is the only implementation of its answers."""

    async def answer(self, request: ConsoleRequest) -> ConsoleAnswer:
        """Answer a request.

        Raises:
            UnavailableError: the control plane does not answer in time.
        """
