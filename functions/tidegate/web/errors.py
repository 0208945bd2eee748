"""Errors as HTTP answers: the only place with HTTP status codes for errors.

The handlers raise `WebError` through the functions here, or let an error of `tidegate.errors` through; `failure_of` turns
either into a `Failure`, and `oip_error` and `problem` give it the form of each API: `{"error": "<text>"}` as Triton writes
it, and the problem documents of RFC 9457 (https://www.rfc-editor.org/rfc/rfc9457).
"""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tidegate.errors import (
    BundleError,
    ContextError,
    DeadlineError,
    DispatchError,
    EndpointAnswerTooLargeError,
    NoRuleError,
    OverloadedError,
    QuarantinedError,
    RequestError,
    TidegateError,
    UnavailableError,
    UnknownObjectiveError,
)
from tidegate.web.bodies import BodyTooLargeError, BodyTooSlowError
from tidegate.web.http import Answer, HeaderTooLongError

_log = logging.getLogger("tidegate.web")
_RETRY_LATER = ((b"retry-after", b"1"),)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as both APIs can report it. `kind` ends the problem's type, `members` are its extension members."""

    status: int
    kind: str
    title: str
    detail: str
    members: Mapping[str, Any] = field(default_factory=dict)
    headers: Sequence[tuple[bytes, bytes]] = ()


class WebError(TidegateError):
    """A request that a handler refuses by itself; `failure` is reported to the caller."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.detail)


def malformed(detail: str, **members: Any) -> WebError:
    """A request that its handler cannot read (400)."""
    return WebError(Failure(400, "malformed-request", "The request is malformed", detail, members))


def not_found(detail: str = "Not Found") -> WebError:
    """A path that leads nowhere (404)."""
    return WebError(Failure(404, "not-found", "Nothing is served at this path", detail))


def forbidden(detail: str) -> WebError:
    """Something that exists, but not for callers (403)."""
    return WebError(Failure(403, "forbidden", "Not for callers", detail))


def not_granted(detail: str, **members: Any) -> WebError:
    """A caller, or something that it wants, that callers.yaml does not grant (403)."""
    return WebError(Failure(403, "not-granted", "Not granted", detail, members))


def operators_only() -> WebError:
    """What only operators may see, asked for without their token (401); it says nothing of what is there."""
    detail = (
        "this is for operators: send their token as Authorization: Bearer, or in Tidegate-Operator; for a stack on this "
        "machine `tidegate status` does"
    )
    headers = ((b"www-authenticate", b'Bearer realm="tidegate"'),)
    return WebError(Failure(401, "operators-only", "Operators only", detail, {}, headers))


def unknown_target(detail: str, **members: Any) -> WebError:
    """A pinned target that no server has loaded (404)."""
    return WebError(Failure(404, "unknown-target", "Unknown target", detail, members))


def wrong_method(allowed: str) -> WebError:
    """A method that the path does not take (405)."""
    headers = ((b"allow", allowed.encode()),)
    return WebError(Failure(405, "method-not-allowed", "Method not allowed", "Method Not Allowed", {}, headers))


def too_large(error: BodyTooLargeError) -> WebError:
    """A body above the limit (413)."""
    detail = (
        f"the request body is larger than {error.limit_bytes} bytes ({error.setting}); ask POST "
        "/v1/objectives/{objective}/resolve where the model is served, and send it there yourself"
    )
    members = {"limit_bytes": error.limit_bytes, "setting": error.setting}
    return WebError(Failure(413, "body-too-large", "The request body is too large", detail, members))


def too_much_json(limit_bytes: int) -> WebError:
    """A request whose JSON is above the limit, without the tensors that follow it in binary (413)."""
    detail = (
        f"the JSON of the request is larger than {limit_bytes} bytes (max_json_bytes); send its tensors in binary, with "
        "`binary_data_size`: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md"
    )
    members = {"limit_bytes": limit_bytes, "setting": "max_json_bytes"}
    return WebError(Failure(413, "json-too-large", "The request has too much JSON", detail, members))


def too_many_values() -> WebError:
    """More values than are encoded for one request (413)."""
    detail = "the inputs have more values than max_v1_values allows; send large tensors in binary, to /v2"
    members = {"setting": "max_v1_values"}
    return WebError(Failure(413, "too-many-values", "The inputs have too many values", detail, members))


def wrong_media_type(detail: str) -> WebError:
    """A body of a media type that the handler does not read (415)."""
    return WebError(Failure(415, "unsupported-media-type", "The body's media type is not supported", detail))


def wrong_coding(detail: str) -> WebError:
    """A body in a content coding that the handler does not read (415); `Accept-Encoding` lists those that it does."""
    headers = ((b"accept-encoding", b"identity"),)
    failure = Failure(415, "unsupported-content-coding", "The body's coding is not supported", detail, {}, headers)
    return WebError(failure)


def not_offered(detail: str) -> WebError:
    """A part of the protocol that this gateway does not offer (501)."""
    return WebError(Failure(501, "not-offered", "Not offered", detail))


def bad_model_answer(detail: str, **members: Any) -> WebError:
    """A model's answer that cannot be passed on (502)."""
    return WebError(Failure(502, "bad-model-answer", "The model's answer cannot be passed on", detail, members))


def model_refused(status: int, detail: str) -> WebError:
    """A model's own error, with its own status."""
    return WebError(Failure(status, "model-error", "The model answered with an error", detail))


def no_rule(error: NoRuleError, explanation: Mapping[str, Any]) -> WebError:
    """No rule matches, with the trace that tells why."""
    failure = failure_of(error)
    return WebError(replace(failure, members={**failure.members, "explanation": explanation}))


def encoded_path() -> WebError:
    """A path with a percent-encoded character (404): each reader of it could take it for another path."""
    return not_found("the path holds '%': write every character of it as it is, no path served here needs encoding")


def from_status(status: int, allowed: str | None) -> WebError:
    """What the router refuses: a wrong method (`allowed` lists the right ones) or an unknown path."""
    if status == 405 and allowed is not None:
        return wrong_method(allowed)
    return not_found()


def failure_of(error: Exception) -> Failure:
    """What is reported to a caller about an error.

    An error that nobody foresaw is logged with the place where it arose, but without its message, which may hold a
    value from the request; the caller gets an id that finds the log entry.
    """
    match error:
        case WebError():
            return error.failure
        case RequestError():
            return _request_failure(error)
        case DispatchError():
            return _dispatch_failure(error)
        case BodyTooLargeError():
            return too_large(error).failure
        case BodyTooSlowError():
            return Failure(408, "body-too-slow", "The body came too slowly", str(error))
        case HeaderTooLongError():
            return Failure(431, "header-too-long", "A header is too long", str(error), {"header": error.name})
        case EndpointAnswerTooLargeError():
            return bad_model_answer(str(error)).failure
        case BundleError():
            return Failure(503, "no-rules", "No rules are loaded", str(error), {}, _RETRY_LATER)
        case _:
            return _unforeseen(error)


def oip_error(status: int, text: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
    """An error in the form of the Open Inference Protocol."""
    body = json.dumps({"error": text}, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Answer(status, [*_content(b"application/json", body), *headers], body)


def oip_failure(error: Exception, decided: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
    """An error as `/v2` tells it; `decided` are the decision's headers, where one was made."""
    failure = failure_of(error)
    return oip_error(failure.status, failure.detail, (*failure.headers, *decided))


def problem(error: Exception, decided: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
    """An error as `/v1` tells it; `decided` are the decision's headers, where one was made."""
    failure = failure_of(error)
    document = {
        "type": f"urn:tidegate:problem:{failure.kind}",
        "title": failure.title,
        "status": failure.status,
        "detail": failure.detail,
        **failure.members,
    }
    body = json.dumps(document).encode()
    headers = [*_content(b"application/problem+json", body), *failure.headers, *decided]
    return Answer(failure.status, headers, body)


def _content(media_type: bytes, body: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", media_type), (b"content-length", b"%d" % len(body))]


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


_DISPATCH_FAILURES: tuple[tuple[type[DispatchError], int, str, str, Sequence[tuple[bytes, bytes]]], ...] = (
    (DeadlineError, 504, "deadline", "The deadline passed", ()),
    (OverloadedError, 503, "overloaded", "Too many requests are under way", _RETRY_LATER),
    (QuarantinedError, 422, "quarantined", "The request has ended servers", ()),
    (UnavailableError, 503, "unavailable", "No target is available", _RETRY_LATER),
)


def _dispatch_failure(error: DispatchError) -> Failure:
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
