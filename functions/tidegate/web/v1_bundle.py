"""`GET /v1/bundle` and `GET /v1/shards`: all the rules, and where the shards are, for clients that decide in their own process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from tidegate.errors import Refusal, RefusedError
from tidegate.gateway.service import Service
from tidegate.ports import Endpoint
from tidegate.rules import Engine
from tidegate.web.callers import Operators
from tidegate.web.errors import WebError
from tidegate.web.http import Answer, RawHeaders, compact, header_values, json_headers, named_tag

_BUNDLE = b"application/vnd.tidegate.bundle"
_REVALIDATED = (b"cache-control", b"private, no-cache")


class BundleHandler:
    """Answers callers that decide by themselves.

    A bundle has every rule, all callers' grants, and the names of models, experiments and shards. So only a caller with the grant
    `bundle` reads it, or an operator; with `is_open` every caller that may call at all.

    Args:
        service: has the live rules and the endpoints.
        operators: tells who is one.
        rpc_port_of: returns an endpoint's port for gRPC, if it has one; None: it is shown for none.
        is_open: see above.
    """

    def __init__(
        self,
        service: Service,
        operators: Operators,
        rpc_port_of: Callable[[Endpoint], int | None] | None,
        *,
        is_open: bool,
    ) -> None:
        self._service = service
        self._operators = operators
        self._rpc_port_of = rpc_port_of
        self._is_open = is_open

    def routes(self, guarded: Callable[[Callable[[Request], Awaitable[Answer]]], Any]) -> list[BaseRoute]:
        """Return the routes; `guarded` makes problem documents of errors."""
        return [Route("/v1/bundle", guarded(self._bundle)), Route("/v1/shards", guarded(self._shards))]

    async def _bundle(self, request: Request) -> Answer:
        engine = await self._engine_for(request)
        tag = b'"%b"' % engine.revision.encode()
        # Bytes of megabytes are joined only for whoever lacks them.
        return _tagged(request, tag, _BUNDLE, lambda: engine.bundle.data)

    async def _shards(self, request: Request) -> Answer:
        engine = await self._engine_for(request)
        body = compact({"shards": {name: self._places(name) for name in engine.fleet.shards}})
        tag = b'"%b"' % sha256(body).hexdigest()[:32].encode()
        return _tagged(request, tag, b"application/json", lambda: body)

    def _places(self, shard: str) -> list[dict[str, str | None]]:
        found = []
        for endpoint in self._service.dispatcher.directory.endpoints(shard):
            port = None if self._rpc_port_of is None else self._rpc_port_of(endpoint)
            found.append({"url": endpoint.url, "grpc": None if port is None else f"{endpoint.host}:{port}"})
        return found

    async def _engine_for(self, request: Request) -> Engine:
        """Return the live engine, if the request may see all of it.

        Raises:
            RefusedError: its caller may not.
        """
        if (waiting := self._service.engines.catching_up()) is not None:
            await waiting
        engine = self._service.engines.engine()
        if self._is_operator(request.scope["headers"]):
            return engine
        caller = self._service.grants.caller(engine, request.scope)
        if not self._is_open and (caller is None or not caller.reads_bundle):
            who = "nobody may read the bundle" if caller is None else f"caller '{caller.name}' may not read the bundle"
            why = (
                "the rules have no callers.yaml that grants `bundle`"
                if caller is None
                else "`bundle: true` of the caller in callers.yaml is missing"
            )
            raise RefusedError(Refusal.NOT_GRANTED, f"{who}: {why}", grant="bundle")
        return engine

    def _is_operator(self, headers: RawHeaders) -> bool:
        try:
            self._operators.check(headers)
        except WebError:
            return False
        return True


def _tagged(request: Request, tag: bytes, media_type: bytes, body: Callable[[], bytes]) -> Answer:
    """Return a body with its tag, or 304 for whoever has it."""
    headers = [(b"etag", tag), _REVALIDATED]
    if named_tag(tag, header_values(request.scope["headers"], b"if-none-match")):
        return Answer(304, headers, b"")
    data = body()
    return Answer(200, [*json_headers(data, media_type), *headers], data)
