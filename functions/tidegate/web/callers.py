"""Authentication: the name of a request's caller, and the operators' token."""

from __future__ import annotations

import hmac

from tidegate.errors import malformed
from tidegate.web.errors import operators_only
from tidegate.web.http import RawHeaders, Scope, header_values

_CALLER = "Tidegate-Caller"
_RAW_CALLER = _CALLER.lower().encode()


def header_caller(scope: Scope) -> str | None:
    """Return the caller's name from `Tidegate-Caller`. Use it only where callers are trusted, as on a local machine.

    Raises:
        RefusedError: the header is sent more than once.
    """
    found = header_values(scope["headers"], _RAW_CALLER)
    if len(found) > 1:
        raise malformed(f"the header {_CALLER} must be sent once", header=_CALLER)
    return found[0].decode("latin-1") if found else None


class Operators:
    """Restricts endpoints to operators, by their token. Without a token there are no operators."""

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()

    def check(self, headers: RawHeaders) -> None:
        """Check that a request carries the token, in `Authorization: Bearer` or in `Tidegate-Operator`.

        The second is for deployments where an authorizer in front of the gateway uses `Authorization` itself.

        Raises:
            WebError: the token is missing or wrong (401).
        """
        sent = header_values(headers, b"tidegate-operator")
        for value in header_values(headers, b"authorization"):
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == b"bearer":
                sent = [*sent, credentials.strip()]
        if self._token is None or not any(hmac.compare_digest(each, self._token) for each in sent):
            raise operators_only()
