"""Envoy's routes: by what the resolver has decided, to the resolver itself, and what is served while no resolver answers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tidegate.envoy.filters import TYPES, Json
from tidegate.envoy.plans import (
    PATH_HEADER,
    RPC,
    SHARD_HEADER,
    cluster_of,
    degraded_targets,
    rpc_plan,
    shape_of,
    shapes,
)
from tidegate.envoy.scripts import FAILED_OPEN, RETRY_HEADER, UNDECIDED_HEADER
from tidegate.oip.infer_message import parameter_fields, sequence_id_field
from tidegate.oip.parameters import TRAFFIC
from tidegate.oip.paths import model_path
from tidegate.rules import Engine, Target

RESOLVER = "resolver"
RPC_SERVICE = "/inference.GRPCInferenceService/"

_ABOUT_MODEL = "ModelInfer|ModelReady|ModelMetadata|ModelConfig|ModelStatistics"
_IS_RPC = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
_DECIDED = {"name": SHARD_HEADER, "present_match": True}
_UNDECIDED = {"name": FAILED_OPEN, "present_match": True}
_ORIGIN = ((TRAFFIC, b"real"),)

MOST_REPEATED_BYTES = 4 * 1024 * 1024
"""A larger body is sent once, as it comes."""

_OF_CALLERS = (
    "tidegate-context", "tidegate-caller", "tidegate-override", "tidegate-traffic", "tidegate-timeout-ms", "tidegate-objective",
    "tidegate-operator", "authorization", "cookie",
)  # fmt: skip
"""Headers of callers that no model needs."""

_TO_MODELS = {"request_headers_to_remove": list(_OF_CALLERS)}


def virtual_host(engine: Engine | None, default_timeout_ms: int, stream_idle_ms: int, *, rpc: bool) -> Json:
    """Return the virtual host of all requests; `engine` is None as long as there are no rules."""
    routes = [*_to_resolver(), *_decided(stream_idle_ms)]
    if engine is not None:
        routes += _server_rpcs(engine) if rpc else ()
        for objective, target in degraded_targets(engine):
            routes += _degraded(engine, objective, target, default_timeout_ms, rpc=rpc)
    routes.append(_nothing())
    return {
        "name": "tidegate",
        "domains": ["*"],
        "routes": routes,
        "include_attempt_count_in_response": False,
        "request_body_buffer_limit": MOST_REPEATED_BYTES,
    }


def _to_resolver() -> Iterator[Json]:
    """Yield the routes of what the resolver answers itself, without being asked before."""
    matches: tuple[Json, ...] = (
        {"path": "/v2"},
        {"prefix": "/v2/health/"},
        {"prefix": "/v1/objectives"},
        {"path": "/openapi.json"},
    )
    for match in matches:
        yield {
            "match": match,
            "route": {"cluster": RESOLVER, "timeout": "5s"},
            "typed_per_filter_config": _unasked(),
        }


def _unasked() -> Json:
    return {
        "authorization": {
            "@type": f"{TYPES}/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
            "disabled": True,
        }
    }


def _server_rpcs(engine: Engine) -> Iterator[Json]:
    """Yield the route of RPCs about the server and no model, to the cluster that reaches the most shards: any server may answer."""
    found = sorted(shapes(engine))
    if found:
        widest = max(found, key=lambda shape: len({shard for shards in shape for shard in shards}))
        yield {
            "match": {"prefix": f"{RPC_SERVICE}Server", "grpc": {}},
            "route": {"cluster": RPC + cluster_of(widest), "timeout": "5s"},
            **_TO_MODELS,
            "typed_per_filter_config": _unasked(),
        }


def _decided(stream_idle_ms: int) -> Iterator[Json]:
    """Yield the routes of decided requests. Their time-out is in a header."""
    cluster = {"cluster_header": SHARD_HEADER, "retry_policy": _retries(), "timeout": "0s", "idle_timeout": "0s"}
    path = {"path_rewrite": f"%REQ({PATH_HEADER})%"}
    yield {
        **_TO_MODELS,
        "match": {"prefix": RPC_SERVICE, "headers": [_DECIDED, _IS_RPC]},
        "route": {**cluster, "max_stream_duration": {"grpc_timeout_header_max": "0s"}},
    }
    yield {
        **_TO_MODELS,
        "match": {"safe_regex": {"regex": "/.*/generate_stream"}, "headers": [_DECIDED]},
        "route": {**cluster, **path, "idle_timeout": _seconds(stream_idle_ms)},
    }
    yield {**_TO_MODELS, "match": {"prefix": "/", "headers": [_DECIDED]}, "route": {**cluster, **path}}


def _degraded(engine: Engine, objective: str, target: Target, default_timeout_ms: int, *, rpc: bool) -> Iterator[Json]:
    """Yield the routes that serve an objective without a decision."""
    name, cluster = re.escape(objective), cluster_of(shape_of([target]))
    timeout_ms = engine.objectives[objective].timeout_ms or default_timeout_ms
    shown = {
        "tidegate-reason": "degraded",
        "tidegate-model": target.model,
        "tidegate-model-version": target.version,
        "tidegate-revision": engine.rules,
    }
    same: Json = {
        **_TO_MODELS,
        "stat_prefix": f"degraded_{objective}",
        "response_headers_to_add": [_header(key, str(value)) for key, value in shown.items() if value is not None],
    }
    route: Json = {"timeout": _seconds(timeout_ms), "retry_policy": _retries()}
    action = "((?:/(?:infer|generate|config|ready|stats))?)"
    pattern = f"/v2/models/{name}{'' if target.version is None else f'(?:/versions/{target.version})?'}{action}"
    yield {
        **same,
        "match": {"safe_regex": {"regex": pattern}, "headers": [_UNDECIDED]},
        "route": {
            **route,
            "cluster": cluster,
            "regex_rewrite": {
                "pattern": {"regex": rf"^{pattern}"},
                "substitution": model_path(target.model, target.version) + r"\1",
            },
        },
        "request_headers_to_add": [_header(key.decode(), value.decode()) for key, value in _ORIGIN],
    }
    text = f"objective '{objective}' does not serve that version: its rules pick the version, ask without one"
    yield {
        "match": {"safe_regex": {"regex": f"/v2/models/{name}/versions/[0-9]+{action}"}, "headers": [_UNDECIDED]},
        **_answer(403, text),
    }
    if rpc:
        inferred = parameter_fields(_ORIGIN) + sequence_id_field(0)
        for methods, appended in ((_ABOUT_MODEL.partition("|")[0], inferred), (_ABOUT_MODEL, b"")):
            yield {
                **same,
                "match": {
                    "safe_regex": {"regex": f"{re.escape(RPC_SERVICE)}(?:{methods})"},
                    "headers": [_UNDECIDED, {"name": "tidegate-objective", "string_match": {"exact": objective}}],
                },
                "route": {**route, "cluster": RPC + cluster},
                "metadata": {
                    "filter_metadata": {
                        each: {"plan": rpc_plan([target], appended)} for each in ("ask", "judge", "enter")
                    }
                },
            }


def _nothing() -> Json:
    """Return the route of requests that no resolver has decided, and that nothing is declared for."""
    text = "no resolver answers, and the objective declares nothing to serve meanwhile"
    return {
        "match": {"prefix": "/"},
        **_answer(503, text, ("retry-after", "1"), (UNDECIDED_HEADER, "true")),
        "stat_prefix": "undecided",
    }


def _answer(status: int, text: str, *headers: tuple[str, str]) -> Json:
    """Return the members of a route that Envoy answers itself."""
    return {
        "direct_response": {
            "status": status,
            "body": {"inline_string": text},
        },
        "response_headers_to_add": [_header(*each) for each in headers],
    }


def _retries() -> Json:
    retry = "envoy.extensions.retry"
    return {
        # Nothing that a server may have worked on, unless its answer says that it has not.
        "retry_on": "connect-failure,refused-stream,reset-before-request,retriable-headers",
        "retriable_headers": [{"name": RETRY_HEADER, "present_match": True}],
        "num_retries": 3,
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": f"{TYPES}/{retry}.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 2,
            },
        },
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{TYPES}/{retry}.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
        "host_selection_retry_max_attempts": 8,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.02s"},
    }


def _header(name: str, value: str) -> Mapping[str, Any]:
    # A percent sign begins a command of Envoy.
    header = {"key": name, "value": value.replace("%", "%%")}
    return {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}s"
