"""The routes of requests, by which their spans and their metrics are named: paths with the names of what varies in them."""

from __future__ import annotations

_MODEL = ("/v2/models/{objective}", "/v2/models/{objective}/versions/{version}")
_OBJECTIVE = "/v1/objectives/{objective}"
_FLAGS = ("/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/{objective}")
ROUTES = frozenset(
    {
        "/", "/console", "/metrics", "/openapi.json", "/v2", "/v2/health/live", "/v2/health/ready", *_FLAGS, "/v1/bundle", "/v1/drafts", "/v1/events", "/v1/fleet",
        "/v1/graph", "/v1/models", "/v1/models/{model}", "/v1/objectives", "/v1/overview", "/v1/placement", "/v1/revisions",
        "/v1/revisions/diff", "/v1/rollback", "/v1/shards", _OBJECTIVE,
        *(f"{_OBJECTIVE}/{each}" for each in ("cases", "infer", "resolve", "source", "stream", "traffic")),
        *(f"/authorize/v2/models/{{objective}}{each}" for each in ("", "/config", "/generate", "/generate_stream", "/infer", "/ready", "/stats")),
        "/authorize/inference.GRPCInferenceService/{method}",
        *_MODEL, *(f"{start}/{each}" for start in _MODEL for each in ("config", "generate", "generate_stream", "infer", "ready", "stats")),
    }
)  # fmt: skip
"""All routes that are distinguished; a path that is not a route is "", so that no caller can make more."""

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
OTHER_METHOD = "_OTHER"
"""The name of any other method: https://opentelemetry.io/docs/specs/semconv/registry/attributes/http/."""

_MOST_KNOWN = 4096
_LONGEST_KNOWN = 128
"""Characters of a path that is kept: a caller may send many others."""

_known: dict[str, str] = {}


def route_of(path: str) -> str:
    """Return the route of a decoded path, or ""."""
    route = _known.get(path)
    if route is None:
        route = _route(path)
        if len(path) <= _LONGEST_KNOWN:
            if len(_known) >= _MOST_KNOWN:
                _known.clear()
            _known[path] = route
    return route


def method_of(method: str) -> str:
    """Return a method as it is counted."""
    return method if method in METHODS else OTHER_METHOD


def _route(path: str) -> str:
    parts = path.split("/")
    if parts[1:2] == ["authorize"]:
        return _authorized(parts)
    kind = parts[1:3]
    if kind[:1] == ["console"]:
        return "/console"
    if len(parts) > 3 and kind in (["v2", "models"], ["v1", "objectives"]):
        parts[3] = "{objective}"
    elif len(parts) > 5 and kind == ["ofrep", "v1"]:
        parts[5] = "{objective}"
    elif len(parts) > 3 and kind == ["v1", "models"]:
        parts[3] = "{model}"
    if len(parts) > 5 and parts[4] == "versions":
        parts[5] = "{version}"
    route = "/".join(parts)
    return route if route in ROUTES else ""


def _authorized(parts: list[str]) -> str:
    """Return the route of what a proxy asks, whatever version its caller's path names."""
    if parts[2:4] == ["v2", "models"] and len(parts) > 4:
        parts[4] = "{objective}"
        if parts[5:6] == ["versions"]:
            del parts[5:7]
    elif parts[2] == "inference.GRPCInferenceService" and len(parts) == 4:
        parts[3] = "{method}"
    route = "/".join(parts)
    return route if route in ROUTES else ""
