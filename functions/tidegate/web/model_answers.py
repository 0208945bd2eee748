"""Answers of models' servers, before callers get them: invalid HTTP is refused, and models' error texts are redacted.

A model's error text may reveal its code: file paths, lines, values. Where errors are redacted, a caller gets a short text
with a correlation id that finds the whole text in the log. Triton's own texts about a request that does not fit the model
are passed on, since callers need them to correct the request.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from tidegate.errors import ModelAnswerError
from tidegate.gateway import Outcome
from tidegate.oip.error_texts import error_text, is_tritons_own
from tidegate.ports import HttpResponse

_log = logging.getLogger("tidegate.web")

_BODILESS: Final = frozenset({204, 205})
_USUAL: Final = frozenset(
    {b"content-type", b"content-length", b"inference-header-content-length", b"transfer-encoding"}
)
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_LONGEST_LOGGED: Final = 8192
_MOST_LOGGED_PER_S: Final = 10.0
_MOST_KEPT: Final = 1_024
_MOST_KEPT_BYTES: Final = 256
_checked: set[tuple[bytes, bytes]] = set()
"""Headers of answers that were checked."""


class ModelErrors(StrEnum):
    """How much of a model's error text callers see: a short text with a correlation id, or all of it."""

    REDACTED = "redacted"
    PASSED = "passed"


def check_answer(response: HttpResponse) -> None:
    """Check that an answer is valid HTTP, and that its status is one that a model's server may answer with.

    Raises:
        ModelAnswerError: its status or a header cannot be passed on.
    """
    status = response.status
    if not 200 <= status < 600 or 300 <= status < 400 or status in _BODILESS:
        raise ModelAnswerError(f"the model's server answered with status {status}, which does not answer a request")
    for header in response.headers:
        if header not in _checked:
            _check_header(header)


def _check_header(header: tuple[bytes, bytes]) -> None:
    """Check a header, and keep it, as the answers of one model mostly have the same ones."""
    name, value = header
    if (name not in _USUAL and _NAME.fullmatch(name) is None) or _CONTROL.search(value) is not None:
        raise ModelAnswerError("the model's server answered with a header that HTTP does not allow")
    if len(name) + len(value) <= _MOST_KEPT_BYTES:
        if len(_checked) >= _MOST_KEPT:
            _checked.clear()
        _checked.add(header)


class ModelAnswers:
    """Prepares models' answers for callers.

    Args:
        errors: whether models' error texts are redacted.
        clock: seconds that never run backwards.
    """

    def __init__(self, errors: ModelErrors, clock: Callable[[], float] = time.monotonic) -> None:
        self._passes = errors is ModelErrors.PASSED
        self._clock = clock
        self._allowance = _MOST_LOGGED_PER_S
        self._refilled_s = clock()
        self._unlogged = 0

    def shown(self, outcome: Outcome) -> HttpResponse:
        """Return the answer as the caller gets it.

        Raises:
            ModelAnswerError: the answer cannot be passed on.
        """
        response = outcome.response
        check_answer(response)
        if response.status < 400 or self._passes or is_tritons_own(error_text(response.body)):
            return response
        text = error_text(response.body) or response.body[:_LONGEST_LOGGED].decode("utf-8", "replace")
        body = json.dumps({"error": self._redacted(outcome, text)}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        return HttpResponse(response.status, headers, body)

    def text(self, outcome: Outcome, text: str) -> str:
        """Return the text of an error within a stream as the caller gets it."""
        return text if self._passes or is_tritons_own(text) else self._redacted(outcome, text)

    def _redacted(self, outcome: Outcome, text: str) -> str:
        correlation_id = os.urandom(8).hex()
        self._report(outcome, text, correlation_id)
        return f"the model answered with an error, correlation id {correlation_id}"

    def _report(self, outcome: Outcome, text: str, correlation_id: str) -> None:
        """Log the whole error text, at a limited rate: a failing model must not flood the log."""
        now_s = self._clock()
        refill = (now_s - self._refilled_s) * _MOST_LOGGED_PER_S
        self._allowance, self._refilled_s = min(_MOST_LOGGED_PER_S, self._allowance + refill), now_s
        if self._allowance < 1.0:
            self._unlogged += 1
            return
        self._allowance -= 1.0
        unlogged, self._unlogged = self._unlogged, 0
        status = outcome.response.status
        _log.warning(
            "model %s on %s answered %s, correlation id %s%s: %s",
            outcome.target.name,
            outcome.shard,
            "with an error within its stream" if status < 400 else status,
            correlation_id,
            f" ({unlogged} more before were not logged)" if unlogged else "",
            text[:_LONGEST_LOGGED],
        )
