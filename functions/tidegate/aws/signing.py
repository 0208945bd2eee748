"""Signature Version 4 with the standard library alone.

Importing botocore's signer costs a cold start some 90 ms, and a boto3 client 300 ms. The tests compare it with botocore's:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials; temporary ones, such as those of functions, have a `token`."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        """Return a text without secrets, for logs."""
        return f"Credentials({self.access_key[:4]}…)"


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs requests to one service in one region."""

    credentials: Credentials | Callable[[], Credentials]
    region: str
    service: str

    def headers(
        self,
        method: str,
        host: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        now: datetime | None = None,
    ) -> dict[str, str]:
        """Return all headers of a request, with the signature. Path and query are not percent-encoded.

        Raises:
            StoreError: there are no credentials.
        """
        credentials = self.credentials() if callable(self.credentials) else self.credentials
        moment = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        digest = hashlib.sha256(body).hexdigest()
        signed = {
            **{name.lower(): value.strip() for name, value in headers.items()},
            "host": host,
            "x-amz-content-sha256": digest,
            "x-amz-date": moment,
        }
        if credentials.token:
            signed["x-amz-security-token"] = credentials.token
        names = ";".join(sorted(signed))
        canonical = "\n".join(
            [
                method,
                # Every service but S3 signs the path percent-encoded twice.
                canonical_path(path) if self.service == "s3" else canonical_path(canonical_path(path)),
                canonical_query(query),
                *(f"{name}:{signed[name]}" for name in sorted(signed)),
                "",
                names,
                digest,
            ]
        )
        scope = f"{moment[:8]}/{self.region}/{self.service}/aws4_request"
        text = "\n".join([ALGORITHM, moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        signature = hmac.new(self._key(credentials, moment[:8]), text.encode(), hashlib.sha256).hexdigest()
        credential = f"{credentials.access_key}/{scope}"
        signed["authorization"] = f"{ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
        return signed

    def _key(self, credentials: Credentials, day: str) -> bytes:
        key = f"AWS4{credentials.secret_key}".encode()
        for part in (day, self.region, self.service, "aws4_request"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return key


def canonical_path(path: str) -> str:
    """Percent-encode a path once, as it is sent."""
    return quote(path, safe="/-_.~")


def canonical_query(query: Mapping[str, str]) -> str:
    """Percent-encode and sort a query."""
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query.items())
    return "&".join(f"{name}={value}" for name, value in pairs)
