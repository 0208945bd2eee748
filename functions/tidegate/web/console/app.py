"""The console's ASGI app: the page, and what the page and other programs of operators ask. It runs where the control plane does.

In a stack the gateway passes requests on to it (`forwarding.py`); on AWS a function serves it.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from tidegate.console.console import MOST_WINDOW_S, Console
from tidegate.errors import Refusal, RefusedError, malformed
from tidegate.strict_json import UnreadableError, parse
from tidegate.web.console import paths
from tidegate.web.console.assets import FOLDER, INDEX, assets
from tidegate.web.console.forwarding import MOST_BODY_BYTES
from tidegate.web.errors import (
    check_query,
    console_body_too_large,
    no_route,
    no_streams,
    not_found,
    problem,
    wrong_media_type,
)
from tidegate.web.head import RequestHead
from tidegate.web.http import Answer, HeaderList, RawHeaders, Scope, header_values, json_answer
from tidegate.web.json_body import check_media

Admit = Callable[[RawHeaders], None]
"""Checks that a request is an operator's. Raises `WebError` where it is not."""

AuthorOf = Callable[[Scope], str]
"""Returns the name of the operator who sent a request, for the history."""

NO_STORE: HeaderList = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?")


def create_console(console: Console, *, admit: Admit, author_of: AuthorOf, folder: Path = FOLDER) -> Starlette:
    """Create the app.

    Args:
        console: what it shows and does.
        admit: checks that a request is an operator's; `Operators(token).check` by the token. Behind an authorizer it may accept all.
        author_of: names who rolls back.
        folder: the files of the page.
    """
    handler = _Handler(console, admit, author_of, folder)
    handlers: dict[Any, Any] = {HTTPException: _no_route}
    app = Starlette(routes=handler.routes(), exception_handlers=handlers)
    app.router.redirect_slashes = False
    return app


class _Handler:
    def __init__(self, console: Console, admit: Admit, author_of: AuthorOf, folder: Path) -> None:
        self._folder = folder
        self._console = console
        self._admit = admit
        self._author_of = author_of

    def routes(self) -> list[BaseRoute]:
        get, console = self._get, self._console
        return [
            Route(paths.PAGE, _guarded(self._page)),
            Route(paths.BELOW_PAGE, _guarded(self._page)),
            Route(paths.EVENTS, _guarded(_events)),
            Route(paths.METRICS, _guarded(self._metrics)),
            Route(paths.OVERVIEW, get(lambda _: console.overview())),
            Route(paths.FLEET, get(lambda _: console.fleet())),
            Route(paths.TRAFFIC, get(self._traffic, ("window_s",))),
            Route(paths.CASES, get(lambda request: console.cases(_objective(request)))),
            Route(paths.SOURCE, get(lambda request: console.source(_objective(request)))),
            Route(paths.DRAFTS, self._post(lambda body, _: console.draft(body)), methods=["POST"]),
            Route(paths.GRAPH, get(self._graph, ("revision", "objective"))),
            Route(paths.REVISIONS, get(lambda _: console.revisions())),
            Route(paths.DIFF, get(self._diff, ("old", "new", "objective"))),
            Route(paths.ROLLBACK, self._post(console.roll_back), methods=["POST"]),
            Route(paths.MODELS, get(lambda _: console.models())),
            Route(paths.MODEL, get(lambda request: console.model(request.path_params["model"]))),
            Route(paths.PLACEMENT, get(lambda _: console.placement())),
        ]

    def _get(
        self, read: Callable[[Request], Awaitable[Any]], query: tuple[str, ...] = ()
    ) -> Callable[[Request], Awaitable[Answer]]:
        """Wrap what reads a document for an operator; `query` lists the query parameters that it takes."""

        async def answer(request: Request) -> Answer:
            self._admit(request.scope["headers"])
            check_query(request.query_params, query)
            return json_answer(await read(request), NO_STORE)

        return _guarded(answer)

    async def _page(self, request: Request) -> Answer:
        """Answer with an asset, or with the page itself, whose own code knows its paths."""
        found, path = assets(self._folder), request.path_params.get("path", "")
        first = path.partition("/")[0]
        known = header_values(request.scope["headers"], b"if-none-match")
        if path in found:
            asset = found[path]
        elif (
            INDEX not in found
            or "." in first
            or (path and not first)
            or first in {name.partition("/")[0] for name in found}
        ):
            # The names of objectives and models, which follow the name of a page, may have a dot.
            raise not_found("the console has no such file")
        else:
            asset = found[INDEX]
        return asset.answer(known[0] if known else None)

    def _post(self, act: Callable[[Mapping[str, Any], str], Awaitable[Any]]) -> Callable[[Request], Awaitable[Answer]]:
        """Wrap what an operator does with the body of a request, a JSON object, in its own name."""

        async def answer(request: Request) -> Answer:
            headers = request.scope["headers"]
            self._admit(headers)
            check_query(request.query_params, ())
            _check_origin(headers)
            body = _object(headers, await request.body())
            return json_answer(await act(body, self._author_of(request.scope)), NO_STORE)

        return _guarded(answer)

    async def _traffic(self, request: Request) -> Any:
        text = request.query_params.get("window_s", f"{MOST_WINDOW_S:g}")
        window_s = float(text) if _SECONDS.fullmatch(text) else 0.0
        if not 1.0 <= window_s <= MOST_WINDOW_S:
            raise malformed(f"window_s must be a number of seconds from 1 to {MOST_WINDOW_S:g}")
        return await self._console.traffic(_objective(request), window_s)

    async def _graph(self, request: Request) -> Any:
        query = request.query_params
        return await self._console.graph(query.get("revision") or "live", query.get("objective") or None)

    async def _diff(self, request: Request) -> Any:
        query = request.query_params
        old, new = query.get("old") or "live~1", query.get("new") or "live"
        return await self._console.diff(old, new, query.get("objective") or None)

    async def _metrics(self, request: Request) -> Answer:
        self._admit(request.scope["headers"])
        accepted = b",".join(header_values(request.scope["headers"], b"accept")).decode("latin-1")
        found = await self._console.metrics(accepted)
        if found is None:
            raise not_found("nothing counts the requests here")
        media_type, body = found
        return Answer(
            200, [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(body)), *NO_STORE], body
        )


def _guarded(endpoint: Callable[[Request], Awaitable[Answer]]) -> Callable[[Request], Awaitable[Answer]]:
    async def answer(request: Request) -> Answer:
        try:
            return await endpoint(request)
        except Exception as error:  # noqa: BLE001  # problem() renders any error, and logs the unexpected
            return _uncached(problem(error))

    return answer


def _objective(request: Request) -> str:
    return str(request.path_params["objective"])


def _object(headers: RawHeaders, body: bytes) -> Mapping[str, Any]:
    """Return a body as the JSON object that it must be. Raises `WebError` or `RefusedError`.

    Without its media type a form of another site could send it, which asks no leave of the browser.
    """
    head = RequestHead(headers)
    if not head.values(b"content-type"):
        raise wrong_media_type("the body must be application/json: send it with that Content-Type")
    check_media(head)
    if len(body) > MOST_BODY_BYTES:
        raise console_body_too_large(MOST_BODY_BYTES)
    try:
        document = parse(body)
    except UnreadableError as error:
        raise malformed(f"the body is not JSON that can be read: {error}") from None
    if not isinstance(document, dict):
        raise malformed("the body must be a JSON object")
    return document


def _check_origin(headers: RawHeaders) -> None:
    """Refuse what a page of another site sends. Raises `RefusedError`."""
    hosts = header_values(headers, b"host")
    for origin in header_values(headers, b"origin"):
        if origin.partition(b"://")[2] not in hosts:
            raise RefusedError(
                Refusal.CROSS_ORIGIN, "the request has the Origin of another site; open the console at this address"
            )


async def _events(_request: Request) -> Answer:
    raise no_streams(f"ask GET {paths.OVERVIEW} now and then")


async def _no_route(_request: Request, error: Exception) -> Answer:
    return _uncached(problem(no_route(error)))


def _uncached(answer: Answer) -> Answer:
    return Answer(answer.status, [*answer.headers, *NO_STORE], answer.body)
