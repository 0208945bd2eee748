"""Which of a request's headers a deployed gateway believes: CloudFront's own, only where CloudFront has sent the request.

Anybody may send `CloudFront-Viewer-Country`. CloudFront replaces it, and proves by a key that only it and the gateway know
that a request came through it, and so through its firewall.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from tidegate.errors import TidegateError

KEY_HEADER = "tidegate-edge-key"
PREFIX = "cloudfront-"


class BypassError(TidegateError):
    """A request did not come through CloudFront, where it has to."""


def with_believed_headers(event: Any, key: str | None) -> Any:
    """An event of an HTTP API or a Function URL without the headers that are not believed; what is no such event as it is.

    Args:
        event: the event.
        key: what CloudFront sends in `Tidegate-Edge-Key`; None where there is no CloudFront.

    Raises:
        BypassError: there is a CloudFront, and the request did not come through it.
    """
    headers = event.get("headers") if isinstance(event, Mapping) else None
    headers = headers if isinstance(headers, Mapping) else {}
    if key is not None:
        # Sent twice, the values stand in one text and fit no key.
        sent = next((value for name, value in headers.items() if str(name).lower() == KEY_HEADER), None)
        # JSON may escape half a character, which UTF-8 has no bytes for.
        if not isinstance(sent, str) or not hmac.compare_digest(sent.encode("utf-8", "surrogatepass"), key.encode()):
            raise BypassError("this address takes requests from CloudFront alone")
    unbelieved = (KEY_HEADER,) if key is not None else (KEY_HEADER, PREFIX)
    if not any(str(name).lower().startswith(unbelieved) for name in headers):
        return event
    kept = {name: value for name, value in headers.items() if not str(name).lower().startswith(unbelieved)}
    return {**event, "headers": kept}
