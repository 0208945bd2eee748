"""The console's ASGI app: the page, and what the page and other programs of operators ask. It runs where the control plane does.

In a stack the gateway passes requests on to it (`forwarding.py`); on AWS a function serves it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from tidegate.console.console import Console
from tidegate.errors import malformed
from tidegate.web.console import paths
from tidegate.web.console.assets import FOLDER, INDEX, assets
from tidegate.web.errors import from_status, no_streams, not_found, problem
from tidegate.web.http import Answer, HeaderList, RawHeaders, Scope, header_values, json_answer

Admit = Callable[[RawHeaders], None]
"""Checks that a request is an operator's. Raises `WebError` where it is not."""

AuthorOf = Callable[[Scope], str]
"""Returns the name of the operator who sent a request, for the history."""

NO_STORE: HeaderList = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_LONGEST_SHOWN = 64


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
        get = self._get
        return [
            Route(paths.PAGE, _guarded(self._page)),
            Route(paths.BELOW_PAGE, _guarded(self._page)),
            Route(paths.EVENTS, _guarded(_events)),
            Route(paths.METRICS, _guarded(self._metrics)),
            Route(paths.OVERVIEW, get(self._overview)),
        ]

    def _get(
        self, read: Callable[[Request], Awaitable[Any]], query: tuple[str, ...] = ()
    ) -> Callable[[Request], Awaitable[Answer]]:
        """Wrap what reads a document for an operator; `query` lists the query parameters that it takes."""

        async def answer(request: Request) -> Answer:
            self._admit(request.scope["headers"])
            _check_query(request, query)
            return json_answer(await read(request), NO_STORE)

        return _guarded(answer)

    async def _page(self, request: Request) -> Answer:
        """Answer with an asset, or with the page itself, whose own code knows its paths."""
        found, path = assets(self._folder), request.path_params.get("path", "")
        known = header_values(request.scope["headers"], b"if-none-match")
        if path in found:
            asset = found[path]
        elif "." in path.rsplit("/", 1)[-1] or INDEX not in found:
            # A page's path has no suffix, as no name in the rules has one.
            raise not_found("the console has no such file")
        else:
            asset = found[INDEX]
        return asset.answer(known[0] if known else None)

    async def _overview(self, _request: Request) -> Any:
        return await self._console.overview()

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


async def _events(_request: Request) -> Answer:
    raise no_streams()


def _check_query(request: Request, known: tuple[str, ...]) -> None:
    for name in request.query_params:
        if name not in known:
            right = f"the path takes only {', '.join(known)}" if known else "the path takes no query"
            raise malformed(f"unknown name {name[:_LONGEST_SHOWN]!r} in the query: {right}")


async def _no_route(_request: Request, error: Exception) -> Answer:
    assert isinstance(error, HTTPException)
    return _uncached(problem(from_status(error.status_code, (error.headers or {}).get("Allow"))))


def _uncached(answer: Answer) -> Answer:
    return Answer(answer.status, [*answer.headers, *NO_STORE], answer.body)
