"""Envoy's whole configuration, as the files that it reads: one at its start, and others that it follows.

Envoy follows files that are renamed into a folder which it watches
(https://www.envoyproxy.io/docs/envoy/latest/configuration/overview/xds_api): no server has to run for it, and what it knew is there
after a restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate.envoy.clusters import LOOKED_UP, assignment, assignment_file, clusters, has_repeated, outliers
from tidegate.envoy.filters import TYPES, Json
from tidegate.envoy.fleet import Fleet, Server
from tidegate.envoy.in_process import InProcessOptions
from tidegate.envoy.listener import RESOLVER_TRIES, listener
from tidegate.envoy.overload import overload_manager
from tidegate.envoy.plans import RPC, Shape, cluster_of, shapes
from tidegate.envoy.routes import RESOLVER, virtual_host
from tidegate.envoy.tokens import Tokens, issuer_cluster
from tidegate.errors import SettingsError
from tidegate.rules import Engine

BOOTSTRAP, CLUSTERS, ROUTES, ENDPOINTS, ADMIN = (
    "envoy.json",
    "cds/clusters.json",
    "rds/routes.json",
    "eds",
    "admin.sock",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyOptions:
    """What a configuration depends on besides rules and fleet.

    Attributes:
        folder: the folder of its files, absolute.
        address: the address that Envoy binds.
        port: its port.
        resolvers: where resolvers answer, `HOST:PORT` or `unix:/PATH`, at least one.
        rpc: whether requests over gRPC are served.
        log: the file of the log of requests; None: no log.
        log_percent: which share of the requests that succeed or are refused it has.
        default_timeout_ms: the time-out of a request without one of its own.
        stream_idle_ms: how long a stream may pause.
        resolver_timeout_ms: how long a resolver may take.
        connect_timeout_ms: how long a connection to a server may take to open.
        idle_timeout_s: how long a connection may have no request.
        body_timeout_s: within which time the whole of a request must have come.
        most_connections: how many connections callers may have.
        most_buffered_bytes: how much Envoy may hold, besides `overload.OWN_BYTES` for itself.
        tokens: which tokens callers must have; None: they need none.
        in_process: has requests decided in Envoy's process; None: resolvers are asked about all.
    """

    folder: Path
    port: int
    resolvers: tuple[str, ...]
    address: str = "127.0.0.1"
    rpc: bool = True
    log: str | None = None
    log_percent: float = 100.0
    default_timeout_ms: int = 10_000
    stream_idle_ms: int = 30_000
    resolver_timeout_ms: int = 500
    connect_timeout_ms: int = 250
    idle_timeout_s: float = 75.0
    body_timeout_s: float = 30.0
    most_connections: int = 1024
    most_buffered_bytes: int = 512 * 1024 * 1024
    tokens: Tokens | None = None
    in_process: InProcessOptions | None = None


def bootstrap(options: EnvoyOptions) -> Json:
    """Return what Envoy is started with. Nothing in it depends on rules or fleet."""
    folder = options.folder
    return {
        "node": {"id": "tidegate", "cluster": "tidegate"},
        # A user that may write to this folder may change all of it anyway.
        "admin": {"address": {"pipe": {"path": str(folder / ADMIN), "mode": 0o600}}},
        "overload_manager": overload_manager(options.most_connections, options.most_buffered_bytes),
        "dynamic_resources": {"cds_config": _source(folder / CLUSTERS)},
        "static_resources": {
            "listeners": [
                listener(
                    options.address,
                    options.port,
                    _source(folder / ROUTES),
                    options.log,
                    options.log_percent,
                    options.resolver_timeout_ms,
                    options.idle_timeout_s,
                    options.body_timeout_s,
                    options.tokens,
                    options.in_process,
                )
            ],
            "clusters": [
                _resolver(options),
                *([] if options.tokens is None else [issuer_cluster(options.tokens)]),
            ],
        },
    }


def cluster_file(shapes_: frozenset[Shape], fleet: Fleet, options: EnvoyOptions) -> Json:
    """Return the file of the clusters."""
    kind = "envoy.config.cluster.v3.Cluster"
    return _resources(
        kind, clusters(shapes_, fleet, str(options.folder / ENDPOINTS), options.connect_timeout_ms, rpc=options.rpc)
    )


def endpoint_files(shapes_: frozenset[Shape], fleet: Fleet, *, rpc: bool) -> Iterator[tuple[str, Json]]:
    """Yield the files of the endpoints that no cluster has itself: the name of each, and its content."""
    kind = "envoy.config.endpoint.v3.ClusterLoadAssignment"
    for shape in shapes_:
        if has_repeated(shape):
            continue
        for is_rpc in (False, True) if rpc else (False,):
            found = assignment(shape, fleet, is_rpc=is_rpc)
            yield f"{ENDPOINTS}/{assignment_file(found['cluster_name'])}", _resources(kind, [found])


def route_file(engine: Engine | None, options: EnvoyOptions) -> Json:
    """Return the file of the routes."""
    host = virtual_host(engine, options.default_timeout_ms, options.stream_idle_ms, rpc=options.rpc)
    # A request whose cluster is gone gets a 503, as without one.
    routes = {"name": "tidegate", "virtual_hosts": [host], "validate_clusters": False}
    return _resources("envoy.config.route.v3.RouteConfiguration", [routes])


def whole(engine: Engine, fleet: Fleet, options: EnvoyOptions) -> dict[str, Json]:
    """Return all files by their name below the folder."""
    needed = shapes(engine)
    return {
        BOOTSTRAP: bootstrap(options),
        **dict(endpoint_files(needed, fleet, rpc=options.rpc)),
        CLUSTERS: cluster_file(needed, fleet, options),
        ROUTES: route_file(engine, options),
    }


def cluster_names(shapes_: frozenset[Shape], *, rpc: bool) -> set[str]:
    """Return the names of the clusters of some shapes."""
    names = {cluster_of(shape) for shape in shapes_}
    return names | {RPC + name for name in names} if rpc else names


def _source(path: Path) -> Json:
    return {
        "path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}},
        "resource_api_version": "V3",
    }


def _resources(kind: str, found: Iterable[Json]) -> Json:
    return {"resources": [{"@type": f"{TYPES}/{kind}", **each} for each in found]}


def _resolver(options: EnvoyOptions) -> Json:
    places = options.resolvers
    endpoints = [{"endpoint": {"address": _address(each)}} for each in places]
    is_named = any(not each.startswith("unix:") and not _is_address(each) for each in places)
    if is_named and any(each.startswith("unix:") for each in places):
        raise SettingsError(
            "resolvers must be Unix sockets and addresses, or names: Envoy looks up all or none of them"
        )
    return {
        "name": RESOLVER,
        **(LOOKED_UP if is_named else {"type": "STATIC"}),
        # One that does not run refuses at once; the time is for one that is busy, and another may be asked in the rest.
        "connect_timeout": f"{options.resolver_timeout_ms / 2000:.3f}s",
        "load_assignment": {"cluster_name": RESOLVER, "endpoints": [{"lb_endpoints": endpoints}]},
        # In turn: of one that has ended no request is under way, so the least busy would be that one.
        "lb_policy": "ROUND_ROBIN",
        # Else it may take Envoy a second to leave one out.
        "common_lb_config": {"update_merge_window": "0s"},
        # A request that has asked one in vain until that one is left out has a try left for another.
        "outlier_detection": outliers(failures=RESOLVER_TRIES - 1, ejected_s=2),
        "circuit_breakers": {
            "thresholds": [
                {"max_connections": 256, "max_pending_requests": 4096, "max_requests": 4096, "max_retries": 256}
            ]
        },
    }


def _is_address(place: str) -> bool:
    return Server(place.rpartition(":")[0].strip("[]"), 1).is_address


def _address(place: str) -> Json:
    if place.startswith("unix:"):
        return {"pipe": {"path": place.removeprefix("unix:")}}
    host, _, port = place.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise SettingsError(f"a resolver must be HOST:PORT or unix:/PATH, not {place!r}")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}
