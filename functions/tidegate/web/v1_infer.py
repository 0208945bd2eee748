"""`POST /v1/objectives/{objective}/infer` and `…/resolve`: a context and plain JSON values in, outputs and a decision out."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from starlette.requests import Request

from tidegate.errors import ModelAnswerError, ModelRefusedError, NoRuleError, RefusedError, malformed
from tidegate.gateway.call import Call, Outcome
from tidegate.gateway.request import Decided, Limits
from tidegate.oip.error_texts import error_text, tells_of_contract
from tidegate.oip.metadata import ModelMetadata
from tidegate.oip.values import decode_outputs, encode_inputs
from tidegate.ports import HttpResponse
from tidegate.rules import Engine
from tidegate.rules.contract import Responses
from tidegate.rules.decision import Target
from tidegate.web.bodies import Body
from tidegate.web.context import with_declared_headers
from tidegate.web.errors import no_rule, problem, streams_only
from tidegate.web.head import RequestHead
from tidegate.web.heavy import HEAVY_BYTES, encode_parts, encoded, result
from tidegate.web.http import Answer, RawHeaders, compact, json_answer, json_bytes_answer
from tidegate.web.json_body import check_media, read_members
from tidegate.web.parts import HandlerParts
from tidegate.web.v2_infer import ask, outcome_headers

METADATA_MAX_AGE_S = 60.0
REFUSAL_MAX_AGE_S = 1.0
INFER_MEMBERS = ("context", "inputs")
_RESOLVE_MEMBERS = ("context",)
_LONGEST_LENGTH = 18


class Asked(NamedTuple):
    """A decided request. `large` is the body where its inputs are too large to be parsed on the event loop."""

    decided: Decided
    explanation: Mapping[str, Any] | None
    inputs: Mapping[str, Any]
    large: bytes | None
    trace: RawHeaders


class JsonInference:
    """Answers inferences and resolutions of `/v1`.

    Args:
        parts: dependencies shared by the handlers.
        decision_ttl_ms: how long a caller of `resolve` may keep a decision, in milliseconds.
    """

    def __init__(self, parts: HandlerParts, decision_ttl_ms: int) -> None:
        self._parts = parts
        self._decision_ttl_ms = decision_ttl_ms

    async def infer(self, request: Request) -> Answer:
        """Decide, send the inputs as tensors, and return the outputs as plain values."""
        service, shown = self._parts.service, self._parts.decided.shown
        head = RequestHead(request.scope["headers"])
        with self.body(request, head) as incoming:
            asked = await self.ask(request, head, incoming, INFER_MEMBERS)
            decided = asked.decided
            decision = decided.decision
            if _streams(decided):
                raise streams_only(decision.objective)
            try:
                call, outcome = await self._exchange(asked)
                outputs = await self._outputs(self._parts.answers.shown(outcome))
            except Exception as error:  # noqa: BLE001  # problem() renders any error, and logs the unexpected
                answer = problem(error, shown(decision))
                service.failed(decided, error, answer.status)
                return answer
            service.answered(decided, call, outcome)
            headers = outcome_headers(self._parts, decided, outcome)
            return json_bytes_answer(b'{"outputs":%b,%b' % (outputs, decided_members(asked, outcome)[1:]), headers)

    async def resolve(self, request: Request) -> Answer:
        """Decide, and return the decision with the places that serve its targets."""
        head = RequestHead(request.scope["headers"])
        with self.body(request, head) as incoming:
            asked = await self.ask(request, head, incoming, _RESOLVE_MEMBERS)
        decision = asked.decided.decision
        suffix = "/generate_stream" if _streams(asked.decided) else "/infer"
        document: dict[str, Any] = {
            "decision": decision.as_dict(),
            **self._place(decision.target, suffix),
            "fallbacks": [{"target": target.name, **self._place(target, suffix)} for target in decision.fallbacks],
            "revision": decision.revision,
            **self._lifetime(asked.decided.engine, decision.objective),
        }
        if asked.explanation is not None:
            document["explanation"] = asked.explanation
        return json_answer(document, self._parts.decided.shown(decision))

    def body(self, request: Request, head: RequestHead) -> Body:
        """Return the body of a request, with its limit."""
        parts = self._parts
        announced_bytes = head.announced_bytes
        if parts.max_body_bytes <= parts.max_v1_body_bytes:
            return Body(request.receive, announced_bytes, parts.max_body_bytes, parts.budget)
        return Body(request.receive, announced_bytes, parts.max_v1_body_bytes, parts.budget, "max_v1_body_bytes")

    async def ask(self, request: Request, head: RequestHead, incoming: Body, members: tuple[str, ...]) -> Asked:
        """Read and decide a request."""
        service, scope = self._parts.service, request.scope
        admitted = await service.admit(ask(scope, head, request.path_params["objective"]))
        if head.values(b"tidegate-context"):
            raise malformed(
                "the header Tidegate-Context is for /v2: write the context as the member 'context' of the body",
                header="Tidegate-Context",
            )
        check_media(head)
        trace = head.tracing()
        caller_ms = admitted.ask.caller_ms
        body = await incoming.whole()
        started_s = service.now_s()
        admitted = service.admit_again(admitted)
        large = len(body) > HEAVY_BYTES
        document = await self._read_large(body, members) if large else read_members(body, members)
        context = with_declared_headers(admitted.objective, head.headers, document["context"])
        # Before the deadline is set: explaining many rules takes longer than deciding by them.
        explanation = admitted.engine.explain(admitted.ask.objective, context).as_dict() if _explains(request) else None
        limits = Limits(caller_ms, self._parts.time_left_ms(scope))
        try:
            decided = service.decide(admitted, context, started_s, limits)
        except NoRuleError as error:
            if explanation is not None:
                raise no_rule(error, explanation) from error
            raise
        if decided.is_pinned:
            decided = await service.checked(decided)
        return Asked(decided, explanation, document.get("inputs", {}), body if large else None, trace)

    async def _exchange(self, asked: Asked) -> tuple[Call, Outcome]:
        """Send the inputs as tensors, and again when the model's inputs have changed since its metadata was read.

        Old metadata never refuses a request: the model is asked again first.
        """
        metadata = await self.metadata(asked.decided, METADATA_MAX_AGE_S)
        try:
            tensors = await self._encode(metadata, asked)
        except RefusedError:
            metadata = await self.metadata(asked.decided, REFUSAL_MAX_AGE_S)
            tensors = await self._encode(metadata, asked)
        call, outcome = await self._send(asked, tensors)
        if outcome.response.status in (400, 404) and tells_of_contract(error_text(outcome.response.body) or ""):
            fresh = await self.metadata(asked.decided, 0.0)
            if fresh.inputs != metadata.inputs:
                return await self._send(asked, await self._encode(fresh, asked))
        return call, outcome

    async def metadata(self, decided: Decided, max_age_s: float) -> ModelMetadata:
        """Return the metadata of the decided model."""
        return await self._parts.service.metadata.get(decided.decision, decided.deadline_s, max_age_s)

    async def _read_large(self, body: bytes, members: tuple[str, ...]) -> dict[str, Any]:
        answer = await self._parts.offload.run("read", json.dumps(members).encode(), body)
        document: dict[str, Any] = json.loads(result(answer))
        return document

    async def _encode(self, metadata: ModelMetadata, asked: Asked) -> tuple[bytes, int]:
        most_values = self._parts.max_v1_values
        if asked.large is None:
            return encode_inputs(metadata.inputs, asked.inputs, most_values)
        head = encode_parts(metadata, INFER_MEMBERS, most_values)
        return encoded(await self._parts.offload.run("encode", head, asked.large))

    async def _outputs(self, response: HttpResponse) -> bytes:
        """Decode the outputs of an answer and encode them as JSON."""
        length = json_length(response)
        if len(response.body) > HEAVY_BYTES:
            part = b"" if length is None else b"%d" % length
            return result(await self._parts.offload.run("decode", part, response.body))
        return compact(decode_outputs(response.body, length))

    async def _send(self, asked: Asked, tensors: tuple[bytes, int]) -> tuple[Call, Outcome]:
        body, header_length = tensors
        decided = asked.decided
        forwarded = [
            (b"Content-Type", b"application/octet-stream"),
            (b"Inference-Header-Content-Length", b"%d" % header_length),
            *asked.trace,
            *self._parts.decided.parameters(decided.decision),
            *self._parts.decided.origin(decided.caller, decided.traffic),
        ]
        call = Call("POST", "/infer", forwarded, body, flow=decided.flow)
        return call, await self._parts.service.dispatch(decided, call)

    def _lifetime(self, engine: Engine, objective: str) -> dict[str, Any]:
        """Return for how long a decision may be kept, and for which contexts: until a rule's window begins or ends at the latest."""
        now_s = time.time()
        change_s = engine.changes_after(objective, now_s)
        ttl_ms = (
            self._decision_ttl_ms if change_s is None else min(self._decision_ttl_ms, int((change_s - now_s) * 1000))
        )
        return {"cache_ttl_ms": ttl_ms, "vary": list(engine.depends_on(objective))}

    def _place(self, target: Target, suffix: str) -> dict[str, Any]:
        """Return where a target is served: the routing key for a proxy, and endpoints that a caller may call directly."""
        endpoints = self._parts.service.dispatcher.directory.endpoints
        return {
            "routing_key": target.shards[0],
            "path": Call("POST", suffix).path_for(target, False),
            "endpoints": [
                {"shard": shard, "url": endpoint.url} for shard in target.shards for endpoint in endpoints(shard)
            ],
        }


def _streams(decided: Decided) -> bool:
    return decided.engine.objectives[decided.decision.objective].responses is Responses.STREAM


def decided_members(asked: Asked, outcome: Outcome) -> bytes:
    """Return the decision, who served it and the explanation that was asked for, as the members of a JSON object."""
    target = outcome.target
    served = {
        "model": target.model,
        "version": target.version,
        "shard": outcome.shard,
        "fallback": outcome.fallback,
    }
    document: dict[str, Any] = {"decision": {**asked.decided.decision.as_dict(), "served_by": served}}
    if asked.explanation is not None:
        document["explanation"] = asked.explanation
    return compact(document)


def _explains(request: Request) -> bool:
    given = request.query_params.getlist("explain")
    if len(given) > 1 or not set(given) <= {"true", "false"}:
        raise malformed("'explain' in the query must be sent once and be true or false")
    return given == ["true"]


def json_length(response: HttpResponse) -> int | None:
    """Return the length of the JSON in an answer; None where the whole body is JSON.

    Raises:
        ModelRefusedError: the answer is an error.
        ModelAnswerError: the answer is an error without a text, or its length is not a number.
    """
    if response.status != 200:
        text = error_text(response.body)
        if text is None:
            raise ModelAnswerError(f"the model's server answered {response.status} without an error text")
        raise ModelRefusedError(response.status, text)
    length = response.header(b"inference-header-content-length")
    # int() raises for more than 4 300 digits.
    if length is not None and not (length.isdigit() and len(length) <= _LONGEST_LENGTH):
        raise ModelAnswerError("the answer's Inference-Header-Content-Length is not a number")
    return None if length is None else int(length)
