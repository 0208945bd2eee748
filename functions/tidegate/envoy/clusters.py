"""Envoy's clusters: one for each order of shards that a plan can have, over HTTP and over gRPC.

Each shard of a plan is a priority, so that a failed shard, and a retry, lead to the next one. An aggregate cluster would fail over too, but
ignores a retry's wish for another priority
(https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/aggregate_cluster).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256

from tidegate.envoy.filters import (
    ANY,
    TYPES,
    Json,
    all_of,
    http_filter,
    negated,
    of_answer,
    of_request,
    script,
    without,
)
from tidegate.envoy.fleet import Fleet, Server
from tidegate.envoy.plans import RPC, Shape, cluster_of
from tidegate.envoy.scripts import ASK, JUDGE, MOVED_HEADER, STEP_HEADER

_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_WHOLE_PRIORITY = 1_000_000
"""A priority gets all requests as long as one of its endpoints is healthy: a fallback is another model. In percent."""

READY = "/v2/health/ready"

# A name may have an address of IPv6, too, at which nothing listens or to which no route leads: by default Envoy takes that alone.
LOOKED_UP: Json = {"type": "STRICT_DNS", "dns_lookup_family": "V4_PREFERRED"}
"""The type of a cluster whose hosts are names."""


def clusters(
    shapes: Iterable[Shape], fleet: Fleet, eds_folder: str, connect_timeout_ms: int, *, rpc: bool
) -> Iterator[Json]:
    """Yield the clusters of some shapes, with those for gRPC if `rpc` says so; `eds_folder` has the files of the endpoints of most."""
    for shape in sorted(shapes):
        for is_rpc in (False, True) if rpc else (False,):
            name = (RPC if is_rpc else "") + cluster_of(shape)
            yield {
                "name": name,
                "alt_stat_name": name.replace(":", "_"),
                **_endpoints(name, shape, fleet, eds_folder, is_rpc=is_rpc),
                "connect_timeout": f"{connect_timeout_ms / 1000:.3f}s",
                "load_balancing_policy": {"policies": [{"typed_extension_config": _least_request()}]},
                "ignore_health_on_host_removal": True,
                "health_checks": [_health_check()],
                "outlier_detection": outliers(failures=5, ejected_s=5),
                "circuit_breakers": {"thresholds": [_limits()]},
                "typed_extension_protocol_options": {_OPTIONS: _protocol(is_rpc=is_rpc, has_steps=len(shape) > 1)},
            }


def assignment(shape: Shape, fleet: Fleet, *, is_rpc: bool) -> Json:
    """Return the endpoints of a shape's cluster (a `ClusterLoadAssignment`)."""
    places = [(step, shard) for step, shards in enumerate(shape) for shard in shards]
    return {
        "cluster_name": (RPC if is_rpc else "") + cluster_of(shape),
        "policy": {"overprovisioning_factor": _WHOLE_PRIORITY},
        "endpoints": [
            {
                "priority": priority,
                "lb_endpoints": [
                    _endpoint(each, step, shard, is_rpc=is_rpc)
                    for each in sorted(fleet.get(shard, ()))
                    if not is_rpc or each.grpc_port is not None
                ],
            }
            for priority, (step, shard) in enumerate(places)
        ],
    }


def assignment_file(cluster: str) -> str:
    """Return the name of the file that has the endpoints of a cluster."""
    return f"{sha256(cluster.encode()).hexdigest()[:16]}.json"


def _endpoint(server: Server, step: int, shard: str, *, is_rpc: bool) -> Json:
    port = server.grpc_port if is_rpc else server.http_port
    checked = {"health_check_config": {"port_value": server.http_port}} if is_rpc else {}
    return {
        "endpoint": {"address": {"socket_address": {"address": server.host, "port_value": port}}, **checked},
        "metadata": {"filter_metadata": {"tidegate": {"step": str(step), "shard": shard}}},
    }


def _endpoints(name: str, shape: Shape, fleet: Fleet, eds_folder: str, *, is_rpc: bool) -> Json:
    """Return where a cluster's endpoints are: in a file, or in the cluster itself. Envoy looks names up for a cluster of another type,
    and an address that several priorities have counts in a file for the first alone
    (https://github.com/envoyproxy/envoy/blob/v1.40.0/source/extensions/clusters/eds/eds.cc)."""
    servers = [each for shards in shape for shard in shards for each in fleet.get(shard, ())]
    is_named = not all(each.is_address for each in servers)
    if is_named or has_repeated(shape):
        kind: Json = LOOKED_UP | {"respect_dns_ttl": True} if is_named else {"type": "STATIC"}
        return kind | {"load_assignment": assignment(shape, fleet, is_rpc=is_rpc)}
    path = f"{eds_folder}/{assignment_file(name)}"
    source = {"path_config_source": {"path": path, "watched_directory": {"path": eds_folder}}}
    return {
        "type": "EDS",
        "eds_cluster_config": {"service_name": name, "eds_config": {**source, "resource_api_version": "V3"}},
    }


def has_repeated(shape: Shape) -> bool:
    """Return whether a shard is in several places of a plan, as that of a fallback which is where its target is."""
    shards = [shard for step in shape for shard in step]
    return len(set(shards)) < len(shards)


def _least_request() -> Json:
    # All endpoints are compared, as a shard has few; one that has come back gets more and more.
    return {
        "name": "envoy.load_balancing_policies.least_request",
        "typed_config": {
            "@type": f"{TYPES}/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
            "selection_method": "FULL_SCAN",
            "slow_start_config": {"slow_start_window": "10s"},
        },
    }


def _health_check() -> Json:
    return {
        "timeout": "1s",
        "interval": "2s",
        "no_traffic_interval": "2s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "always_log_health_check_failures": False,
        # A server is not ready while it unloads a model: one such answer leaves none out, else a fallback would answer for a second.
        "http_health_check": {"path": READY, "retriable_statuses": [{"start": 400, "end": 600}]},
    }


def outliers(failures: int, ejected_s: int) -> Json:
    """Return when an endpoint is left out: after so many requests in a row without an answer, for so many seconds at first."""
    # An answer never ejects an endpoint: it may be one model's. Connections that fail and time out do.
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": failures,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
        "interval": "1s",
        "base_ejection_time": f"{ejected_s}s",
        "max_ejection_percent": 50,
    }


def _limits() -> Json:
    return {
        "max_connections": 1024,
        "max_pending_requests": 1024,
        "max_requests": 4096,
        "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 64},
        "track_remaining": True,
    }


def _protocol(*, is_rpc: bool, has_steps: bool) -> Json:
    protocol = "http2_protocol_options" if is_rpc else "http_protocol_options"
    return {
        "@type": f"{TYPES}/{_OPTIONS}",
        "explicit_http_config": {protocol: {}},
        "common_http_protocol_options": {"idle_timeout": "60s"},
        # For each attempt, once its endpoint is known. An answer passes them from the last to the first.
        "http_filters": [
            *(_asking(is_rpc=is_rpc) if is_rpc or has_steps else ()),
            # Over gRPC, an error without a message has its status among the headers.
            script("judge", JUDGE, unless=all_of(_SUCCEEDED, negated(of_answer("grpc-status", ANY)))),
            http_filter(
                "place",
                "header_mutation.v3.HeaderMutation",
                mutations={"response_mutations": [*_OURS, _STEP, _set("tidegate-shard", "shard")]},
            ),
            http_filter("codec", "upstream_codec.v3.UpstreamCodec"),
        ],
    }


def _asking(*, is_rpc: bool) -> tuple[Json, Json]:
    """Return the filters that set which model an attempt asks for: the route has set that of the first step over HTTP."""
    is_first = all_of(of_request(STEP_HEADER, {"exact": "0"}), negated(of_request(MOVED_HEADER, ANY)))
    return (
        http_filter("step", "header_mutation.v3.HeaderMutation", mutations={"request_mutations": [_STEP]}),
        script("ask", ASK, unless=None if is_rpc else is_first),
    )


def _set(header: str, member: str) -> Json:
    """Return the mutation that sets a header to a member of the endpoint's metadata."""
    value = f"%UPSTREAM_METADATA(tidegate:{member})%"
    return {"append": {"header": {"key": header, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}


_STEP = _set(STEP_HEADER, "step")
_OURS = (without("tidegate-"), without("x-tidegate-"))
"""What says who answered is not the server's to say."""

_SUCCEEDED = of_answer(":status", {"exact": "200"})
