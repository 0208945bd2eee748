"""What Triton's answers mean, by its statuses and error texts: the caller's, or "try the next"; whose mistake an error is."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from enum import Enum

from tidegate.ports import HttpResponse

_GATEWAY_FAILURES = frozenset({502, 503, 504})
_NOT_SERVED_STATUSES = frozenset({400, 404, 503})
_LONGEST_NOT_SERVED_BYTES = 1024
_LONGEST_ERROR_BYTES = 128 * 1024

# Triton's core (model_lifecycle.cc) says so when a model, or a step of an ensemble, is not loaded, is draining or is
# still loading. The HTTP door answers 404 or 503, an ensemble 400; error bodies are never compressed.
_NOT_SERVED = re.compile(
    r"(?:\[request id: [^\]]*\] )?(?P<ensembles>(?:in ensemble '[^']*', )*)Request for unknown model: '(?P<model>[^']*)' "
    r"(?:version \d+ )?(?:is not found|has no available versions|is not at ready state)"
)
# Triton's HTTP front end says so of a request that it cannot read, before any model sees it, and calls that 500: every
# error of its JSON library is INTERNAL (https://github.com/triton-inference-server/common, triton_json.h).
_MALFORMED = re.compile(
    r"failed to parse the request JSON buffer: .+ at \d+"
    r"|(?:Unable to (?:parse|set) (?:'\w+'|JSON bytes array)|failed to get request params\.): attempt to .+"
    r"|Unable to parse 'data': Shape does not match true shape of 'data' field"
)
_UNKNOWN_CODING = "Unsupported compression type"
_CODINGS = (b"accept-encoding", b"gzip, deflate, identity")
_ENSEMBLE = re.compile(r"in ensemble '([^']*)'")


class Verdict(Enum):
    """What a response means to the dispatcher."""

    ANSWER = "the caller's answer"
    NOT_SERVED = "the model is not served there"
    GATEWAY_FAILURE = "the server or what stands before it is unavailable"


def judge(response: HttpResponse, model: str) -> Verdict:
    """What the answer to a call of `model` means."""
    if response.status < 400:
        return Verdict.ANSWER
    if is_not_served(response, model):
        return Verdict.NOT_SERVED
    return Verdict.GATEWAY_FAILURE if response.status in _GATEWAY_FAILURES else Verdict.ANSWER


def is_not_served(response: HttpResponse, model: str) -> bool:
    """Whether this is Triton's answer that `model` (or a step of that ensemble) is not served there now.

    The whole text has to be Triton's, and about `model`: an error that a model itself raised is the caller's answer.
    """
    if response.status not in _NOT_SERVED_STATUSES or len(response.body) > _LONGEST_NOT_SERVED_BYTES:
        return False
    if b"Request for unknown model" not in response.body:
        return False
    match = _NOT_SERVED.fullmatch(error_text(response) or "")
    if match is None:
        return False
    outermost = _ENSEMBLE.match(match["ensembles"])
    return model == (outermost[1] if outermost else match["model"])


def with_callers_status(response: HttpResponse) -> HttpResponse:
    """`response` with 400 or 415 where Triton calls a request that it cannot read an error of its own (500 or 501).

    The whole text has to be Triton's: an error that a model raised keeps its status.
    """
    if response.status == 500 and _MALFORMED.fullmatch(error_text(response) or ""):
        return replace(response, status=400)
    if response.status == 501 and error_text(response) == _UNKNOWN_CODING:
        return replace(response, status=415, headers=[*response.headers, _CODINGS])
    return response


def error_text(response: HttpResponse) -> str | None:
    """The text of an error in the protocol's form `{"error": "<text>"}`, else None.

    A larger body than 128 KiB is not parsed: that would hold up the event loop.
    """
    if len(response.body) > _LONGEST_ERROR_BYTES:
        return None
    try:
        document = json.loads(response.body)
    except (ValueError, RecursionError):
        return None
    text = document.get("error") if isinstance(document, dict) else None
    return text if isinstance(text, str) else None
