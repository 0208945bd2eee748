"""Classification of Triton's answers, by status and error text: whose mistake an error is, and whether to try the next place."""

from __future__ import annotations

from enum import Enum
from typing import Final

from tidegate.oip.error_texts import (
    NOT_ONE_RESPONSE,
    RAISED,
    UNKNOWN_CODING,
    error_text,
    is_ended_stub,
    is_malformed_request,
    is_unknown_sequence,
    unserved_model,
)
from tidegate.oip.events import event_data
from tidegate.ports import HttpResponse

_GATEWAY_FAILURES: Final = frozenset({502, 503, 504})
_NOT_SERVED_STATUSES: Final = frozenset({400, 404, 503})
_LONGEST_NOT_SERVED_BYTES: Final = 1024
_START: Final = b"must specify the START flag"

_JSON: Final = (b"content-type", b"application/json")
_CODINGS: Final = (b"accept-encoding", b"gzip, deflate, identity")


class Verdict(Enum):
    """The dispatcher's choice for a response: return it, or try another place for one of four reasons."""

    ANSWER = "the caller's answer"
    MODEL_FAILED = "the model failed"
    NO_SEQUENCE = "the sequence is not known there"
    NOT_SERVED = "the model is not served there"
    GATEWAY_FAILURE = "the server, or a proxy before it, is unavailable"


def judge(response: HttpResponse, model: str) -> Verdict:
    """Classify the response to a call of `model`."""
    if response.status < 400:
        return Verdict.ANSWER
    if is_not_served(response, model):
        return Verdict.NOT_SERVED
    if response.status == 400 and _START in response.body and is_unknown_sequence(error_text(response.body) or ""):
        return Verdict.NO_SEQUENCE
    if response.status in _GATEWAY_FAILURES:
        return Verdict.GATEWAY_FAILURE
    return Verdict.MODEL_FAILED if response.status == 500 else Verdict.ANSWER


def is_not_served(response: HttpResponse, model: str) -> bool:
    """Return whether Triton says that `model`, or a step of that ensemble, is not served there now.

    The whole text has to be Triton's, and about `model`: an error that a model raised may quote such a text.
    """
    if response.status not in _NOT_SERVED_STATUSES or len(response.body) > _LONGEST_NOT_SERVED_BYTES:
        return False
    if b"Request for unknown model" not in response.body:
        return False
    return model == unserved_model(error_text(response.body) or "")


def generated(response: HttpResponse) -> HttpResponse:
    """Return an answer of `generate` or `generate_stream` with its error, if it is one, in the form and status of `infer`.

    Triton 2.51 frames the error of a decoupled model as an event, gives it the status 400 whatever it is, and reports with 200
    that a model did not send the one response of `generate`.
    """
    status, body = response.status, response.body
    if status < 400:
        is_error = response.stream is None and error_text(body) == NOT_ONE_RESPONSE
        return response.with_head(400, response.headers) if is_error else response
    if body.startswith(b"data:"):
        body = event_data(body)
    text = error_text(body) or ""
    if status == 400 and (is_ended_stub(text) or text.startswith(RAISED)):
        status = 500
    return HttpResponse(status, [_JSON, (b"content-length", b"%d" % len(body))], body)


def with_callers_status(response: HttpResponse) -> HttpResponse:
    """Return `response` with status 400 or 415 if Triton reports an unreadable request as its own error (500 or 501).

    The whole text has to be Triton's: an error that a model raised keeps its status.
    """
    if response.status == 500 and is_malformed_request(error_text(response.body) or ""):
        return response.with_head(400, response.headers)
    if response.status == 501 and error_text(response.body) == UNKNOWN_CODING:
        return response.with_head(415, [*response.headers, _CODINGS])
    return response
