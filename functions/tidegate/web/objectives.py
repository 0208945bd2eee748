"""`/v1`: the domain-independent API. A caller says who and where and gives plain JSON values; shapes and datatypes come
from the model's own metadata. Errors are problem documents (RFC 9457).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from tidegate.dispatch import Call, Outcome
from tidegate.dispatch.verdict import error_text
from tidegate.errors import DispatchError, NoRuleError, UnknownObjectiveError
from tidegate.ports import FleetStatus, HttpResponse
from tidegate.rules import Engine
from tidegate.rules.contract import Caller, Objective
from tidegate.rules.decision import Decision, Target
from tidegate.rules.nearest import nearest
from tidegate.web.bodies import Body, ClientGoneError
from tidegate.web.callers import Operators, check_version, flow_of, pinned_target
from tidegate.web.context import with_declared_headers
from tidegate.web.errors import (
    WebError,
    bad_model_answer,
    from_status,
    malformed,
    model_refused,
    no_rule,
    not_found,
    problem,
)
from tidegate.web.heavy import HEAVY_BYTES, compact, encode_parts, encoded, result
from tidegate.web.http import (
    Answer,
    RawHeaders,
    header_values,
    tracing_headers,
)
from tidegate.web.json_body import check_media, read_members
from tidegate.web.limits import caller_timeout_ms
from tidegate.web.metadata import ModelMetadata
from tidegate.web.observed import answered, unanswered
from tidegate.web.oip import server_timing
from tidegate.web.openapi import DOCUMENT
from tidegate.web.parts import DoorParts
from tidegate.web.tensors import decode_outputs, encode_inputs

Endpoint = Callable[[Request], Awaitable[Answer]]

_METADATA_MAX_AGE_S = 60.0
_REFUSAL_MAX_AGE_S = 1.0
_EXPLAIN = ("explain",)
_INFER_MEMBERS = ("context", "inputs")
_LONGEST_SHOWN = 64
_CONTRACT_CHANGED = re.compile(r"shape|data-type|inference input|expected \d+ inputs|unknown model")


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request, decided. `large` is the body where that is too large for its inputs to be parsed here."""

    decision: Decision
    explanation: Mapping[str, Any] | None
    inputs: Mapping[str, Any]
    large: bytes | None
    trace: RawHeaders
    flow: object
    deadline_s: float
    started_s: float
    decided_s: float


class JsonDoor:
    """The routes of `/v1`, and `/openapi.json`."""

    def __init__(self, parts: DoorParts, fleet: FleetStatus | None, operators: Operators, decision_ttl_ms: int) -> None:
        self._parts = parts
        self._fleet = fleet
        self._operators = operators
        self._decision_ttl_ms = decision_ttl_ms

    def routes(self) -> list[BaseRoute]:
        """The route table of `/v1`."""
        return [
            Route("/v1/objectives", self._guarded(self._list)),
            Route("/v1/objectives/{objective}", self._guarded(self._describe)),
            Route("/v1/objectives/{objective}/infer", self._guarded(self._infer, _EXPLAIN), methods=["POST"]),
            Route("/v1/objectives/{objective}/resolve", self._guarded(self._resolve, _EXPLAIN), methods=["POST"]),
            Route("/v1/fleet", self._guarded(self._fleet_status)),
            Route("/openapi.json", self._guarded(self._openapi)),
        ]

    def exception_handlers(self) -> dict[Any, Any]:
        """What answers where no route does."""
        return {HTTPException: _no_route}

    def _guarded(self, endpoint: Endpoint, query: tuple[str, ...] = ()) -> Endpoint:
        """`endpoint` with its errors as problem documents; `query` are the names that its query may hold."""

        async def answer(request: Request) -> Answer:
            try:
                if request.scope["query_string"]:
                    _check_query(request, query)
                return await endpoint(request)
            except ClientGoneError:
                return Answer(400, (), b"")
            except Exception as error:  # noqa: BLE001  # problem() tells the foreseen from the unforeseen
                return problem(error)

        return answer

    async def _infer(self, request: Request) -> Answer:
        with self._body(request) as incoming:
            asked = await self._ask(request, incoming, _INFER_MEMBERS)
            decision = asked.decision
            try:
                outcome = await self._exchange(asked)
                outputs = await self._outputs(self._parts.answers.shown(outcome))
            except Exception as error:  # noqa: BLE001  # problem() tells the foreseen from the unforeseen
                answer = problem(error, self._parts.decided.shown(decision))
                self._parts.observe(unanswered(decision, error, answer.status, asked.started_s, asked.decided_s))
                return answer
            self._parts.observe(answered(decision, outcome, asked.started_s, asked.decided_s))
            version = outcome.target.version
            served = {
                "model": outcome.target.model,
                "version": version,
                "shard": outcome.shard,
                "fallback": outcome.fallback,
            }
            document: dict[str, Any] = {"decision": {**decision.as_dict(), "served_by": served}}
            if asked.explanation is not None:
                document["explanation"] = asked.explanation
            timing = (b"server-timing", server_timing(asked.started_s, asked.decided_s, outcome.triton_ms))
            shown = (*self._parts.decided.shown(decision, outcome.target, outcome.shard), timing)
            return _json(b'{"outputs":%b,%b' % (outputs, compact(document)[1:]), shown)

    async def _resolve(self, request: Request) -> Answer:
        with self._body(request) as incoming:
            asked = await self._ask(request, incoming, ("context",))
        decision = asked.decision
        document: dict[str, Any] = {
            "decision": decision.as_dict(),
            **self._place(decision.target),
            "fallbacks": [{"target": target.name, **self._place(target)} for target in decision.fallbacks],
            "revision": decision.revision,
            "cache_ttl_ms": self._decision_ttl_ms,
        }
        if asked.explanation is not None:
            document["explanation"] = asked.explanation
        return json_answer(document, self._parts.decided.shown(decision))

    async def _list(self, request: Request) -> Answer:
        engine = self._parts.engines.engine()
        objectives = [
            {"name": objective.name, "summary": objective.summary, "owner": objective.owner}
            for objective in self._parts.grants.usable(engine, request.scope)
        ]
        return json_answer({"objectives": objectives, "revision": engine.rules})

    async def _describe(self, request: Request) -> Answer:
        engine, objective, _ = self._objective(request)
        decision = engine.representative(objective.name)
        metadata: ModelMetadata | None = None
        try:
            deadline_s = self._parts.dispatcher.deadline_s(decision, None, self._parts.time_left_ms(request.scope))
            metadata = await self._parts.metadata.get(decision, deadline_s, _METADATA_MAX_AGE_S)
        except (DispatchError, WebError):
            # The contract holds without the model: its tensors are null until it can be asked again.
            metadata = None
        document = {
            "name": objective.name,
            "summary": objective.summary,
            "owner": objective.owner,
            "attributes": _attributes(objective),
            "unknown_attributes": "refuse" if objective.refuses_unknown else "ignore",
            "allocations": list(objective.allocations),
            "sticky_key": list(objective.sticky_key),
            "timeout_ms": objective.timeout_ms,
            "inputs": None if metadata is None else [tensor.as_dict() for tensor in metadata.inputs],
            "outputs": None if metadata is None else [tensor.as_dict() for tensor in metadata.outputs],
            "revision": engine.rules,
        }
        return json_answer(document)

    async def _fleet_status(self, request: Request) -> Answer:
        if self._fleet is None:
            raise not_found("this gateway does not describe its fleet")
        self._operators.check(request.scope["headers"])
        return json_answer(dict(await self._fleet.status()), ((b"cache-control", b"no-store"),))

    async def _openapi(self, _request: Request) -> Answer:
        return json_answer(DOCUMENT)

    def _body(self, request: Request) -> Body:
        headers, parts = request.scope["headers"], self._parts
        if parts.max_body_bytes <= parts.max_v1_body_bytes:
            return Body(request.receive, headers, parts.max_body_bytes, parts.budget)
        return Body(request.receive, headers, parts.max_v1_body_bytes, parts.budget, "max_v1_body_bytes")

    def _objective(self, request: Request) -> tuple[Engine, Objective, Caller | None]:
        """The engine, and in it the objective that the request names and the caller that may use it."""
        engine = self._parts.engines.engine()
        name = request.path_params["objective"]
        caller = self._parts.grants.check(engine, request.scope, name)
        objective = engine.objectives.get(name)
        if objective is None:
            raise UnknownObjectiveError(name, nearest(name, engine.objectives))
        return engine, objective, caller

    async def _ask(self, request: Request, incoming: Body, members: tuple[str, ...]) -> _Asked:
        """Read a request and decide it."""
        if (waiting := self._parts.engines.catching_up()) is not None:
            await waiting
        engine, objective, caller = self._objective(request)
        headers = request.scope["headers"]
        if header_values(headers, b"tidegate-context"):
            raise malformed(
                "the header Tidegate-Context is for /v2: write the context as the member 'context' of the body",
                header="Tidegate-Context",
            )
        check_media(headers)
        trace = tracing_headers(headers)
        pinned = pinned_target(engine, caller, headers)
        caller_ms = caller_timeout_ms(headers)
        body = await incoming.whole()
        started_s = time.perf_counter()
        if self._parts.engines.engine() is not engine:
            # Other rules went live while the body came.
            engine, objective, caller = self._objective(request)
            pinned = pinned_target(engine, caller, headers)
        large = len(body) > HEAVY_BYTES
        document = await self._read_large(body, members) if large else read_members(body, members)
        context = with_declared_headers(objective, headers, document["context"])
        explain = _explains(request)
        try:
            decision = engine.decide(objective.name, context)
        except NoRuleError as error:
            if explain:
                raise no_rule(error, engine.explain(objective.name, context).as_dict()) from error
            raise
        explanation = engine.explain(objective.name, context).as_dict() if explain else None
        if pinned is not None:
            decision = engine.override(decision, pinned)
        decided_s = time.perf_counter()
        deadline_s = self._parts.dispatcher.deadline_s(decision, caller_ms, self._parts.time_left_ms(request.scope))
        if pinned is not None:
            await check_version(self._parts.metadata, engine, decision, deadline_s)
        inputs = document.get("inputs", {})
        large_body, flow = body if large else None, flow_of(caller, request.scope)
        return _Asked(decision, explanation, inputs, large_body, trace, flow, deadline_s, started_s, decided_s)

    async def _exchange(self, asked: _Asked) -> Outcome:
        """Send the inputs as tensors; once more when the model's contract has changed since it was last asked.

        Metadata that is a while old refuses nothing: the model is asked before.
        """
        metadata = await self._parts.metadata.get(asked.decision, asked.deadline_s, _METADATA_MAX_AGE_S)
        try:
            encoded = await self._encode(metadata, asked)
        except WebError:
            metadata = await self._parts.metadata.get(asked.decision, asked.deadline_s, _REFUSAL_MAX_AGE_S)
            encoded = await self._encode(metadata, asked)
        outcome = await self._send(asked, encoded)
        if outcome.response.status in (400, 404) and _CONTRACT_CHANGED.search(error_text(outcome.response) or ""):
            fresh = await self._parts.metadata.get(asked.decision, asked.deadline_s, 0.0)
            if fresh.inputs != metadata.inputs:
                outcome = await self._send(asked, await self._encode(fresh, asked))
        return outcome

    async def _read_large(self, body: bytes, members: tuple[str, ...]) -> dict[str, Any]:
        answer = await self._parts.offload.run("read", json.dumps(members).encode(), body)
        document: dict[str, Any] = json.loads(result(answer))
        return document

    async def _encode(self, metadata: ModelMetadata, asked: _Asked) -> tuple[bytes, int]:
        most_values = self._parts.max_v1_values
        if asked.large is None:
            return encode_inputs(metadata, asked.inputs, most_values)
        head = encode_parts(metadata, _INFER_MEMBERS, most_values)
        return encoded(await self._parts.offload.run("encode", head, asked.large))

    async def _outputs(self, response: HttpResponse) -> bytes:
        """The outputs of an answer as JSON."""
        length = _json_length(response)
        if len(response.body) > HEAVY_BYTES:
            part = b"" if length is None else b"%d" % length
            return result(await self._parts.offload.run("decode", part, response.body))
        return compact(decode_outputs(response.body, length))

    async def _send(self, asked: _Asked, encoded: tuple[bytes, int]) -> Outcome:
        body, header_length = encoded
        forwarded = [
            (b"Content-Type", b"application/octet-stream"),
            (b"Inference-Header-Content-Length", b"%d" % header_length),
            *asked.trace,
            *self._parts.decided.parameters(asked.decision),
        ]
        call = Call("POST", "/infer", forwarded, body, flow=asked.flow)
        return await self._parts.dispatcher.dispatch(asked.decision, call, asked.deadline_s)

    def _place(self, target: Target) -> dict[str, Any]:
        """Where a target is served: what a proxy routes on, and what a caller may speak to by itself."""
        endpoints = self._parts.dispatcher.directory.endpoints
        return {
            "routing_key": target.shards[0],
            "path": Call("POST", "/infer").path_for(target, False),
            "endpoints": [
                {"shard": shard, "url": endpoint.url} for shard in target.shards for endpoint in endpoints(shard)
            ],
        }


def json_answer(document: Any, headers: RawHeaders = ()) -> Answer:
    """A document as a 200 response."""
    return _json(compact(document), headers)


def _json(body: bytes, headers: RawHeaders) -> Answer:
    content = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
    return Answer(200, (*content, *headers), body)


def _check_query(request: Request, known: tuple[str, ...]) -> None:
    for name in request.query_params:
        if name not in known:
            right = f"the path takes only {', '.join(known)}" if known else "the path takes no query"
            raise malformed(f"unknown name {name[:_LONGEST_SHOWN]!r} in the query: {right}")


def _explains(request: Request) -> bool:
    given = request.query_params.getlist("explain")
    if len(given) > 1 or not set(given) <= {"true", "false"}:
        raise malformed("'explain' in the query must be sent once and be true or false")
    return given == ["true"]


async def _no_route(_request: Request, error: Exception) -> Answer:
    assert isinstance(error, HTTPException)
    return problem(from_status(error.status_code, (error.headers or {}).get("Allow")))


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


def _json_length(response: HttpResponse) -> int | None:
    """Where the JSON of an answer ends; None where it is all of it.

    Raises:
        WebError: the answer is an error, or says nothing readable.
    """
    if response.status != 200:
        text = error_text(response)
        if text is None:
            raise bad_model_answer(f"the model's server answered {response.status} without an error text")
        raise model_refused(response.status, text)
    length = response.header(b"inference-header-content-length")
    if length is not None and not length.isdigit():
        raise bad_model_answer("the answer's Inference-Header-Content-Length is no number")
    return None if length is None else int(length)
