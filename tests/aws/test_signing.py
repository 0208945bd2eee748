"""The signatures of the standard library's signer are botocore's."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.aws.signing import Credentials, Signer, canonical_path

NAMES = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=("Cs",)), max_size=12)
SEGMENTS = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="/.?#"), min_size=1, max_size=8
)


def theirs(signer: Signer, method: str, path: str, query: dict[str, str], body: bytes, now: datetime) -> dict[str, str]:
    """The headers that botocore makes of the same request."""
    kind = S3SigV4Auth if signer.service == "s3" else SigV4Auth
    credentials = BotoCredentials(
        signer.credentials.access_key, signer.credentials.secret_key, signer.credentials.token
    )
    auth = kind(credentials, signer.service, signer.region)
    url = f"https://example.test{canonical_path(path)}" + (f"?{urlencode(query)}" if query else "")
    request = AWSRequest(method, url, headers={"If-None-Match": '"tag"'}, data=body, params=query)
    request.url = f"https://example.test{canonical_path(path)}"
    request.context["timestamp"] = now.strftime("%Y%m%dT%H%M%SZ")
    request.context["payload_signing_enabled"] = True
    request.headers["X-Amz-Content-SHA256"] = auth.payload(request)
    auth._modify_request_before_signing(request)
    canonical = auth.canonical_request(request)
    auth._inject_signature_to_request(request, auth.signature(auth.string_to_sign(request, canonical), request))
    return {name.lower(): value for name, value in request.headers.items()}


@pytest.mark.parametrize("service", ["s3", "dynamodb"])
@pytest.mark.parametrize("token", [None, "a-session-token"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    method=st.sampled_from(["GET", "PUT", "POST"]),
    segments=st.lists(SEGMENTS, max_size=4),
    query=st.dictionaries(NAMES, VALUES, max_size=3),
    body=st.binary(max_size=40),
)
def test_a_signature_is_botocores(
    service: str, token: str | None, method: str, segments: list[str], query: dict[str, str], body: bytes
) -> None:
    now = datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC)
    signer = Signer(Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG", token), "eu-west-1", service)
    path = "/" + "/".join(segments)
    ours = signer.headers(method, "example.test", path, query, {"If-None-Match": '"tag"'}, body, now)
    assert ours["authorization"] == theirs(signer, method, path, query, body, now)["authorization"]


def test_the_secrets_stay_out_of_a_representation() -> None:
    shown = repr(Signer(Credentials("AKIDEXAMPLE", "very-secret", "token-secret"), "eu-west-1", "s3"))
    assert "secret" not in shown
