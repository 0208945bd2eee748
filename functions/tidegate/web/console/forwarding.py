"""Passes requests of the console and of operators from the gateway to the control plane, which answers them.

The gateway checks nothing but their size and number: it reads what strangers send, and need not know who may see what.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from tidegate.byte_budget import ByteBudget
from tidegate.errors import OverloadedError
from tidegate.ports.console import ConsoleAnswer, ConsoleBackend, ConsoleRequest
from tidegate.web.bodies import Body, BodyTooLargeError, ClientGoneError
from tidegate.web.console.events import Events
from tidegate.web.console.paths import EVENTS, PATHS
from tidegate.web.console.requests import forwarded, response
from tidegate.web.errors import console_body_too_large, problem
from tidegate.web.head import RequestHead
from tidegate.web.http import App, Receive, Scope, Send

MOST_BODY_BYTES = 1024 * 1024
MOST_AT_ONCE = 16
"""Requests under way; further ones are refused, so that a page that asks too often takes nothing from callers."""


class Forwarder:
    """The gateway's routes of the console. `budget` counts the bodies that are held."""

    def __init__(self, backend: ConsoleBackend, budget: ByteBudget) -> None:
        self._backend = backend
        self._budget = budget
        self._under_way = 0
        self._events = Events(self.passed_on)

    def routes(self) -> list[BaseRoute]:
        """Return the route table: one for each path, with whatever methods it has."""
        routes = [Route(path, _guarded(self._forward)) for path in PATHS]
        for route in routes:
            # The control plane says which methods a path has.
            route.methods = None
        return [*routes, Route(EVENTS, _guarded(self._events.stream), methods=["GET"])]

    def end_streams(self) -> None:
        """End every stream of events."""
        self._events.end()

    async def passed_on(self, request: ConsoleRequest) -> ConsoleAnswer:
        """Return the control plane's answer.

        Raises:
            OverloadedError: too many requests are under way.
            UnavailableError: it does not answer.
        """
        if self._under_way >= MOST_AT_ONCE:
            raise OverloadedError(f"{MOST_AT_ONCE} requests of the console are under way; ask again soon")
        self._under_way += 1
        try:
            return await self._backend.answer(request)
        finally:
            self._under_way -= 1

    async def _forward(self, request: Request) -> App:
        announced = RequestHead(request.scope["headers"]).announced_bytes
        with Body(request.receive, announced, MOST_BODY_BYTES, self._budget) as body:
            try:
                data = await body.whole()
            except BodyTooLargeError as error:
                raise console_body_too_large(MOST_BODY_BYTES) from error
            return response(await self.passed_on(forwarded(request, data)))


def _guarded(endpoint: Callable[[Request], Awaitable[App]]) -> Callable[[Request], Awaitable[App]]:
    async def answer(request: Request) -> App:
        try:
            return await endpoint(request)
        except ClientGoneError:
            return _unanswered
        except Exception as error:  # noqa: BLE001  # problem() renders any error, and logs the unexpected
            return problem(error)

    return answer


async def _unanswered(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Send nothing to a caller that has left."""
