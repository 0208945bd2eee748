"""`/v2`: the Open Inference Protocol, an objective as the model.

The body goes to Triton byte for byte and so does the answer; what the gateway adds is in headers. Paths, statuses and
texts of errors are Triton's (compared with a real one in tests/web), so that unmodified clients work. Protocol:
https://github.com/kserve/open-inference-protocol and Triton's extensions to it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import NamedTuple

from tidegate.dispatch import Call, Outcome
from tidegate.errors import ContextError, NoRuleError, TidegateError, UnavailableError
from tidegate.ports import HttpResponse
from tidegate.rules import Engine
from tidegate.rules.contract import Objective
from tidegate.rules.decision import Decision, Target
from tidegate.rules.nearest import nearest, suggestion
from tidegate.web.bodies import Body, ClientGoneError
from tidegate.web.callers import check_version, flow_of, pinned_target
from tidegate.web.classes import check_classes
from tidegate.web.context import context_header, name_to_read, oip_context
from tidegate.web.errors import (
    forbidden,
    not_found,
    not_offered,
    oip_error,
    oip_failure,
    wrong_method,
)
from tidegate.web.heavy import examine_parts, examined
from tidegate.web.http import (
    Answer,
    RawHeaders,
    Receive,
    Scope,
    Send,
    content_codings,
    header_values,
    request_headers,
    response_headers,
)
from tidegate.web.json_names import JsonName
from tidegate.web.limits import caller_timeout_ms
from tidegate.web.model_answers import check_answer
from tidegate.web.observed import answered, unanswered
from tidegate.web.parts import DoorParts
from tidegate.web.request_json import MOST_PARSED_BYTES, RequestJson, check_json_size, examine_request, json_end
from tidegate.web.sequences import NumericIds

_READ = frozenset({"", "ready", "config", "stats"})
_GENERATE = frozenset({"generate", "generate_stream"})
_MANAGEMENT = frozenset({"repository", "systemsharedmemory", "cudasharedmemory", "trace", "logging"})
_EXTENSIONS = (
    "classification", "sequence", "schedule_policy", "model_configuration", "binary_tensor_data", "parameters",
    "statistics",
)  # fmt: skip
_JSON_LENGTH = b"inference-header-content-length"
_SERVER_METADATA_MAX_AGE_S = 60.0
_VERSIONS_MAX_AGE_S = 1.0
_LONGEST_VERSION = 20


class _Admitted(NamedTuple):
    """A caller's objective in the live rules, the target that the caller pins, if any, and who it takes turns as."""

    engine: Engine
    contract: Objective
    pinned: Target | None
    flow: object


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request asks for and what was decided; `version` is the one in its path, as it was written."""

    engine: Engine
    objective: str
    version: str | None
    decision: Decision
    pinned: bool
    deadline_s: float


class OipDoor:
    """The ASGI app of `/v2`."""

    def __init__(self, parts: DoorParts) -> None:
        self._parts = parts
        self._numeric_ids = NumericIds(parts.dispatcher)
        self._server: tuple[float, Answer] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        try:
            answer = await self._route(scope, receive)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001  # oip_failure() tells the foreseen from the unforeseen
            answer = oip_failure(error)
        await answer(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive) -> Answer:
        parts = scope["path"].split("/")
        count = len(parts)
        if count < 4 or parts[2] != "models" or not parts[3]:
            return await self._server_route(scope, parts)
        version: str | None = None
        rest = parts[4:]
        if rest and rest[0] == "versions" and len(rest) > 1:
            if not (rest[1].isascii() and rest[1].isdigit()):
                raise not_found()
            version, rest = rest[1], rest[2:]
        if len(rest) > 1 or rest == [""]:
            if rest == ["trace", "setting"]:
                raise forbidden("trace settings are not for callers of the gateway")
            raise not_found()
        action = rest[0] if rest else ""
        if action == "infer":
            _require(scope, "POST")
            return await self._infer(scope, receive, parts[3], version)
        if action in _GENERATE:
            _require(scope, "POST")
            raise not_offered(f"{action} is not offered by this gateway; use infer")
        if action not in _READ:
            raise not_found()
        if parts[3] == "stats" and not rest:
            raise forbidden("the statistics of all models are not for callers of the gateway")
        _require(scope, "GET")
        return await self._read(scope, parts[3], version, action)

    async def _server_route(self, scope: Scope, parts: list[str]) -> Answer:
        match parts[2:]:
            case []:
                _require(scope, "GET")
                return await self._server_metadata()
            case ["health", "live"]:
                _require(scope, "GET")
                return _health("live", True)
            case ["health", "ready"]:
                _require(scope, "GET")
                return _health("ready", self._ready())
            case [first, *_] if first in _MANAGEMENT:
                raise forbidden(f"{first} is not for callers of the gateway")
            case _:
                raise not_found()

    async def _infer(self, scope: Scope, receive: Receive, objective: str, version: str | None) -> Answer:
        """Decide and infer. Whatever the headers show is refused before any of the body is read."""
        headers = scope["headers"]
        admitted = await self._admitted(scope, objective)
        if admitted is None:
            return _unknown(objective, self._parts.engines.engine())
        caller_ms = caller_timeout_ms(headers)
        values = context_header(headers)
        codings = content_codings(headers)
        forwarded = request_headers(headers, codings)
        with Body(receive, headers, self._parts.max_body_bytes, self._parts.budget) as incoming:
            body, rest_bytes = await self._read_body(incoming, headers, codings)
            started_s = time.perf_counter()
            if self._parts.engines.engine() is not admitted.engine:
                # Other rules went live while the body came.
                admitted = await self._admitted(scope, objective)
                if admitted is None:
                    return _unknown(objective, self._parts.engines.engine())
            engine, contract = admitted.engine, admitted.contract
            examined = await self._examined(
                headers, codings, body, len(body) + rest_bytes, name_to_read(contract, headers)
            )
            context = oip_context(contract, headers, values, examined.parameters)
            decision = engine.decide(objective, context.values)
            if admitted.pinned is not None:
                decision = engine.override(decision, admitted.pinned)
            decided_s = time.perf_counter()
            forwarded.extend(self._parts.decided.parameters(decision))
            rest = incoming.rest() if rest_bytes else None
            call = Call(
                "POST",
                "/infer",
                forwarded,
                body,
                rest,
                rest_bytes,
                sequence_id=context.sequence_id,
                flow=admitted.flow,
            )
            deadline_s = self._parts.dispatcher.deadline_s(decision, caller_ms, self._parts.time_left_ms(scope))
            asked = _Asked(engine, objective, version, decision, admitted.pinned is not None, deadline_s)
            return await self._dispatched(asked, examined, call, started_s, decided_s)

    async def _dispatched(
        self, asked: _Asked, examined: RequestJson, call: Call, started_s: float, decided_s: float
    ) -> Answer:
        """Carry a decision out, and report it to the observer with its times."""
        decision = asked.decision
        try:
            if call.sequence_id is not None or examined.classified:
                checked = await self._checked(decision, examined, call, asked.deadline_s)
                asked = replace(asked, decision=checked)
            outcome = await self._carry_out(asked, call)
            response = self._parts.answers.shown(outcome)
        except ClientGoneError:
            raise
        except Exception as error:  # noqa: BLE001  # oip_failure() tells the foreseen from the unforeseen
            answer = oip_failure(error, self._parts.decided.shown(decision))
            self._parts.observe(unanswered(decision, error, answer.status, started_s, decided_s))
            return answer
        self._parts.observe(answered(decision, outcome, started_s, decided_s))
        return self._answer(decision, outcome, response, started_s, decided_s)

    async def _read_body(self, incoming: Body, headers: RawHeaders, codings: list[bytes]) -> tuple[bytes, int]:
        """The body, and how many bytes of it are to be passed on as they come.

        That is done with large bodies of binary tensors, as their JSON alone is looked at, from callers that are fast: a slow
        one would take up the place of another at the server.

        Raises:
            WebError: its JSON is too large (413).
        """
        incoming.check_announced()
        announced_bytes = incoming.announced_bytes
        if announced_bytes is not None and not codings:
            check_json_size(json_end(header_values(headers, _JSON_LENGTH), announced_bytes), self._parts.max_json_bytes)
        if announced_bytes is None or announced_bytes <= self._parts.stream_above_bytes or codings:
            return await incoming.whole(), 0
        end = json_end(header_values(headers, _JSON_LENGTH), announced_bytes)
        if end > MOST_PARSED_BYTES:
            return await incoming.whole(), 0
        begun = await incoming.start(max(end, self._parts.stream_above_bytes))
        if incoming.is_fast:
            return begun, incoming.rest_bytes
        return await incoming.whole(begun), 0

    async def _examined(
        self, headers: RawHeaders, codings: list[bytes], body: bytes, size_bytes: int, wanted: JsonName
    ) -> RequestJson:
        """What the JSON of a request says; large JSON is looked at where that holds up no other request."""
        lengths = header_values(headers, _JSON_LENGTH)
        most_bytes = self._parts.max_json_bytes
        found = examine_request(lengths, codings, body, size_bytes, wanted, most_bytes)
        if found is not None:
            return found
        head = examine_parts(lengths, codings, wanted, size_bytes, most_bytes)
        return examined(await self._parts.offload.run("examine", head, body))

    async def _checked(self, decision: Decision, examined: RequestJson, call: Call, deadline_s: float) -> Decision:
        """The decision to carry out, once the model says that the request cannot end its server.

        Raises:
            DispatchError: nobody answered.
            WebError: it could (400).
        """
        if call.sequence_id is not None:
            await self._numeric_ids.check(decision, call.sequence_id, deadline_s)
        if not examined.classified:
            return decision
        return await check_classes(self._parts.metadata, decision, examined.classified, deadline_s)

    async def _admitted(self, scope: Scope, objective: str) -> _Admitted | None:
        """The live rules, and in them the objective that the request's caller may use; None where there is none.

        Raises:
            WebError: the caller has no grant for the objective, or for the target that it pins.
        """
        if (waiting := self._parts.engines.catching_up()) is not None:
            await waiting
        engine = self._parts.engines.engine()
        caller = self._parts.grants.check(engine, scope, objective)
        contract = engine.objectives.get(objective)
        if contract is None:
            return None
        return _Admitted(engine, contract, pinned_target(engine, caller, scope["headers"]), flow_of(caller, scope))

    async def _read(self, scope: Scope, objective: str, version: str | None, action: str) -> Answer:
        """Pass a model-bound GET on, by the context that the request has, else to what stands for the objective."""
        headers = scope["headers"]
        started_s = time.perf_counter()
        admitted = await self._admitted(scope, objective)
        if admitted is None:
            return _unknown(objective, self._parts.engines.engine(), action)
        engine, pinned = admitted.engine, admitted.pinned
        caller_ms = caller_timeout_ms(headers)
        try:
            context = oip_context(admitted.contract, headers, context_header(headers), {})
            decision = engine.decide(objective, context.values)
        except (ContextError, NoRuleError):
            decision = engine.representative(objective)
        if pinned is not None:
            decision = engine.override(decision, pinned)
        decided_s = time.perf_counter()
        call = Call("GET", f"/{action}" if action else "", request_headers(headers, content_codings(headers)))
        try:
            deadline_s = self._parts.dispatcher.deadline_s(decision, caller_ms, self._parts.time_left_ms(scope))
            asked = _Asked(engine, objective, version, decision, pinned is not None, deadline_s)
            outcome = await self._carry_out(asked, call)
            check_answer(outcome.response)
        except Exception as error:  # noqa: BLE001  # oip_failure() tells the foreseen from the unforeseen
            return oip_failure(error, self._parts.decided.shown(decision))
        return self._answer(decision, outcome, outcome.response, started_s, decided_s)

    def _answer(
        self, decision: Decision, outcome: Outcome, response: HttpResponse, started_s: float, decided_s: float
    ) -> Answer:
        """What Triton answered, and the decision in its headers."""
        headers = response_headers(response.headers)
        headers.extend(self._parts.decided.shown(decision, outcome.target, outcome.shard))
        headers.append((b"server-timing", server_timing(started_s, decided_s, outcome.triton_ms)))
        return Answer(response.status, headers, response.body, response.lease)

    async def _carry_out(self, asked: _Asked, call: Call) -> Outcome:
        if asked.pinned:
            await check_version(self._parts.metadata, asked.engine, asked.decision, asked.deadline_s)
        if asked.version is not None:
            call = await self._of_version(call, asked, asked.version)
        return await self._parts.dispatcher.dispatch(asked.decision, call, asked.deadline_s)

    async def _of_version(self, call: Call, asked: _Asked, text: str) -> Call:
        """`call` for the version that the caller named: it may name what the rules pick, but pins nothing with it.

        A version that the model does not serve is for Triton to refuse, so its first answer is final.

        Raises:
            WebError: the model serves that version, and the rules pick another (403).
        """
        if len(text) > _LONGEST_VERSION:
            raise not_found()
        number = int(text)
        if number == asked.decision.version:
            return call
        metadata = await self._parts.metadata.get(
            asked.decision, asked.deadline_s, _VERSIONS_MAX_AGE_S, all_versions=True
        )
        if number not in metadata.versions:
            return replace(call, version=number, final=True)
        if asked.decision.version is None and number == max(metadata.versions):
            return replace(call, version=number)
        raise forbidden(
            f"objective '{asked.objective}' does not serve version {number}: its rules pick the version, ask without one"
        )

    async def _server_metadata(self) -> Answer:
        """What Triton says of itself, with the extensions that work through the gateway."""
        now_s = time.monotonic()
        if self._server is not None and now_s - self._server[0] <= _SERVER_METADATA_MAX_AGE_S:
            return self._server[1]
        engine = self._parts.engines.engine()
        if not engine.objectives:
            raise UnavailableError("the live rules hold no objective")
        decision = engine.representative(next(iter(engine.objectives)))
        deadline_s = self._parts.dispatcher.deadline_s(decision)
        outcome = await self._parts.dispatcher.dispatch(decision, Call("GET", path="/v2"), deadline_s)
        try:
            document = json.loads(outcome.response.body)
            offered = set(document["extensions"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UnavailableError("no server describes itself") from error
        document["extensions"] = [name for name in _EXTENSIONS if name in offered]
        body = json.dumps(document, separators=(",", ":")).encode()
        headers = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
        answer = Answer(200, headers, body)
        self._server = (now_s, answer)
        return answer

    def _ready(self) -> bool:
        """Whether rules are loaded and every objective has a shard with a known endpoint."""
        try:
            engine = self._parts.engines.engine()
        except TidegateError:
            return False
        return all(self._reachable(engine, name) for name in engine.objectives)

    def _reachable(self, engine: Engine, objective: str) -> bool:
        endpoints = self._parts.dispatcher.directory.endpoints
        return any(endpoints(shard) for target in engine.targets(objective) for shard in target.shards)


def server_timing(started_s: float, decided_s: float, triton_ms: float) -> bytes:
    """`Server-Timing` (https://www.w3.org/TR/server-timing/) in milliseconds.

    `decide` is reading the context and deciding, `dispatch` everything after it up to the answer, and `triton` the part
    of `dispatch` that the answering attempt took.
    """
    decide_ms = (decided_s - started_s) * 1000.0
    dispatch_ms = (time.perf_counter() - decided_s) * 1000.0
    return b"decide;dur=%.3f, dispatch;dur=%.3f, triton;dur=%.3f" % (decide_ms, dispatch_ms, triton_ms)


def _require(scope: Scope, method: str) -> None:
    if scope["method"] != method:
        raise wrong_method(method)


def _health(what: str, healthy: bool) -> Answer:
    """The protocol's own body, which Triton leaves out; KServe's client reads it. "No" is a 4xx, as the protocol asks."""
    body = json.dumps({what: healthy}, separators=(",", ":")).encode()
    headers = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
    return Answer(200 if healthy else 400, headers, body)


def _unknown(objective: str, engine: Engine, action: str = "infer") -> Answer:
    """Triton's answer to an unknown model, which differs by endpoint, and behind it the objective that may have been meant."""
    match action:
        case "ready":
            return oip_error(400, "Model version not ready")
        case "stats":
            text = f"requested model '{objective}' is not available"
            return oip_error(400, text + suggestion(nearest(objective, engine.objectives)))
        case _:
            text = f"Request for unknown model: '{objective}' is not found"
            return oip_error(404, text + suggestion(nearest(objective, engine.objectives)))
