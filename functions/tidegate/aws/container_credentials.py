"""Credentials from a local endpoint instead of variables, as Lambda gives them to a function that starts from a snapshot
(https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html)."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from tidegate.aws.signing import Credentials
from tidegate.errors import StoreError

URL_VARIABLE = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
TOKEN_VARIABLE = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105  # a variable's name
RENEWED_BEFORE = timedelta(minutes=5)


class ContainerCredentials:
    """Gets credentials, and renews them before they expire. It is safe to share between threads.

    `timeout_s` bounds connecting and each wait for bytes.
    """

    def __init__(
        self,
        url: str,
        token: str,
        timeout_s: float = 2.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._url = urlsplit(url)
        self._token = token
        self._timeout_s = timeout_s
        self._now = now
        self._lock = threading.Lock()
        self._held: tuple[Credentials, datetime] | None = None

    def __call__(self) -> Credentials:
        """Return valid credentials. Raises `StoreError`: the endpoint gave none, and the last ones have expired."""
        with self._lock:
            if self._held is None or self._now() > self._held[1] - RENEWED_BEFORE:
                try:
                    self._held = self._ask()
                except (
                    OSError, http.client.HTTPException, ValueError, KeyError, TypeError, RecursionError
                ) as error:  # fmt: skip
                    if self._held is None or self._now() >= self._held[1]:
                        raise StoreError(f"the endpoint for credentials gave none: {type(error).__name__}") from error
            return self._held[0]

    def _ask(self) -> tuple[Credentials, datetime]:
        connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=self._timeout_s)
        try:
            path = self._url.path + (f"?{self._url.query}" if self._url.query else "")
            connection.request("GET", path, headers={"Authorization": self._token})
            response = connection.getresponse()
            if response.status != 200:
                raise ValueError(response.status)
            document: Mapping[str, str] = json.loads(response.read())
        finally:
            connection.close()
        credentials = Credentials(document["AccessKeyId"], document["SecretAccessKey"], document.get("Token"))
        return credentials, datetime.fromisoformat(document["Expiration"])
