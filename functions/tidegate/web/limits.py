"""How long a request may take, as its caller and its function say."""

from __future__ import annotations

import re

from tidegate.web.errors import malformed
from tidegate.web.http import RawHeaders, Scope, header_values

_MILLISECONDS = re.compile(rb"\d{1,9}(\.\d{1,6})?")
_RESERVE_MS = 50.0


def caller_timeout_ms(headers: RawHeaders) -> float | None:
    """`Tidegate-Timeout-Ms` in milliseconds, or None without that header.

    Raises:
        WebError: the header is not a positive decimal number, or is sent twice.
    """
    found = header_values(headers, b"tidegate-timeout-ms")
    if not found:
        return None
    timeout_ms = float(found[0]) if len(found) == 1 and _MILLISECONDS.fullmatch(found[0]) else 0.0
    if timeout_ms <= 0.0:
        raise malformed(
            "the header Tidegate-Timeout-Ms must be sent once and be a positive number of milliseconds",
            header="Tidegate-Timeout-Ms",
        )
    return timeout_ms


def function_time_left_ms(scope: Scope) -> float | None:
    """What a Lambda function has left, less what it needs to hand the answer over; None outside of one.

    Mangum puts the invocation's context into the scope: https://mangum.fastapiexpert.com/adapter/.
    """
    context = scope.get("aws.context")
    if context is None:
        return None
    return float(context.get_remaining_time_in_millis()) - _RESERVE_MS
