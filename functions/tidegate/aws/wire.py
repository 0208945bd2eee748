"""Signed HTTP to one AWS service by the standard library: what a gateway uses instead of a boto3 client."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from tidegate.aws.signing import Signer, canonical_path, canonical_query
from tidegate.errors import StoreError


@dataclass(frozen=True, slots=True)
class WireResponse:
    """A response: header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """One kept connection to one endpoint; safe to share between threads: one that finds it in use opens its own, since what
    another waits for may never come.

    Args:
        endpoint_url: `https://host[:port]`, or `http://…` for a server on this machine.
        signer: signs every request.
        timeout_s: bounds connecting and each wait for bytes, in seconds.
    """

    def __init__(self, endpoint_url: str, signer: Signer, timeout_s: float = 2.0) -> None:
        parts = urlsplit(endpoint_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise StoreError(f"{endpoint_url!r} is no http:// or https:// address")
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
    ) -> WireResponse:
        """Send one request and read the whole response.

        A kept connection may have died, above all while a function was frozen, so a failure on one is tried once more
        on a fresh one.

        Raises:
            StoreError: no response came.
        """
        query, headers = query or {}, headers or {}
        signed = self._signer.headers(method, self._host, path, query, headers, body)
        target = canonical_path(path) + (f"?{canonical_query(query)}" if query else "")
        kept = self._take()
        if kept is not None:
            try:
                return self._exchange(kept, method, target, signed, body)
            except (OSError, http.client.HTTPException):
                kept.close()
        fresh = self._connect()
        try:
            return self._exchange(fresh, method, target, signed, body)
        except (OSError, http.client.HTTPException) as error:
            fresh.close()
            raise self._failure(error) from error

    def _exchange(
        self, connection: http.client.HTTPConnection, method: str, target: str, headers: Mapping[str, str], body: bytes
    ) -> WireResponse:
        connection.request(method, target, body or None, dict(headers))
        response = connection.getresponse()
        content = response.read()
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

    def _failure(self, error: Exception) -> StoreError:
        return StoreError(f"{self._host} did not answer: {type(error).__name__}: {error}")
