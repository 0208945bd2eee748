"""Answers of models' servers, before they go to callers: what HTTP cannot carry is refused, what a model says is kept back.

A model's error holds what its code does and where: file paths, lines, values. Where errors are redacted, a caller gets a short
text with a correlation id that finds the whole text in the log. Triton's own texts about a request that does not fit a model
pass, since a caller mends its request by them.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

from tidegate.dispatch import Outcome
from tidegate.dispatch.verdict import error_text
from tidegate.ports import HttpResponse
from tidegate.web.errors import bad_model_answer

_log = logging.getLogger("tidegate.web")

_BODILESS = frozenset({204, 205})
_USUAL = frozenset({b"content-type", b"content-length", b"inference-header-content-length", b"transfer-encoding"})
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LONGEST_LOGGED = 8192
_LONGEST_OWN = 4096
_MOST_LOGGED_PER_S = 10.0

_WHERE = r"(?:\[request id: [^\]]*\] )?(?:in ensemble '[^']*', )*(?:\[request id: [^\]]*\] )?"
_OWN = re.compile(
    _WHERE
    + "(?:"
    + "|".join(
        (
            # Of the request's form, by Triton's HTTP front end.
            r"failed to parse the request JSON buffer: [A-Za-z .,]+ at \d+",
            r"Unable to (?:parse|set) (?:'\w+'|JSON bytes array): [A-Za-z' .-]+",
            r"failed to get request params\.: [A-Za-z -]+",
            r"parameter '[^']*' has invalid type\. It should be either 'int', 'bool', or 'string'\.",
            r"parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified\.",
            r"Input must set only one of the following fields: .{1,300}",
            r"inference header size should be in range \(0, \d+\), got: \S+",
            r"Unsupported compression type|sending (?:FP16|BF16) data via JSON is not supported\. .{1,200}",
            r"unexpected (?:additional input data|size) for (?:input|model) '[^']*'(?:, .{1,200})?",
            r"class result not available for output due to unsupported type '\w+'",
            # Of what it holds, by Triton's core.
            r"expected \d+ inputs? but got \d+ inputs? for model '[^']*'\..{0,2000}",
            r"expected number of inputs between \d+ and \d+ but got \d+ inputs for model '[^']*'\..{0,2000}",
            r"unexpected (?:inference (?:input|output)|shape for input|datatype) (?:'[^']*+'|[^ ']++) .{1,500}",
            r"inference (?:input|output) '[^']*' .{1,300}",
            r"input '[^']*' .{0,100}for (?:model )?'[^']*'.{0,200}",
            r"input byte size mismatch for input '[^']*' for model '[^']*'\. Expected -?\d+, got \d+",
            r"All input dimensions should be specified for input '[^']*' for model '[^']*', got \[[-\d,]*\]",
            r"(?:expected|unexpected number of) \d* ?string elements \d* ?for inference input '[^']*'.{0,200}",
            r"inference request batch-size must be <= \d+ for '[^']*'",
            r"inference request (?:to model|for sequence) .{1,300}",
            r"string correlation ID cannot be longer than \d+ characters",
            # Of the server's state.
            r"Request for unknown model: .{1,300}|Exceeds maximum queue size|Request timeout expired",
            r"Unable to find shared memory region: '[^']*'",
        )
    )
    + ")"
)
_PATH = re.compile(r"(?:^|[\s'\"(=:])(?:/|[A-Za-z]:\\)[\w.-]+[/\\]|\n")


class ModelErrors(StrEnum):
    """What callers are told of an error that a model raised. `redacted`: a short text and a correlation id."""

    REDACTED = "redacted"
    PASSED = "passed"


def check_answer(response: HttpResponse) -> None:
    """Check that an answer can be passed on by HTTP, and is one to a request that asks for a model.

    Raises:
        WebError: its status or a header cannot be passed on (502).
    """
    status = response.status
    if not 200 <= status < 600 or 300 <= status < 400 or status in _BODILESS:
        raise bad_model_answer(f"the model's server answered with status {status}, which is no answer to a request")
    for name, value in response.headers:
        if (name not in _USUAL and _NAME.fullmatch(name) is None) or _CONTROL.search(value) is not None:
            raise bad_model_answer("the model's server answered with a header that HTTP does not allow")


class ModelAnswers:
    """Keeps back what models say of their errors.

    Args:
        errors: what callers are told.
        clock: seconds that never run backwards.
    """

    def __init__(self, errors: ModelErrors, clock: Callable[[], float] = time.monotonic) -> None:
        self._passes = errors is ModelErrors.PASSED
        self._clock = clock
        self._allowance = _MOST_LOGGED_PER_S
        self._refilled_s = clock()
        self._unlogged = 0

    def shown(self, outcome: Outcome) -> HttpResponse:
        """The answer as the caller gets it.

        Raises:
            WebError: it cannot be passed on (502).
        """
        response = outcome.response
        check_answer(response)
        if response.status < 400 or self._passes or is_tritons_own(error_text(response)):
            return response
        correlation_id = os.urandom(8).hex()
        self._report(outcome, correlation_id)
        body = json.dumps({"error": f"the model answered with an error, correlation id {correlation_id}"}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        return replace(response, headers=headers, body=body)

    def _report(self, outcome: Outcome, correlation_id: str) -> None:
        """Log the whole text; of many in one second some alone."""
        now_s = self._clock()
        refill = (now_s - self._refilled_s) * _MOST_LOGGED_PER_S
        self._allowance, self._refilled_s = min(_MOST_LOGGED_PER_S, self._allowance + refill), now_s
        if self._allowance < 1.0:
            self._unlogged += 1
            return
        self._allowance -= 1.0
        unlogged, self._unlogged = self._unlogged, 0
        text = error_text(outcome.response) or outcome.response.body[:_LONGEST_LOGGED].decode("utf-8", "replace")
        _log.warning(
            "model %s on %s answered %d, correlation id %s%s: %s",
            outcome.target.name,
            outcome.shard,
            outcome.response.status,
            correlation_id,
            f" ({unlogged} more before were not logged)" if unlogged else "",
            text[:_LONGEST_LOGGED],
        )


def is_tritons_own(text: str | None) -> bool:
    """Whether an error text is one that Triton has for a request that does not fit, and has no path in it.

    A longer one than Triton writes quotes what a caller sent, and is matched against nothing: that could take seconds.
    """
    if text is None or len(text) > _LONGEST_OWN:
        return False
    return _OWN.fullmatch(text) is not None and _PATH.search(text) is None
