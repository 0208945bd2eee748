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
    """One kept connection to one endpoint; safe to share between threads, which take turns.

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
        with self._lock:
            kept = self._connection is not None
            try:
                return self._exchange(method, target, signed, body)
            except (OSError, http.client.HTTPException) as error:
                self._close()
                if not kept:
                    raise self._failure(error) from error
            try:
                return self._exchange(method, target, signed, body)
            except (OSError, http.client.HTTPException) as error:
                self._close()
                raise self._failure(error) from error

    def _exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> WireResponse:
        connection = self._connection or self._connect()
        self._connection = connection
        connection.request(method, target, body or None, dict(headers))
        response = connection.getresponse()
        content = response.read()
        if response.will_close:
            self._close()
        return WireResponse(response.status, {name.lower(): value for name, value in response.getheaders()}, content)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address
        if self._secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=self._timeout_s, context=context)
        return http.client.HTTPConnection(host, port, timeout=self._timeout_s)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _failure(self, error: Exception) -> StoreError:
        return StoreError(f"{self._host} did not answer: {type(error).__name__}: {error}")
