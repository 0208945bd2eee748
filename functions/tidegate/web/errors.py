"""Errors as HTTP responses: the only module that knows the statuses of Tidegate's own errors.

Handlers raise a `WebError` that a function here builds, or an error of `tidegate.errors`. `failure_of` turns either into a
`Failure`. `oip_error` renders it for `/v2` as Triton does, `{"error": "<text>"}`, and `problem` for `/v1` as a problem
document (https://www.rfc-editor.org/rfc/rfc9457).
"""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.exceptions import HTTPException

from tidegate.errors import (
    BrokenAnswerError,
    BundleError,
    ContextError,
    DeadlineError,
    DispatchError,
    EndpointAnswerTooLargeError,
    InjectedFaultError,
    LimitedError,
    ModelAnswerError,
    ModelRefusedError,
    NoRuleError,
    OverloadedError,
    QuarantinedError,
    Refusal,
    RefusedError,
    RequestError,
    SequenceLostError,
    StoreError,
    TidegateError,
    UnavailableError,
    UnknownObjectiveError,
    malformed,
)
from tidegate.rules.nearest import suggestion
from tidegate.web.bodies import BodyTooLargeError, BodyTooSlowError
from tidegate.web.head import HeaderTooLongError
from tidegate.web.http import Answer, json_headers

_log = logging.getLogger("tidegate.web")
_RETRY_LATER = ((b"retry-after", b"1"),)
_LONGEST_SHOWN = 64


@dataclass(frozen=True, slots=True)
class Failure:
    """An error in the terms of both APIs. `kind` is the last part of the problem's type, `members` are its extensions."""

    status: int
    kind: str
    title: str
    detail: str
    members: Mapping[str, Any] = field(default_factory=dict)
    headers: Sequence[tuple[bytes, bytes]] = ()


class WebError(TidegateError):
    """A handler refuses a request with `failure`."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.detail)


def not_found(detail: str = "Not Found") -> WebError:
    """Return the error for an unknown path (404)."""
    return WebError(Failure(404, "not-found", "Nothing is served at this path", detail))


def forbidden(detail: str) -> WebError:
    """Return the error for a part of the protocol that is not for callers (403)."""
    return WebError(Failure(403, "forbidden", "Not for callers", detail))


def operators_only() -> WebError:
    """Return the error for an operators' endpoint that is requested without their token (401)."""
    detail = (
        "this is for operators: send their token as Authorization: Bearer, or in Tidegate-Operator; for a stack on this "
        "machine `tidegate console` prints a link with it, and TIDEGATE_OPERATOR_TOKEN sets one that every start has"
    )
    headers = ((b"www-authenticate", b'Bearer realm="tidegate"'),)
    return WebError(Failure(401, "operators-only", "Operators only", detail, {}, headers))


def wrong_method(allowed: str) -> WebError:
    """Return the error for a method that the path does not support (405)."""
    headers = ((b"allow", allowed.encode()),)
    return WebError(Failure(405, "method-not-allowed", "Method not allowed", "Method Not Allowed", {}, headers))


def too_large(error: BodyTooLargeError) -> WebError:
    """Return the error for a body above the limit (413)."""
    detail = (
        f"the request body is larger than {error.limit_bytes} bytes ({error.setting}); ask POST "
        "/v1/objectives/{objective}/resolve where the model is served, and send it there yourself"
    )
    members = {"limit_bytes": error.limit_bytes, "setting": error.setting}
    return WebError(Failure(413, "body-too-large", "The request body is too large", detail, members))


def console_body_too_large(limit_bytes: int) -> WebError:
    """Return the error for a body to the console above the limit (413)."""
    detail = f"the request body is larger than {limit_bytes} bytes; send fewer or shorter files"
    return WebError(
        Failure(413, "body-too-large", "The request body is too large", detail, {"limit_bytes": limit_bytes})
    )


def wrong_media_type(detail: str) -> WebError:
    """Return the error for a body of an unsupported media type (415)."""
    return WebError(Failure(415, "unsupported-media-type", "The body's media type is not supported", detail))


def wrong_coding(detail: str) -> WebError:
    """Return the error for a compressed body (415), with the supported coding in `Accept-Encoding`."""
    headers = ((b"accept-encoding", b"identity"),)
    failure = Failure(415, "unsupported-content-coding", "The body's coding is not supported", detail, {}, headers)
    return WebError(failure)


def no_streams(
    instead: str = (
        "use generate where the model gives one response, or ask POST /v1/objectives/{objective}/resolve where it is served, and stream "
        "from there"
    ),
) -> WebError:
    """Return the error for a stream from a process that can only send whole answers (501); `instead` says what to do."""
    detail = f"this runs as a Lambda function, which sends an answer only when it is complete: {instead}"
    return WebError(Failure(501, "not-offered", "Not offered", detail))


def streams_only(objective: str, instead: str | None = None) -> WebError:
    """Return the error for `infer` of an objective whose models may give several responses (501, as Triton answers).

    `instead` is what to ask; None: the paths over HTTP.
    """
    instead = instead or f"POST /v2/models/{objective}/generate_stream or /v1/objectives/{objective}/stream"
    detail = f"the responses of objective '{objective}' are a stream: ask {instead}"
    return WebError(Failure(501, "streams-only", "The responses are a stream", detail))


def no_rule(error: NoRuleError, explanation: Mapping[str, Any]) -> WebError:
    """Return the error for a request that no rule matches, with the trace that explains why (404)."""
    failure = failure_of(error)
    return WebError(replace(failure, members={**failure.members, "explanation": explanation}))


def encoded_path() -> WebError:
    """Return the error for a path with a percent-encoded character (404), which proxies could read as another path."""
    return not_found("the path holds '%': write every character of it as it is, no path served here needs encoding")


def no_route(error: Exception) -> WebError:
    """Return the error for what Starlette's router refused: a wrong method or an unknown path."""
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow")
    return not_found() if error.status_code != 405 or allowed is None else wrong_method(allowed)


def check_query(query: Iterable[str], known: Sequence[str]) -> None:
    """Check the names of a query. Raises `RefusedError`: one is not `known`."""
    for name in query:
        if name not in known:
            right = f"the path takes only {', '.join(known)}" if known else "the path takes no query"
            raise malformed(f"unknown name {name[:_LONGEST_SHOWN]!r} in the query: {right}")


def failure_of(error: Exception) -> Failure:
    """Return what is reported to the caller about an error.

    An unexpected error is logged with its traceback, but without its message, which may hold a value from the request. The
    caller gets a correlation id that finds the log entry.
    """
    match error:
        case WebError():
            return error.failure
        case RefusedError():
            status, title = _REFUSALS[error.kind]
            return Failure(status, error.kind, title, str(error), error.details)
        case BrokenAnswerError():
            return Failure(502, "broken-answer", "The answer broke off", str(error))
        case ModelAnswerError():
            return _bad_model_answer(error, error.details)
        case ModelRefusedError():
            return Failure(error.status, "model-error", "The model answered with an error", str(error))
        case RequestError():
            return _request_failure(error)
        case LimitedError():
            return _limited(error)
        case DispatchError():
            return _dispatch_failure(error)
        case BodyTooLargeError():
            return too_large(error).failure
        case BodyTooSlowError():
            return Failure(408, "body-too-slow", "The body came too slowly", str(error))
        case HeaderTooLongError():
            return Failure(431, "header-too-long", "A header is too long", str(error), {"header": error.name})
        case EndpointAnswerTooLargeError():
            return _bad_model_answer(error, {})
        case BundleError() | StoreError():
            return _unread(error)
        case _:
            return _unforeseen(error)


def oip_error(status: int, text: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
    """Return an error response in the format of the Open Inference Protocol."""
    body = json.dumps({"error": text}, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Answer(status, [*json_headers(body), *headers], body)


def oip_failure(error: Exception, decided: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
    """Return an error as a response of `/v2`; `decided` are the decision's headers, where one was made."""
    failure = failure_of(error)
    return oip_error(failure.status, failure.detail, (*failure.headers, *decided))


def unknown_model(error: UnknownObjectiveError, action: str = "infer") -> Answer:
    """Return Triton's answer for an unknown model, which differs by endpoint, with the name of a similar objective."""
    near = suggestion(error.near)
    match action:
        case "ready":
            return oip_error(400, "Model version not ready")
        case "stats":
            return oip_error(400, f"requested model '{error.objective}' is not available{near}")
        case _:
            return oip_error(404, f"Request for unknown model: '{error.objective}' is not found{near}")


def problem(error: Exception, decided: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
    """Return an error as a problem document; `decided` are the decision's headers, where one was made."""
    failure = failure_of(error)
    document = {
        "type": f"urn:tidegate:problem:{failure.kind}",
        "title": failure.title,
        "status": failure.status,
        "detail": failure.detail,
        **failure.members,
    }
    body = json.dumps(document).encode()
    headers = [*json_headers(body, b"application/problem+json"), *failure.headers, *decided]
    return Answer(failure.status, headers, body)


def _bad_model_answer(error: Exception, details: Mapping[str, Any]) -> Failure:
    return Failure(502, "bad-model-answer", "The model's answer cannot be passed on", str(error), details)


def _unread(error: BundleError | StoreError) -> Failure:
    if isinstance(error, StoreError):
        return Failure(503, "stores", "A store does not answer", str(error), {}, _RETRY_LATER)
    return Failure(503, "no-rules", "No rules are loaded", str(error), {}, _RETRY_LATER)


def _limited(error: LimitedError) -> Failure:
    """Return the failure with the fields of https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/ (draft 10).

    `q` is the quota of a policy: requests in a window of `w` seconds, or at a time.
    """
    name, per = error.limit, 'qu="concurrent-requests"' if error.window_s is None else f"w={error.window_s}"
    headers = (
        (b"retry-after", b"%d" % error.retry_after_s),
        (b"ratelimit-policy", f'"{name}";q={error.quota};{per}'.encode()),
        (b"ratelimit", f'"{name}";r=0;t={error.retry_after_s}'.encode()),
    )
    members = {"limit": name, "retry_after_s": error.retry_after_s}
    return Failure(429, "limited", "A limit is used up", str(error), members, headers)


def _request_failure(error: RequestError) -> Failure:
    match error:
        case UnknownObjectiveError():
            members = {"objective": error.objective, "did_you_mean": error.near}
            return Failure(404, "unknown-objective", "Unknown objective", str(error), members)
        case ContextError():
            return Failure(400, "context", "The context is not usable", str(error), {"attribute": error.attribute})
        case NoRuleError():
            return Failure(404, "no-rule", "No rule matches", str(error), {"objective": error.objective})
        case _:
            return Failure(400, "malformed-request", "The request is malformed", str(error))


_REFUSALS = {
    Refusal.MALFORMED: (400, "The request is malformed"),
    Refusal.FORBIDDEN: (403, "Not for callers"),
    Refusal.NOT_GRANTED: (403, "Not granted"),
    Refusal.UNKNOWN_TARGET: (404, "Unknown target"),
    Refusal.OTHER_TARGET: (409, "The sequence has another target"),
    Refusal.JSON_TOO_LARGE: (413, "The request has too much JSON"),
    Refusal.TOO_MANY_VALUES: (413, "The inputs have too many values"),
    Refusal.UNKNOWN_REVISION: (404, "Unknown revision"),
    Refusal.UNKNOWN_MODEL: (404, "Unknown model"),
    Refusal.READ_ONLY: (403, "The console changes nothing here"),
    Refusal.CROSS_ORIGIN: (403, "The request comes from another site"),
    Refusal.NOT_ROLLED_BACK: (409, "Nothing was rolled back"),
    Refusal.TOOK_TOO_LONG: (422, "The work took too long"),
}
_DISPATCH_FAILURES: tuple[tuple[type[DispatchError], int, str, str, Sequence[tuple[bytes, bytes]]], ...] = (
    (DeadlineError, 504, "deadline", "The deadline passed", ()),
    (OverloadedError, 503, "overloaded", "Too many requests are under way", _RETRY_LATER),
    (QuarantinedError, 422, "quarantined", "The request has ended servers", ()),
    (SequenceLostError, 409, "sequence-lost", "The sequence is lost", ()),
    (UnavailableError, 503, "unavailable", "No target is available", _RETRY_LATER),
)


def _dispatch_failure(error: DispatchError) -> Failure:
    if isinstance(error, InjectedFaultError):
        return Failure(error.status, "injected-fault", "A fault was injected", str(error))
    for kind_of_error, status, kind, title, headers in _DISPATCH_FAILURES:
        if isinstance(error, kind_of_error):
            detail = str(error)
            if error.attempts:
                detail = f"{detail} ({'; '.join(error.attempts)})"
            return Failure(status, kind, title, detail, {"attempts": list(error.attempts)}, headers)
    return _unforeseen(error)


def _unforeseen(error: Exception) -> Failure:
    correlation_id = os.urandom(8).hex()
    place = "".join(traceback.format_tb(error.__traceback__))
    _log.error("unforeseen %s, correlation id %s\n%s", type(error).__name__, correlation_id, place)
    detail = f"internal error, correlation id {correlation_id}"
    return Failure(500, "internal", "Internal error", detail, {"correlation_id": correlation_id})
