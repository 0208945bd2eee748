"""`/v1`: the domain-independent API.

A caller sends a context and plain JSON values; shapes and datatypes come from the model's own metadata. Errors are problem
documents (RFC 9457).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from tidegate.errors import DispatchError, ModelAnswerError, ModelRefusedError, malformed
from tidegate.gateway.request import Admitted, Ask, Decided, Limits
from tidegate.oip.metadata import ModelMetadata
from tidegate.ports import FleetStatus
from tidegate.rules.contract import Objective
from tidegate.web.bodies import ClientGoneError
from tidegate.web.callers import Operators
from tidegate.web.errors import check_query, no_route, not_found, problem
from tidegate.web.front_page import FrontPage
from tidegate.web.http import LEASE, RECORD, Answer, Receive, Scope, Send, json_answer, json_bytes_answer
from tidegate.web.ofrep import RemoteEvaluation
from tidegate.web.openapi import ObjectiveDocuments, whole_document
from tidegate.web.parts import HandlerParts
from tidegate.web.streams import StreamedAnswer
from tidegate.web.v1_infer import METADATA_MAX_AGE_S, JsonInference
from tidegate.web.v1_stream import JsonStream

Endpoint = Callable[[Request], Awaitable[Answer | StreamedAnswer]]
Response = Answer | StreamedAnswer | Callable[[Scope, Receive, Send], Awaitable[None]]

_UNAVAILABLE = (DispatchError, ModelAnswerError, ModelRefusedError)
_EXPLAIN = ("explain",)
_OBJECTIVE = ("objective",)


class V1Handler:
    """The routes of `/v1`, of OFREP, `/openapi.json`, and the page at `/`."""

    def __init__(
        self,
        parts: HandlerParts,
        fleet: FleetStatus | None,
        operators: Operators,
        decision_ttl_ms: int,
        has_console: bool,
    ) -> None:
        self._parts = parts
        self._fleet = fleet
        self._operators = operators
        self._inference = JsonInference(parts, decision_ttl_ms)
        self._stream = JsonStream(parts, self._inference)
        self._documents = ObjectiveDocuments()
        self._front_page = FrontPage(has_console)
        self._has_console = has_console

    def routes(self) -> list[BaseRoute]:
        """Return the route table."""
        infer, resolve = self._inference.infer, self._inference.resolve
        return [
            Route("/v1/objectives", self.guarded(self._list)),
            Route("/v1/objectives/{objective}", self.guarded(self._describe)),
            Route("/v1/objectives/{objective}/infer", self.guarded(infer, _EXPLAIN), methods=["POST"]),
            Route("/v1/objectives/{objective}/stream", self.guarded(self._stream.stream, _EXPLAIN), methods=["POST"]),
            Route("/v1/objectives/{objective}/resolve", self.guarded(resolve, _EXPLAIN), methods=["POST"]),
            *RemoteEvaluation(self._parts, self._inference.body).routes(),
            Route("/v1/fleet", self.guarded(self._fleet_status)),
            Route("/", self.guarded(self._front_page.answer)),
            Route("/openapi.json", self.guarded(self._openapi, _OBJECTIVE)),
        ]

    def exception_handlers(self) -> dict[Any, Any]:
        """Return the handlers of Starlette's own errors: unknown paths and wrong methods."""
        return {HTTPException: _no_route}

    def guarded(self, endpoint: Endpoint, query: tuple[str, ...] = ()) -> Callable[[Request], Awaitable[Response]]:
        """Wrap `endpoint` so that errors become problem documents; `query` lists the query parameters that it takes."""

        async def answer(request: Request) -> Response:
            try:
                if request.scope["query_string"]:
                    check_query(request.query_params, query)
                return await endpoint(request)
            except ClientGoneError:
                return _unanswered
            except Exception as error:  # noqa: BLE001  # problem() renders any error, and logs the unexpected
                if (record := request.scope.get(RECORD)) is not None:
                    record.fail(error)
                return problem(error)

        return answer

    async def _list(self, request: Request) -> Answer:
        service = self._parts.service
        engine = service.engines.engine()
        objectives = [
            {"name": objective.name, "summary": objective.summary, "owner": objective.owner}
            for objective in service.grants.usable(engine, request.scope)
        ]
        return json_answer({"objectives": objectives, "revision": engine.rules})

    async def _contract(self, request: Request, name: str) -> tuple[Admitted, Decided, ModelMetadata | None]:
        """Admit a request for the contract of an objective, and return its representative decision and the metadata of its model.

        The metadata is None while the model is unavailable: the rest of the contract does not depend on it.
        """
        service, scope = self._parts.service, request.scope
        admitted = await service.admit(Ask(name, scope[LEASE], scope, record=scope.get(RECORD)))
        decided = service.represent(admitted, service.now_s(), Limits(None, self._parts.time_left_ms(scope)))
        try:
            metadata = await service.metadata.get(decided.decision, decided.deadline_s, METADATA_MAX_AGE_S)
        except _UNAVAILABLE:
            metadata = None
        return admitted, decided, metadata

    async def _describe(self, request: Request) -> Answer:
        admitted, _, metadata = await self._contract(request, request.path_params["objective"])
        objective = admitted.objective
        document = {
            "name": objective.name,
            "summary": objective.summary,
            "owner": objective.owner,
            "attributes": _attributes(objective),
            "unknown_attributes": "refuse" if objective.refuses_unknown else "ignore",
            "allocations": list(objective.allocations),
            "sticky_key": list(objective.sticky_key),
            "timeout_ms": objective.timeout_ms,
            "responses": objective.responses,
            "inputs": None if metadata is None else [tensor.as_dict() for tensor in metadata.inputs],
            "outputs": None if metadata is None else [tensor.as_dict() for tensor in metadata.outputs],
            "revision": admitted.engine.rules,
        }
        return json_answer(document)

    async def _fleet_status(self, request: Request) -> Answer:
        if self._fleet is None:
            raise not_found("this gateway does not describe its fleet")
        self._operators.check(request.scope["headers"])
        return json_answer(dict(await self._fleet.status()), ((b"cache-control", b"no-store"),))

    async def _openapi(self, request: Request) -> Answer:
        named = request.query_params.getlist("objective")
        if not named:
            return json_bytes_answer(await asyncio.to_thread(whole_document, has_console=self._has_console))
        if len(named) > 1:
            raise malformed("'objective' in the query must be sent once: a document describes one objective")
        admitted, decided, metadata = await self._contract(request, named[0])

        def required_inputs() -> Awaitable[frozenset[str]]:
            return self._parts.service.metadata.required_inputs(decided.decision, decided.deadline_s)

        described = admitted.objective, admitted.engine.rules, required_inputs
        try:
            document = await self._documents.get(metadata, *described)
        except _UNAVAILABLE:
            document = await self._documents.get(None, *described)
        return json_bytes_answer(document)


async def _unanswered(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Send nothing to a caller that has left."""


async def _no_route(_request: Request, error: Exception) -> Answer:
    return problem(no_route(error))


def _attributes(objective: Objective) -> list[dict[str, Any]]:
    return [
        {
            "name": attribute.name,
            "type": attribute.type,
            "required": attribute.required,
            "values": None if attribute.values is None else list(attribute.values),
            "default": attribute.default,
            "header": attribute.header,
        }
        for attribute in objective.attributes.values()
    ]
