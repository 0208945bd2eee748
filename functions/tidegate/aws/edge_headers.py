"""Removes CloudFront's headers from requests that CloudFront did not send.

Any caller can send `CloudFront-Viewer-Country`. CloudFront replaces it, and proves with a key that it shares with the gateway
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
    """A request had to come through CloudFront, and did not."""


@dataclass(frozen=True, slots=True)
class EdgeKeys:
    """The keys that CloudFront may send in `Tidegate-Edge-Key` (two during a rotation). Unless `is_enforced`, a request without
    one is answered, but its headers are not trusted.
    """

    accepted: tuple[str, ...] = field(repr=False)
    is_enforced: bool = True


def with_trusted_headers(event: Any, keys: EdgeKeys | None) -> Any:
    """Return an event of an HTTP API or a Function URL without untrusted headers, and anything else unchanged.

    Raises:
        BypassError: the request did not come through CloudFront, and `keys` (None: there is no CloudFront) enforce that.
    """
    headers = event.get("headers") if isinstance(event, Mapping) else None
    headers = headers if isinstance(headers, Mapping) else {}
    is_trusted = keys is not None and _came_through(headers, keys)
    if keys is not None and keys.is_enforced and not is_trusted:
        raise BypassError("this address takes requests from CloudFront alone")
    untrusted = (KEY_HEADER,) if is_trusted else (KEY_HEADER, PREFIX)
    if not any(str(name).lower().startswith(untrusted) for name in headers):
        return event
    kept = {name: value for name, value in headers.items() if not str(name).lower().startswith(untrusted)}
    return {**event, "headers": kept}


def _came_through(headers: Mapping[Any, Any], keys: EdgeKeys) -> bool:
    # A header that was sent twice has both values in one string, which matches no key.
    sent = next((value for name, value in headers.items() if str(name).lower() == KEY_HEADER), None)
    if not isinstance(sent, str):
        return False
    # JSON may escape a lone surrogate, which UTF-8 cannot encode.
    data = sent.encode("utf-8", "surrogatepass")
    return any(hmac.compare_digest(data, key.encode()) for key in keys.accepted)
