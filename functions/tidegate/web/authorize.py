"""`/authorize`: decides a request of the protocol by its path and headers alone, for a proxy that carries the request itself.

Envoy's `ext_authz` filter asks here, with the request's method, its path after `/authorize`, and its headers
(https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/ext_authz_filter). The answer to a request that may pass is
a 200 whose headers say where it goes; any other below 500 goes to the caller as it is. One from 500 on counts as no answer, so no
refusal has such a status here.
"""

from __future__ import annotations

import json
from typing import Final

from tidegate.envoy.plans import (
    CODE_HEADER,
    PATH_HEADER,
    PLAN_HEADER,
    RPC,
    SHARD_HEADER,
    TO_CALLER,
    TO_SERVER,
    cluster_of,
    http_plan,
    rpc_plan,
    shape_of,
    steps_of,
)
from tidegate.errors import ContextError, NoRuleError, Refusal, RefusedError, UnknownObjectiveError, malformed
from tidegate.gateway.config import DispatchConfig
from tidegate.gateway.request import Decided, Limits
from tidegate.oip.infer_message import parameter_fields, sequence_id_field
from tidegate.oip.paths import model_path
from tidegate.rules.contract import Responses, Traffic
from tidegate.rules.decision import Decision
from tidegate.web.context import context_header, with_declared_headers
from tidegate.web.entry import served_at_once
from tidegate.web.errors import oip_failure, problem, unknown_model
from tidegate.web.head import LONGEST_VALUE_BYTES, HeaderTooLongError, RequestHead
from tidegate.web.http import RECORD, Answer, HeaderList, RawHeaders, Receive, Scope, Send
from tidegate.web.parts import HandlerParts
from tidegate.web.v2 import INFERS, ModelPath, model_request, require
from tidegate.web.v2_infer import ask

PREFIX: Final = "/authorize"
_BELOW: Final = PREFIX + "/"
RPC_SERVICE: Final = "/inference.GRPCInferenceService/"

_ABOUT_MODEL: Final = frozenset({"ModelInfer", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"})
_MOST_KEPT: Final = 4096
_LONGEST_KEPT: Final = 256
"""Characters of a path that is kept: a caller may send many others."""

_TRAFFIC: Final = {each: (b"x-tidegate-traffic", each.value.encode()) for each in Traffic}
_TO_SERVER: Final = frozenset(name.encode() for name in TO_SERVER)
_TO_CALLER: Final = frozenset(name.encode() for name in TO_CALLER)
_RPC_CODES: Final = {400: 3, 403: 7, 404: 5, 409: 10, 413: 8, 429: 8, 431: 8}
_UNKNOWN: Final = 2
_LEAST_RETRIES: Final = 3
_NOT_FORWARDED: Final = frozenset({b"tidegate-context", b"authorization", b"cookie"})
_FROM_HEADERS: Final = (
    "a proxy that carries the request reads the context from Tidegate-Context and declared headers alone"
)


class Kept:
    """The headers that every request gets with one decision and one action, and which of them are for whom."""

    def __init__(self, headers: HeaderList) -> None:
        self.headers: Final = headers
        self.to_server: Final = [each for each in headers if each[0] in _TO_SERVER]
        self.to_caller: Final = [each for each in headers if each[0] in _TO_CALLER]
        plan = [value for name, value in headers if name == PLAN_HEADER.encode()]
        self.plan: Final = plan[0] if plan else None


class Directions:
    """Where a request goes: the headers that it shares, and its own, which are for its server."""

    def __init__(self, kept: Kept, own: list[tuple[bytes, bytes]]) -> None:
        self.kept: Final = kept
        self.own: Final = own


class Authorization:
    """The ASGI app of `/authorize`.

    Args:
        parts: dependencies shared by the handlers.
        config: has the deadline of a request without one of its own, and of streams.
    """

    def __init__(self, parts: HandlerParts, config: DispatchConfig) -> None:
        self._parts = parts
        self._default_timeout_ms = config.default_timeout_ms
        self._stream_most_ms = config.stream_most_ms
        self._kept: dict[tuple[int, str], tuple[Decision, Kept]] = {}
        self._asked: dict[str, ModelPath] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI), by recent rules."""
        if (waiting := self._parts.service.engines.catching_up()) is not None:
            await waiting
        await self.answered(scope)(scope, receive, send)

    def at_once(self, scope: Scope) -> Answer | None:
        """Return the answer to a request; None if the app must be asked: the path is not for this one, or the answer has to wait for
        recent rules, or is traced."""
        parts = self._parts
        if not scope["path"].startswith(_BELOW) or b"%" in scope["raw_path"] or parts.traces:
            return None
        if parts.service.engines.catching_up() is not None:
            return None
        return served_at_once(self.answered, parts.log, parts.count, scope)

    def answered(self, scope: Scope) -> Answer:
        """Return the answer to a request by the rules as they are, whether it may pass or not."""
        path: str = scope["path"][len(PREFIX) :]
        try:
            found = self.directions(scope, path)
            answer = Answer(200, [*found.kept.headers, *found.own], b"")
        except UnknownObjectiveError as error:
            answer = unknown_model(error)
        except Exception as error:  # noqa: BLE001  # rendered, and logged if it is unexpected
            if (record := scope.get(RECORD)) is not None:
                record.fail(error)
            answer = oip_failure(error) if path.startswith(("/v2", RPC_SERVICE)) else problem(error)
        return _rpc_refusal(answer) if answer.status != 200 and path.startswith(RPC_SERVICE) else answer

    def directions(self, scope: Scope, path: str) -> Directions:
        """Return the directions of a request that may pass, by the rules as they are.

        Args:
            scope: its ASGI scope, with a `Lease`.
            path: its path, without `PREFIX`.

        Raises:
            Exception: it may not; `answered` says what its caller gets.
        """
        head = RequestHead(scope["headers"])
        if path.startswith(RPC_SERVICE):
            return self._rpc(scope, head, path[len(RPC_SERVICE) :])
        asked = self._asked.get(path)
        if asked is None:
            asked = model_request(path.split("/"))
            if len(path) <= _LONGEST_KEPT:
                if len(self._asked) >= _MOST_KEPT:
                    self._asked.clear()
                self._asked[path] = asked
        return self._http(scope, head, asked)

    def _http(self, scope: Scope, head: RequestHead, asked: ModelPath) -> Directions:
        action = asked.action
        require(scope, "POST" if action in INFERS else "GET")
        decided = self._decide(scope, head, asked.objective, action)
        decision = decided.decision
        version = decision.target.version
        if asked.version is not None and (version is None or int(asked.version[:20]) != version):
            raise RefusedError(
                Refusal.FORBIDDEN,
                f"objective '{asked.objective}' does not serve version {asked.version[:20]}: its rules pick the version, ask without one",
            )
        if action.startswith("generate") and decision.parameters:
            raise malformed(
                f"rule '{decision.rule}' has parameters, which only a gateway can add to the JSON of {action}: ask a gateway"
            )
        kept = self._headers(decided, action)
        origin = self._parts.decided.origin(decided.caller, decided.traffic)
        parameters = self._parts.decided.parameters(decision)
        return Directions(kept, [*parameters, *origin, *_logged(decided), self._limit(head, decision, action)])

    def _rpc(self, scope: Scope, head: RequestHead, method: str) -> Directions:
        if method not in _ABOUT_MODEL:
            raise malformed(f"{method[:64]} is not served through a proxy: ask a gateway")
        named = [value for name, value in head.headers if name == b"tidegate-objective"]
        if len(named) != 1:
            raise malformed(
                "the metadata tidegate-objective must be sent once: a proxy does not read the objective from the message",
                header="tidegate-objective",
            )
        if any(name == b"grpc-encoding" and value != b"identity" for name, value in head.headers):
            raise malformed("a proxy can add nothing to a compressed message: send it uncompressed, or ask a gateway")
        action = method if method != "ModelInfer" else "infer"
        decided = self._decide(scope, head, named[0].decode("latin-1"), action)
        kept = self._rpc_headers(decided, action)
        return Directions(kept, [self._limit(head, decided.decision, action)])

    def _decide(self, scope: Scope, head: RequestHead, objective: str, action: str) -> Decided:
        """Admit and decide a request; one about a model without a usable context by the objective's representative decision."""
        parts, service = self._parts, self._parts.service
        admitted = service.admit_at_once(ask(scope, head, objective))
        streams = admitted.objective.responses is Responses.STREAM
        if action == "infer" and streams:
            raise malformed(f"the responses of objective '{objective}' are a stream: ask generate_stream")
        _check_headers(head)
        limits = Limits(admitted.ask.caller_ms, parts.time_left_ms(scope))
        values = context_header(head)
        started_s = service.now_s()
        try:
            context = with_declared_headers(admitted.objective, head.headers, {} if values is None else values)
            decided = service.decide(admitted, context, started_s, limits)
        except ContextError as error:
            if action not in INFERS:
                return service.represent(admitted, started_s, limits)
            if values is None:
                raise ContextError(error.attribute, f"{error}; {_FROM_HEADERS}") from None
            raise
        except NoRuleError:
            if action in INFERS:
                raise
            decided = service.represent(admitted, started_s, limits)
        if decided.is_pinned and not decided.engine.names(decided.decision.target):
            name = decided.decision.target.name
            raise RefusedError(
                Refusal.UNKNOWN_TARGET,
                f"target '{name}' is not loaded for certain: `overrides` in callers.yaml that name '{name}' load it",
                target=name,
            )
        return decided

    def _headers(self, decided: Decided, action: str) -> Kept:
        """Return the headers that say where a request over HTTP goes."""
        decision = decided.decision
        kept = self._kept.get((id(decision), action))
        if kept is not None and kept[0] is decision:
            return kept[1]
        steps, suffix = steps_of(decision), f"/{action}" if action else ""
        headers = [
            (SHARD_HEADER.encode(), cluster_of(shape_of(steps)).encode()),
            (PATH_HEADER.encode(), model_path(decision.target.model, decision.target.version, suffix).encode()),
        ]
        if len(steps) > 1:
            headers.append((PLAN_HEADER.encode(), http_plan(steps, suffix).encode()))
        return self._keep(decision, action, headers)

    def _rpc_headers(self, decided: Decided, action: str) -> Kept:
        """Return the headers that say where an RPC goes, and what is appended to its message."""
        decision = decided.decision
        origin = self._parts.decided.origin(decided.caller, decided.traffic)
        # What is appended differs by caller, of which there are few.
        kind = f"{RPC}{action}:{decided.caller}:{decided.traffic.value}"
        kept = self._kept.get((id(decision), kind))
        if kept is not None and kept[0] is decision:
            return kept[1]
        steps = steps_of(decision)
        appended = b""
        if action == "infer":
            # No sequence, whatever the message says: its requests would meet those of other callers.
            appended = parameter_fields([*self._parts.decided.parameters(decision), *origin]) + sequence_id_field(0)
        headers = [
            (SHARD_HEADER.encode(), (RPC + cluster_of(shape_of(steps))).encode()),
            (PLAN_HEADER.encode(), rpc_plan(steps, appended).encode()),
            *_logged(decided),
        ]
        return self._keep(decision, kind, headers)

    def _keep(self, decision: Decision, kind: str, headers: RawHeaders) -> Kept:
        """Complete the headers with those that every kind of request has, and keep them for the decision."""
        shards = sum([len(step.shards) for step in steps_of(decision)])
        retries = max(_LEAST_RETRIES, 2 * shards - 1)
        whole = Kept((*headers, (b"x-envoy-max-retries", b"%d" % retries), *self._parts.decided.shown(decision)))
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[id(decision), kind] = (decision, whole)
        return whole

    def _limit(self, head: RequestHead, decision: Decision, action: str) -> tuple[bytes, bytes]:
        """Return the header that says how long the request may take."""
        most_ms: float = decision.timeout_ms or self._default_timeout_ms
        if action == "generate_stream":
            # Of a stream Envoy's time-out is that of its end, as it is the first byte's for no request.
            most_ms = self._stream_most_ms
        caller_ms = head.timeout_ms()
        least_ms = most_ms if caller_ms is None else min(most_ms, caller_ms)
        return b"x-envoy-upstream-rq-timeout-ms", b"%d" % max(1, int(least_ms))


def _rpc_refusal(answer: Answer) -> Answer:
    """Return a refusal as Envoy turns it into that of an RPC: its text as the body, and the code in a header."""
    text: bytes = json.loads(answer.body)["error"].encode()
    code = b"%d" % _RPC_CODES.get(answer.status, _UNKNOWN)
    described = (b"content-type", b"content-length")
    headers = [header for header in answer.headers if header[0] not in described]
    return Answer(answer.status, [*headers, (CODE_HEADER.encode(), code), (b"content-type", b"text/plain")], text)


def _logged(decided: Decided) -> RawHeaders:
    """Return what the proxy's log has of a request's origin."""
    traffic = _TRAFFIC[decided.traffic]
    # callers.yaml has only names that are valid in a header.
    return (traffic,) if decided.caller is None else (traffic, (b"x-tidegate-caller", decided.caller.encode()))


def _check_headers(head: RequestHead) -> None:
    """Raises:
    HeaderTooLongError: a header that the proxy forwards is longer than Triton accepts.
    RefusedError: the request belongs to a sequence.
    """
    if head.values(b"tidegate-sequence"):
        raise malformed(
            "a proxy does not keep the requests of a sequence on one server: ask a gateway", header="Tidegate-Sequence"
        )
    for name, value in head.headers:
        if len(value) > LONGEST_VALUE_BYTES and name not in _NOT_FORWARDED:
            raise HeaderTooLongError(name.decode("latin-1"))
