"""Has Envoy verify callers' JSON Web Tokens, as API Gateway's JWT authorizer does for the functions.

The signature, `iss`, `exp` and `nbf` are the filter `jwt_authn`'s
(https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/jwt_authn_filter); a script checks the audience and the scopes
as API Gateway does (https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-jwt-authorizer.html), and names the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tidegate.envoy.clusters import LOOKED_UP
from tidegate.envoy.filters import TYPES, Json, http_filter, script
from tidegate.envoy.token_script import token_script
from tidegate.errors import SettingsError
from tidegate.settings import Settings

ISSUER = "issuer"
CALLER_HEADER = "tidegate-caller"
OPEN_PATHS = ("/v2/health/live", "/v2/health/ready")
"""What needs no token: load balancers ask there."""

_REFUSAL = '{"error":"the token in Authorization is missing or not accepted"}'
_HTTPS = 443
_HTTP = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Which tokens are accepted.

    Attributes:
        issuer: their `iss`.
        audience: the accepted `aud`, or `client_id` of a token without `aud`; at least one.
        scopes: scopes of which a token needs one; none: it needs none.
        claim: the claim that names the caller; where a token lacks it, its `sub` does.
        keys: the address of the issuer's keys.
        ca_file: the certificate authorities that the address is verified by.
    """

    issuer: str
    audience: tuple[str, ...]
    scopes: tuple[str, ...]
    claim: str
    keys: str
    ca_file: Path


def tokens_of(settings: Settings) -> Tokens | None:
    """Return which tokens the settings accept; None: callers need none.

    Raises:
        SettingsError: some of the settings are missing, or there is no file of certificates.
    """
    wanted = {
        "TIDEGATE_JWT_ISSUER": settings.jwt_issuer,
        "TIDEGATE_JWT_AUDIENCE": settings.jwt_audience,
        "TIDEGATE_JWKS_URI": settings.jwks_uri,
    }
    missing = [name for name, value in wanted.items() if value is None]
    if len(missing) == len(wanted) and settings.jwt_scopes is None:
        return None
    if missing or settings.jwt_issuer is None or settings.jwt_audience is None or settings.jwks_uri is None:
        raise SettingsError(f"to verify tokens, Envoy needs {' and '.join(missing)} too")
    if settings.jwks_uri.startswith("https:") and not settings.jwks_ca_file.is_file():
        raise SettingsError(f"TIDEGATE_JWKS_CA_FILE must name a file of certificates: {settings.jwks_ca_file} is none")
    return Tokens(
        issuer=settings.jwt_issuer,
        audience=tuple(settings.jwt_audience.split()),
        scopes=tuple((settings.jwt_scopes or "").split()),
        claim=settings.caller_claim,
        keys=settings.jwks_uri,
        ca_file=settings.jwks_ca_file,
    )


def token_filters(tokens: Tokens) -> list[Json]:
    """Return the filters of the listener, in their order. A header `tidegate-caller` must have been removed before."""
    provider = {
        "issuer": tokens.issuer,
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "remote_jwks": {
            "http_uri": {"uri": tokens.keys, "cluster": ISSUER, "timeout": "5s"},
            # Keys stay while the issuer does not answer.
            "async_fetch": {"failed_refetch_duration": "1s"},
            "cache_duration": "300s",
        },
        "require_expiration": True,
        "payload_in_metadata": "claims",
        "forward": True,
    }
    rules = [
        *({"match": {"path": each}} for each in OPEN_PATHS),
        {"match": {"prefix": "/"}, "requires": {"provider_name": "callers"}},
    ]
    source = token_script(OPEN_PATHS, tokens.audience, tokens.scopes, tokens.claim)
    return [
        http_filter("tokens", "jwt_authn.v3.JwtAuthentication", providers={"callers": provider}, rules=rules),
        script("caller", source),
    ]


def token_refusal() -> Json:
    """Return how the refusal of a token looks: JSON, as all errors of the protocol."""
    code = {"comparison": {"op": "EQ", "value": {"default_value": 401, "runtime_key": "tidegate.unauthorized"}}}
    return {
        "filter": {"status_code_filter": code},
        "body": {"inline_string": _REFUSAL},
        "body_format_override": {
            "text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"},
            "content_type": "application/json",
        },
    }


def issuer_cluster(tokens: Tokens) -> Json:
    """Return the cluster of the issuer's keys."""
    parts = urlsplit(tokens.keys)
    host = parts.hostname or ""
    port = parts.port or (_HTTPS if parts.scheme == "https" else _HTTP)
    context = {
        "@type": f"{TYPES}/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": host,
        "common_tls_context": {
            "validation_context": {
                "trusted_ca": {"filename": str(tokens.ca_file)},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": host}}],
            }
        },
    }
    tls = {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context}}
    return {
        "name": ISSUER,
        **LOOKED_UP,
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": ISSUER,
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}]}
            ],
        },
        **(tls if parts.scheme == "https" else {}),
    }
