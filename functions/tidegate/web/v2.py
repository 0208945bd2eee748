"""`/v2`: the Open Inference Protocol, with an objective as the model.

Bodies of requests and responses pass unchanged; what the gateway adds is in headers. Paths, statuses and error texts are
Triton's, so that unmodified clients work (tests/web compares them with a real Triton). Protocol:
https://github.com/kserve/open-inference-protocol and Triton's extensions to it.
"""

from __future__ import annotations

import json
import time
from typing import Final

from tidegate.errors import ContextError, NoRuleError, UnavailableError, UnknownObjectiveError
from tidegate.gateway.call import Call
from tidegate.gateway.request import Limits
from tidegate.web.bodies import ClientGoneError
from tidegate.web.context import context_header, oip_context
from tidegate.web.errors import forbidden, not_found, oip_failure, unknown_model, wrong_method
from tidegate.web.head import RequestHead
from tidegate.web.http import RECORD, Answer, Receive, Scope, Send, json_answer
from tidegate.web.model_answers import check_answer
from tidegate.web.parts import HandlerParts
from tidegate.web.streams import StreamedAnswer
from tidegate.web.v2_generate import Generation
from tidegate.web.v2_infer import Inference, ask, decided_answer, of_version

_READ: Final = frozenset({"", "ready", "config", "stats"})
INFERS: Final = frozenset({"infer", "generate", "generate_stream"})
"""What a model computes; all else that is asked about it is read."""

_MANAGEMENT: Final = frozenset({"repository", "systemsharedmemory", "cudasharedmemory", "trace", "logging"})
EXTENSIONS: Final = (
    "classification", "sequence", "schedule_policy", "model_configuration", "binary_tensor_data", "parameters",
    "statistics", "generate",
)  # fmt: skip
_SERVER_METADATA_MAX_AGE_S: Final = 60.0


class V2Handler:
    """The ASGI app of `/v2`."""

    def __init__(self, parts: HandlerParts) -> None:
        self._parts = parts
        self._infer = Inference(parts)
        self._generate = Generation(parts)
        self._server: tuple[float, Answer] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        answer: Answer | StreamedAnswer
        try:
            answer = await self._route(scope, receive)
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001  # oip_failure() renders any error, and logs the unexpected
            if (record := scope.get(RECORD)) is not None:
                record.fail(error)
            answer = oip_failure(error)
        await answer(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive) -> Answer | StreamedAnswer:
        parts = scope["path"].split("/")
        if len(parts) < 4 or parts[2] != "models" or not parts[3]:
            return await self._server_route(scope, parts)
        asked = model_request(parts)
        action = asked.action
        if action == "infer":
            require(scope, "POST")
            return await self._infer(scope, receive, asked.objective, asked.version)
        if action in INFERS:
            require(scope, "POST")
            return await self._generate(scope, receive, asked.objective, asked.version, action)
        require(scope, "GET")
        return await self._read(scope, asked.objective, asked.version, action)

    async def _server_route(self, scope: Scope, parts: list[str]) -> Answer:
        match parts[2:]:
            case []:
                require(scope, "GET")
                return await self._server_metadata()
            case ["health", "live"]:
                require(scope, "GET")
                return _health("live", True)
            case ["health", "ready"]:
                require(scope, "GET")
                return _health("ready", self._parts.service.is_ready())
            case [first, *_] if first in _MANAGEMENT:
                raise forbidden(f"{first} is not for callers of the gateway")
            case _:
                raise not_found()

    async def _read(self, scope: Scope, objective: str, version: str | None, action: str) -> Answer:
        """Forward a GET about a model, by the request's context, or to the objective's representative without a usable one."""
        parts, service = self._parts, self._parts.service
        head = RequestHead(scope["headers"])
        started_s = service.now_s()
        try:
            admitted = await service.admit(ask(scope, head, objective))
        except UnknownObjectiveError as error:
            return unknown_model(error, action)
        limits = Limits(admitted.ask.caller_ms, parts.time_left_ms(scope))
        try:
            context = oip_context(admitted.objective, head, context_header(head), {})
            decided = service.decide(admitted, context.values, started_s, limits)
        except (ContextError, NoRuleError):
            decided = service.represent(admitted, started_s, limits)
        call = Call("GET", f"/{action}" if action else "", head.forwarded())
        try:
            if decided.is_pinned:
                decided = await service.checked(decided)
            if version is not None:
                call = await of_version(parts, decided, call, version)
            outcome = await service.dispatch(decided, call)
            check_answer(outcome.response)
        except Exception as error:  # noqa: BLE001  # oip_failure() renders any error, and logs the unexpected
            if decided.record is not None:
                decided.record.fail(error)
            return oip_failure(error, parts.decided.shown(decided.decision))
        return decided_answer(parts, decided, outcome, outcome.response)

    async def _server_metadata(self) -> Answer:
        """Return Triton's own metadata, with only the extensions that work through the gateway."""
        now_s = time.monotonic()
        if self._server is not None and now_s - self._server[0] <= _SERVER_METADATA_MAX_AGE_S:
            return self._server[1]
        engine = self._parts.service.engines.engine()
        if not engine.objectives:
            raise UnavailableError("the live rules hold no objective")
        decision = engine.representative(next(iter(engine.objectives)))
        deadline_s = self._parts.service.dispatcher.deadline_s(decision)
        outcome = await self._parts.service.dispatcher.dispatch(decision, Call("GET", path="/v2"), deadline_s)
        try:
            document = json.loads(outcome.response.body)
            offered = set(document["extensions"])
            document["extensions"] = [name for name in EXTENSIONS if name in offered]
            answer = json_answer(document)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UnavailableError("no server describes itself") from error
        self._server = (now_s, answer)
        return answer


class ModelPath:
    """What a path about an objective asks for. `action` is what follows the model; empty for its metadata."""

    def __init__(self, objective: str, version: str | None, action: str) -> None:
        self.objective: Final = objective
        self.version: Final = version
        self.action: Final = action


def model_request(parts: list[str]) -> ModelPath:
    """Read a path below `/v2/models`, by what is between its slashes.

    Raises:
        WebError: it is not served (404), or not for callers (403).
    """
    if len(parts) < 4 or parts[1:3] != ["v2", "models"] or not parts[3]:
        raise not_found()
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
    if action not in INFERS and action not in _READ:
        raise not_found()
    if parts[3] == "stats" and not rest:
        raise forbidden("the statistics of all models are not for callers of the gateway")
    return ModelPath(parts[3], version, action)


def require(scope: Scope, method: str) -> None:
    """Raises `WebError`: the request has another method (405)."""
    if scope["method"] != method:
        raise wrong_method(method)


def _health(what: str, healthy: bool) -> Answer:
    # Triton leaves out the body of the protocol, but KServe's client reads it. The protocol asks for a 4xx if unhealthy.
    return json_answer({what: healthy}, status=200 if healthy else 400)
