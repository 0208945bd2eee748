"""HTTP requests to one service, signed for AWS, with the standard library, for gateways, which do without boto3."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from tidegate.aws.signing import Signer, canonical_path, canonical_query
from tidegate.errors import StoreError

# The end of the connection in place of an answer is `http.client.RemoteDisconnected`, which is a `ConnectionResetError`.
_CLOSED = (ConnectionResetError, BrokenPipeError)


@dataclass(frozen=True, slots=True)
class WireResponse:
    """A response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Unsigned:
    """In place of a `Signer`: signs nothing."""

    def headers(
        self,
        method: str,  # noqa: ARG002  # a signature covers it
        host: str,
        path: str,  # noqa: ARG002
        query: Mapping[str, str],  # noqa: ARG002
        headers: Mapping[str, str],
        body: bytes,  # noqa: ARG002
    ) -> dict[str, str]:
        return {**headers, "host": host}


class Wire:
    """One kept connection to `http[s]://host[:port]`. A thread that finds it in use opens another one.

    `timeout_s` bounds connecting and each wait for bytes.
    """

    def __init__(self, endpoint_url: str, signer: Signer | Unsigned, timeout_s: float = 2.0) -> None:
        parts = urlsplit(endpoint_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise StoreError(f"{endpoint_url!r} is not an http:// or https:// address")
        self._secure = parts.scheme == "https"
        self._address = (parts.hostname, parts.port or (443 if self._secure else 80))
        self._host = parts.netloc
        self._signer = signer
        self._timeout_s = timeout_s
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        is_idempotent: bool = True,
    ) -> WireResponse:
        """Send one request, again on a new connection if the kept one turns out dead, as after a function was frozen.

        One that is not idempotent is sent again only if the kept connection was closed before any byte of an answer: after a
        time-out, the service may have done what it was asked.

        Raises:
            StoreError: no response was received.
        """
        query, headers = query or {}, headers or {}
        signed = self._signer.headers(method, self._host, path, query, headers, body)
        target = canonical_path(path) + (f"?{canonical_query(query)}" if query else "")
        kept = self._take()
        if kept is not None:
            try:
                return self._exchange(kept, method, target, signed, body)
            except (OSError, http.client.HTTPException) as error:
                kept.close()
                if not is_idempotent and not isinstance(error, _CLOSED):
                    raise self._unanswered(error) from error
        fresh = self._connect()
        try:
            return self._exchange(fresh, method, target, signed, body)
        except (OSError, http.client.HTTPException) as error:
            fresh.close()
            raise self._unanswered(error) from error

    def _unanswered(self, error: Exception) -> StoreError:
        return StoreError(f"{self._host} did not answer: {type(error).__name__}: {error}")

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> WireResponse:
        connection.request(method, target, body or None, dict(headers))
        response = connection.getresponse()
        try:
            content = response.read()
        except ConnectionError as error:
            # Not as if nothing had come.
            raise http.client.IncompleteRead(b"") from error
        if response.will_close:
            connection.close()
        else:
            self._keep(connection)
        return WireResponse(response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    def _take(self) -> http.client.HTTPConnection | None:
        with self._lock:
            connection, self._connection = self._connection, None
        return connection

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            other, self._connection = self._connection, connection
        if other is not None:
            other.close()

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)
