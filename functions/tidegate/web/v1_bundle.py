"""`GET /v1/bundle` and `GET /v1/shards`: all the rules, and where the shards are, for clients that decide in their own process."""

from __future__ import annotations

import asyncio
import gzip
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
from tidegate.web.http import (
    Answer,
    RawHeaders,
    compact,
    header_values,
    json_bytes_answer,
    json_headers,
    named_tag,
)

_BUNDLE = b"application/vnd.tidegate.bundle"
_REVALIDATED = (b"cache-control", b"private, no-cache")


class BundleHandler:
    """Answers callers that decide by themselves.

    A bundle has every rule, all callers' grants, and the names of models, experiments and shards. So only a caller with the grant
    `bundle` reads it, or an operator; with `is_open` every caller that may call at all, and with `is_open_unlisted` everyone while the
    rules list no callers.

    Args:
        service: has the live rules and the endpoints.
        operators: tells who is one.
        rpc_port_of: returns an endpoint's port for gRPC, if it has one; None: it is shown for none.
        is_open, is_open_unlisted: see above.
    """

    def __init__(
        self,
        service: Service,
        operators: Operators,
        rpc_port_of: Callable[[Endpoint], int | None] | None,
        *,
        is_open: bool,
        is_open_unlisted: bool = False,
    ) -> None:
        self._service = service
        self._operators = operators
        self._rpc_port_of = rpc_port_of
        self._is_open = is_open
        self._is_open_unlisted = is_open_unlisted
        self._kept: tuple[str, bytes] | None = None
        self._compressing = asyncio.Lock()

    def routes(self, guarded: Callable[[Callable[[Request], Awaitable[Answer]]], Any]) -> list[BaseRoute]:
        """Return the routes; `guarded` makes problem documents of errors."""
        return [Route("/v1/bundle", guarded(self._bundle)), Route("/v1/shards", guarded(self._shards))]

    async def _bundle(self, request: Request) -> Answer:
        engine = await self._engine_for(request)
        compressed = _takes_gzip(request.scope["headers"])
        # Each coding has a tag of its own: https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3.3.
        tag = b'"%b%b"' % (engine.revision.encode(), b"-gzip" if compressed else b"")
        headers = [(b"etag", tag), _REVALIDATED, (b"vary", b"accept-encoding")]
        if named_tag(tag, header_values(request.scope["headers"], b"if-none-match")):
            return Answer(304, headers, b"")
        # Megabytes are joined and compressed only for callers that lack them, and once for all who ask.
        data = await self._compressed(engine) if compressed else engine.bundle.data
        coding = [(b"content-encoding", b"gzip")] if compressed else []
        return Answer(200, [*json_headers(data, _BUNDLE), *coding, *headers], data)

    async def _compressed(self, engine: Engine) -> bytes:
        async with self._compressing:
            if self._kept is None or self._kept[0] != engine.revision:
                self._kept = (engine.revision, await asyncio.to_thread(gzip.compress, engine.bundle.data, 6, mtime=0))
            return self._kept[1]

    async def _shards(self, request: Request) -> Answer:
        engine = await self._engine_for(request)
        body = compact({"shards": {name: self._places(name) for name in engine.fleet.shards}})
        tag = b'"%b"' % sha256(body).hexdigest()[:32].encode()
        headers = [(b"etag", tag), _REVALIDATED]
        if named_tag(tag, header_values(request.scope["headers"], b"if-none-match")):
            return Answer(304, headers, b"")
        return json_bytes_answer(body, headers)

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
        is_open = self._is_open or (self._is_open_unlisted and engine.callers is None)
        if not is_open and (caller is None or not caller.reads_bundle):
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


def _takes_gzip(headers: RawHeaders) -> bool:
    """Return whether `Accept-Encoding` names gzip, and not with a weight of 0."""
    for value in header_values(headers, b"accept-encoding"):
        for each in value.lower().split(b","):
            name, _, weight = each.partition(b";")
            if name.strip() in (b"gzip", b"*"):
                return weight.replace(b" ", b"").removeprefix(b"q=").strip(b"0.") != b"" or not weight
    return False
