"""OFREP, OpenFeature's Remote Evaluation Protocol: an objective is a flag, and its value the target that serves the context.

https://github.com/open-feature/protocol/blob/main/service/openapi.yaml. A provider of any of OpenFeature's SDKs asks without knowing
Tidegate.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any, Final

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from tidegate.errors import (
    ContextError,
    LimitedError,
    NoRuleError,
    OverloadedError,
    Refusal,
    RefusedError,
    UnknownObjectiveError,
    malformed,
)
from tidegate.gateway.quotas import Lease
from tidegate.gateway.request import Admitted, Ask, Decided, Limits
from tidegate.rules import Objective
from tidegate.rules.text import parse_text
from tidegate.strict_json import UnreadableError, parse
from tidegate.web.bodies import Body, BodyTooLargeError, ClientGoneError
from tidegate.web.context import with_declared_headers
from tidegate.web.errors import WebError, failure_of
from tidegate.web.head import RequestHead
from tidegate.web.http import (
    RECORD,
    Answer,
    Receive,
    Scope,
    Send,
    compact,
    header_values,
    json_answer,
    json_bytes_answer,
    named_tag,
)
from tidegate.web.json_body import check_media
from tidegate.web.parts import HandlerParts
from tidegate.web.v2_infer import ask

PATH: Final = "/ofrep/v1/evaluate/flags"

_TARGETING_KEY: Final = "targetingKey"
_REASONS: Final = {"split": "SPLIT", "experiment": "SPLIT", "no_sticky_key": "DEFAULT", "override": "STATIC"}
"""OpenFeature's reasons (https://openfeature.dev/specification/types#resolution-reason); those of its own a provider may refuse."""

_ETAG_DIGITS: Final = 32


class RemoteEvaluation:
    """Evaluates one flag, and all flags that the caller may use.

    Args:
        parts: dependencies shared by the handlers.
        body_of: returns the body of a request, with its limit.
    """

    def __init__(self, parts: HandlerParts, body_of: Callable[[Request, RequestHead], Body]) -> None:
        self._parts = parts
        self._body_of = body_of

    def routes(self) -> list[BaseRoute]:
        return [
            Route(PATH, _guarded(self._all), methods=["POST"]),
            Route(f"{PATH}/{{objective}}", _guarded(self._one), methods=["POST"]),
        ]

    async def _one(self, request: Request) -> Answer:
        service, name = self._parts.service, request.path_params["objective"]
        head = RequestHead(request.scope["headers"])
        given: Mapping[str, Any] = {}
        admitted: Admitted | None = None
        try:
            with self._body_of(request, head) as incoming:
                admitted = await service.admit(ask(request.scope, head, name))
                given = await _context(head, incoming)
                admitted = service.admit_again(admitted)
            return json_answer(_evaluation(await self._decided(request, head, admitted, given)))
        except Exception as error:  # noqa: BLE001  # failure_of() reports any error, and logs the unexpected
            return _failed(request, error, name, None if admitted is None else admitted.objective, given)

    async def _all(self, request: Request) -> Answer:
        service = self._parts.service
        head = RequestHead(request.scope["headers"])
        try:
            with self._body_of(request, head) as incoming:
                if head.values(b"tidegate-override"):
                    raise malformed("the header Tidegate-Override pins one objective: ask for its flag alone")
                usable = service.grants.usable(service.engines.engine(), request.scope)
                given = await _context(head, incoming)
            found = [await self._flag(request, head, objective, given) for objective in usable]
            refused = [error for _, error in found if error is not None]
            if refused and len(refused) == len(found):
                # A limit of the caller, and not of an objective: clients wait for the time that a header says.
                raise refused[0]
        except Exception as error:  # noqa: BLE001  # failure_of() reports any error, and logs the unexpected
            return _failed(request, error, None, None, {})
        body = compact({"flags": [flag for flag, _ in found]})
        tag = b'"%b"' % sha256(body).hexdigest()[:_ETAG_DIGITS].encode()
        if named_tag(tag, header_values(head.headers, b"if-none-match")):
            return Answer(304, [(b"etag", tag)], b"")
        return json_bytes_answer(body, [(b"etag", tag)])

    async def _flag(
        self, request: Request, head: RequestHead, objective: Objective, given: Mapping[str, Any]
    ) -> tuple[dict[str, Any], LimitedError | OverloadedError | None]:
        """Evaluate one of all flags; return its document, and the error if it was not admitted now. It counts against the limits like
        a request for its objective alone.

        Raises:
            RefusedError: as `Service.admit`, for the whole request.
        """
        lease = Lease()
        try:
            marks, caller_ms = head.values(b"tidegate-traffic"), head.timeout_ms()
            asked = Ask(objective.name, lease, request.scope, request.scope.get("client"), (), marks, caller_ms)
            admitted = await self._parts.service.admit(asked)
            return _evaluation(await self._decided(request, head, admitted, given)), None
        except (ContextError, NoRuleError, UnknownObjectiveError) as error:
            return _failure(error, objective.name, objective, given)[1], None
        except (LimitedError, OverloadedError) as error:
            return _failure(error, objective.name, objective, given)[1], error
        finally:
            lease.release()

    async def _decided(
        self, request: Request, head: RequestHead, admitted: Admitted, given: Mapping[str, Any]
    ) -> Decided:
        service = self._parts.service
        context = with_declared_headers(admitted.objective, head.headers, _keyed(admitted.objective, given))
        limits = Limits(admitted.ask.caller_ms, self._parts.time_left_ms(request.scope))
        decided = service.decide(admitted, context, service.now_s(), limits)
        return await service.checked(decided) if decided.is_pinned else decided


def _guarded(endpoint: Callable[[Request], Awaitable[Answer]]) -> Callable[[Request], Awaitable[Any]]:
    async def answer(request: Request) -> Answer | Callable[[Scope, Receive, Send], Awaitable[None]]:
        try:
            return await endpoint(request)
        except ClientGoneError:
            return _unanswered

    return answer


async def _unanswered(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """Send nothing to a caller that has left."""


async def _context(head: RequestHead, incoming: Body) -> Mapping[str, Any]:
    """Return the member `context` of a body; it is empty without one. Other members may belong to a later version of the protocol.

    Raises:
        RefusedError: the body is not JSON, or does not have that shape.
        WebError: the headers describe another media type or a content coding.
    """
    if head.values(b"tidegate-context"):
        raise malformed("the header Tidegate-Context is for /v2: write the context as the member 'context' of the body")
    check_media(head)
    try:
        document = parse(await incoming.whole())
    except UnreadableError as error:
        raise malformed(f"the body is not JSON that can be read: {error}") from None
    context = document.get("context", {}) if isinstance(document, dict) else None
    if not isinstance(context, dict):
        raise malformed("the body must be an object whose member 'context' is an object")
    return context


def _keyed(objective: Objective, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a context of OpenFeature as one of the objective: its targeting key is the objective's first sticky key, unless the
    context has one of the sticky keys by its name.

    Raises:
        ContextError: the targeting key is not a value of that attribute.
    """
    if _TARGETING_KEY not in given or _TARGETING_KEY in objective.attributes:
        return given
    context = {name: value for name, value in given.items() if name != _TARGETING_KEY}
    if objective.sticky_key and not any(name in context for name in objective.sticky_key):
        attribute, key = objective.attributes[objective.sticky_key[0]], given[_TARGETING_KEY]
        context[attribute.name] = parse_text(attribute, key) if isinstance(key, str) else key
    return context


def _evaluation(decided: Decided) -> dict[str, Any]:
    """Return a decision as a successful evaluation. Metadata has values of texts, numbers and booleans only."""
    decision = decided.decision
    is_static = decision.reason == "serve" and not decided.engine.depends_on(decision.objective)
    metadata = {
        "routing_key": decision.shards[0],
        "model": decision.model,
        "version": decision.version,
        "rule": decision.rule,
        "reason": decision.reason,
        "experiment": decision.experiment,
        "cell": decision.cell,
        "timeout_ms": decision.timeout_ms,
        "revision": decision.revision,
        **{f"parameters.{name}": value for name, value in decision.parameters.items()},
    }
    return {
        "key": decision.objective,
        "value": decision.target.name,
        "reason": "STATIC" if is_static else _REASONS.get(decision.reason, "TARGETING_MATCH"),
        "variant": decision.target.name if decision.variant is None else decision.variant,
        "metadata": {name: value for name, value in metadata.items() if value is not None},
    }


def _failed(
    request: Request, error: Exception, key: str | None, objective: Objective | None, given: Mapping[str, Any]
) -> Answer:
    """Return the answer to a request that failed as a whole; `key` is None for all flags."""
    if isinstance(error, ClientGoneError):
        raise error
    if (record := request.scope.get(RECORD)) is not None:
        record.fail(error)
    status, document, headers = _failure(error, key, objective, given)
    return json_answer(document, headers, status)


def _failure(
    error: Exception, key: str | None, objective: Objective | None, given: Mapping[str, Any]
) -> tuple[int, dict[str, Any], Any]:
    """Return the status, the document and the headers of a failed evaluation. A context is never in them."""
    failure = failure_of(error)
    status, code = failure.status, "GENERAL"
    match error:
        case UnknownObjectiveError():
            code = "FLAG_NOT_FOUND"
        case NoRuleError():
            # 404 is for flags that do not exist.
            status = 400
        case ContextError():
            lacks_key = (
                objective is not None and error.attribute in objective.sticky_key and error.attribute not in given
            )
            code = "TARGETING_KEY_MISSING" if lacks_key and _TARGETING_KEY not in given else "INVALID_CONTEXT"
        case BodyTooLargeError():
            code = "PARSE_ERROR"
        case WebError():
            status, code = 400, "PARSE_ERROR"
        case RefusedError(kind=Refusal.MALFORMED):
            code = "PARSE_ERROR"
    document = {"errorCode": code, "errorDetails": failure.detail}
    return status, document if key is None else {"key": key, **document}, failure.headers
