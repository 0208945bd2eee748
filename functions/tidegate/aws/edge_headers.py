"""Which of a request's headers a deployed gateway believes: CloudFront's own, only where CloudFront has sent the request.

Anybody may send `CloudFront-Viewer-Country`. CloudFront replaces it, and proves by a key that only it and the gateway know
that a request came through it, and so through its firewall.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.errors import TidegateError

KEY_HEADER = "tidegate-edge-key"
PREFIX = "cloudfront-"


class BypassError(TidegateError):
    """A request did not come through CloudFront, where it has to."""


@dataclass(frozen=True, slots=True)
class EdgeKeys:
    """What CloudFront proves itself with.

    Attributes:
        accepted: the keys, any of which it may send in `Tidegate-Edge-Key`; two while the key is rotated.
        is_enforced: refuse a request without one. Otherwise it is answered, and its headers are not believed.
    """

    accepted: tuple[str, ...] = field(repr=False)
    is_enforced: bool = True


def with_believed_headers(event: Any, keys: EdgeKeys | None) -> Any:
    """An event of an HTTP API or a Function URL without the headers that are not believed; anything else unchanged.

    Args:
        event: the event.
        keys: what CloudFront proves itself with; None where there is no CloudFront.

    Raises:
        BypassError: the request has to come through CloudFront, and did not.
    """
    headers = event.get("headers") if isinstance(event, Mapping) else None
    headers = headers if isinstance(headers, Mapping) else {}
    is_believed = keys is not None and _came_through(headers, keys)
    if keys is not None and keys.is_enforced and not is_believed:
        raise BypassError("this address takes requests from CloudFront alone")
    unbelieved = (KEY_HEADER,) if is_believed else (KEY_HEADER, PREFIX)
    if not any(str(name).lower().startswith(unbelieved) for name in headers):
        return event
    kept = {name: value for name, value in headers.items() if not str(name).lower().startswith(unbelieved)}
    return {**event, "headers": kept}


def _came_through(headers: Mapping[Any, Any], keys: EdgeKeys) -> bool:
    # Sent twice, the values stand in one text and fit no key.
    sent = next((value for name, value in headers.items() if str(name).lower() == KEY_HEADER), None)
    if not isinstance(sent, str):
        return False
    # JSON may escape half a character, which UTF-8 has no bytes for.
    data = sent.encode("utf-8", "surrogatepass")
    return any(hmac.compare_digest(data, key.encode()) for key in keys.accepted)
