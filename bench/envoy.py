"""Envoy from its wheel, routing by a header."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROUTING_HEADER = "tidegate-routing-key"


@contextmanager
def envoy(
    upstream_url: str,
    routing_key: str,
    *,
    over_http2: bool = False,
    resolver_port: int | None = None,
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[int]:
    """Run Envoy in front of one upstream; gives its port.

    `over_http2` is for an upstream that speaks HTTP/2 alone, as gRPC does. Requests whose routing header is `routing_key` go to the upstream,
    all others get 404. With `resolver_port`, the header comes from the answer of the resolver at that port, which `ext_authz` asks before each
    request. `certificate` and its key are for TLS. Access logs are off and Envoy chooses its number of workers itself (one per core).
    """
    upstream = urlsplit(upstream_url)
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "envoy.json")
        settings = _config(port, upstream.hostname or "", upstream.port or 80, routing_key, over_http2, resolver_port)
        if certificate is not None:
            _encrypt(settings, *certificate)
        config.write_text(json.dumps(settings))
        command = [str(Path(sys.executable).with_name("envoy")), "-c", str(config), "--log-level", "error"]
        with Path(directory, "log").open("wb") as log:
            process = subprocess.Popen([*command, "--disable-hot-restart"], stdout=log, stderr=log)
            try:
                wait(port, process)
                yield port
            finally:
                process.terminate()
                process.wait(10)


def _config(
    port: int, host: str, upstream_port: int, routing_key: str, over_http2: bool, resolver_port: int | None
) -> dict[str, Any]:
    http = "type.googleapis.com/envoy.extensions.filters"
    route = {
        "match": {"prefix": "/", "headers": [{"name": ROUTING_HEADER, "string_match": {"exact": routing_key}}]},
        "route": {"cluster": "shard", "timeout": "10s"},
    }
    # Without any route for a request, ext_authz would not ask.
    other = {"match": {"prefix": "/"}, "direct_response": {"status": 404}}
    router = {"name": "router", "typed_config": {"@type": f"{http}.http.router.v3.Router"}}
    manager = {
        "@type": f"{http}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route, other]}]},
        "http_filters": [router] if resolver_port is None else [_authorization(), router],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    cluster = _cluster("shard", host, upstream_port)
    if over_http2:
        upstreams = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        options = {"@type": f"type.googleapis.com/{upstreams}", "explicit_http_config": {"http2_protocol_options": {}}}
        cluster["typed_extension_protocol_options"] = {upstreams: options}
    listener = {"name": "ingress", "address": address, "filter_chains": [{"filters": filters}]}
    clusters = [cluster] if resolver_port is None else [cluster, _cluster("resolver", "127.0.0.1", resolver_port)]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _encrypt(settings: dict[str, Any], certificate: Path, key: Path) -> None:
    pair = {"certificate_chain": {"filename": str(certificate)}, "private_key": {"filename": str(key)}}
    context = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [pair], "alpn_protocols": ["h2", "http/1.1"]},
    }
    (listener,) = settings["static_resources"]["listeners"]
    listener["filter_chains"][0]["transport_socket"] = {"name": "tls", "typed_config": context}


def _cluster(name: str, host: str, port: int) -> dict[str, object]:
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _authorization() -> dict[str, object]:
    allowed = {"patterns": [{"exact": ROUTING_HEADER}]}
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "http_service": {
            "server_uri": {"uri": "http://resolver", "cluster": "resolver", "timeout": "0.5s"},
            "authorization_response": {"allowed_upstream_headers": allowed},
        },
        "clear_route_cache": True,
    }
    return {"name": "authorization", "typed_config": config}


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"envoy ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("envoy did not listen within 20 s")
