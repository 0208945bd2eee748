"""Envoy's listener: HTTP/1.1 and HTTP/2 on one port, the filters that a request passes, and the log."""

from __future__ import annotations

from collections.abc import Iterator

from tidegate.envoy.access_log import access_logs, header_notes
from tidegate.envoy.filters import (
    ANY,
    FILTERS,
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
from tidegate.envoy.in_process import InProcessOptions, in_process_filter, unless_decided
from tidegate.envoy.plans import PARAMETER_PREFIX, PLAN_HEADER, RESERVED, TO_CALLER, TO_SERVER
from tidegate.envoy.routes import RESOLVER
from tidegate.envoy.scripts import ENTER, FAILED_OPEN, STEP_HEADER, UNDECIDED
from tidegate.envoy.tokens import CALLER_HEADER, Tokens, token_filters, token_refusal

AUTHORIZE = "/authorize"
MOST_HEADERS_KB = 96
"""The size of a request's headers, with those that the resolver adds: more would be a 500. Resolvers refuse above 64 KiB what callers send."""

MOST_HEADERS = 1024
"""Headers of a request, with those that the resolver adds: each parameter of a rule is one."""

RESOLVER_TRIES = 3
"""How often a request can ask a resolver that hangs, within its time for a decision."""

RESOLVER_RETRIES = 8
"""How often a request asks again after one that has ended: such a try takes no time, and it takes Envoy some to leave that one out."""

_AS_THE_GATEWAY: Json = {
    "accept_http_10": True,
    "default_host_for_http_10": "tidegate",
    "ignore_http_11_upgrade": [{"safe_regex": {"regex": ".*"}}],
}
"""What Envoy refuses otherwise: HTTP/1.0, and a request that offers to go on with another protocol."""


def listener(
    address: str,
    port: int,
    rds: Json,
    log: str | None,
    log_percent: float,
    resolver_timeout_ms: int,
    idle_timeout_s: float,
    body_timeout_s: float,
    tokens: Tokens | None,
    in_process: InProcessOptions | None,
) -> Json:
    """Return the listener.

    Args:
        address: the address that it binds.
        port: its port.
        rds: the source of its routes.
        log: the file of the log of requests; None: no log.
        log_percent: which share of the requests that succeed or are refused it has.
        resolver_timeout_ms: how long the resolver may take.
        idle_timeout_s: how long a connection may have no request.
        body_timeout_s: within which time the whole of a request must have come.
        tokens: which tokens callers must have; None: they need none.
        in_process: has requests decided in Envoy's process; None: resolvers are asked about all.
    """
    manager = {
        "@type": f"{TYPES}/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "tidegate",
        "codec_type": "AUTO",
        "rds": {"route_config_name": "tidegate", "config_source": rds},
        # Paths are read as they were sent, as the resolver reads them.
        "normalize_path": False,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "max_request_headers_kb": MOST_HEADERS_KB,
        "http_protocol_options": _AS_THE_GATEWAY,
        "common_http_protocol_options": {"idle_timeout": f"{idle_timeout_s:g}s", "max_headers_count": MOST_HEADERS},
        "request_headers_timeout": "10s",
        "request_timeout": f"{body_timeout_s:.3f}s",
        # A model may take longer than the default of five minutes; requests have a time-out of their own.
        "stream_idle_timeout": "0s",
        "use_remote_address": True,
        # An objective may read it; no server does.
        "skip_xff_append": True,
        "preserve_external_request_id": True,
        "server_header_transformation": "PASS_THROUGH",
        "http_filters": _filters(resolver_timeout_ms, tokens, in_process, is_logged=log is not None),
        "local_reply_config": {"mappers": [*(() if tokens is None else (token_refusal(),)), *_own_errors()]},
        "access_log": [] if log is None else access_logs(log, log_percent),
    }
    http = {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
    return {
        "name": "tidegate",
        "address": {"socket_address": {"address": address, "port_value": port}},
        "filter_chains": [{"filters": [http]}],
    }


def _own_errors() -> Iterator[Json]:
    """Yield how Envoy's own errors look: JSON, as all errors of the protocol, and for an RPC the text alone. A refusal of the resolver
    stays as it is."""
    rpc = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
    is_rpc: Json = {"header_filter": {"header": rpc}}
    is_http: Json = {"header_filter": {"header": {**rpc, "invert_match": True, "treat_missing_header_as_empty": True}}}
    as_json: Json = {"body_format_override": {"json_format": {"error": "%LOCAL_REPLY_BODY%"}}}
    yield {"filter": {"response_flag_filter": {"flags": ["UAEX"]}}}
    for flag, text in _TEXTS.items():
        is_so: Json = {"response_flag_filter": {"flags": [flag]}}
        for sent, form in ((is_http, as_json), (is_rpc, {})):
            yield {"filter": {"and_filter": {"filters": [is_so, sent]}}, "body": {"inline_string": text}, **form}
    yield {"filter": is_http, **as_json}


_TEXTS = {
    "NC": "the proxy does not know these shards: its configuration is that of other rules",
    "UH": "no server of the model's shards is healthy",
}
"""What Envoy says too little of, by its flag of a response."""


def _filters(
    resolver_timeout_ms: int, tokens: Tokens | None, in_process: InProcessOptions | None, *, is_logged: bool
) -> list[Json]:
    ours = RESERVED if tokens is None else (*RESERVED, CALLER_HEADER)
    return [
        # What says where a request goes comes from the resolver alone. An answer passes the filters from the last to the first.
        http_filter(
            "own",
            "header_mutation.v3.HeaderMutation",
            mutations={
                "request_mutations": [without(each) for each in ours],
                "response_mutations": [without("x-tidegate-")],
            },
        ),
        *(() if tokens is None else token_filters(tokens)),
        *((header_notes(),) if is_logged else ()),
        script("enter", ENTER, unless=_IS_ORDINARY),
        *(() if in_process is None else (in_process_filter(in_process),)),
        {
            "name": "authorization",
            "typed_config": _authorization(resolver_timeout_ms) | ({} if in_process is None else unless_decided()),
        },
        script("undecided", UNDECIDED, unless=negated(of_request(FAILED_OPEN, ANY))),
        http_filter("router", "router.v3.Router", suppress_envoy_headers=True),
    ]


_IS_ORDINARY = all_of(
    of_answer(":status", {"exact": "200"}),
    of_answer(STEP_HEADER, {"exact": "0"}),
    # An RPC's error, and an answer without a decision.
    negated(of_answer("grpc-status", ANY)),
    negated(of_answer("tidegate-reason", {"exact": "degraded"})),
)


def _authorization(timeout_ms: int) -> Json:
    try_ms = max(1.0, timeout_ms / RESOLVER_TRIES)
    return {
        "@type": f"{FILTERS}.ext_authz.v3.ExtAuthz",
        "http_service": {
            "server_uri": {"uri": "http://resolver", "cluster": RESOLVER, "timeout": f"{timeout_ms / 1000:.3f}s"},
            "path_prefix": AUTHORIZE,
            "authorization_response": {
                "allowed_upstream_headers": _patterns(
                    {"prefix": PARAMETER_PREFIX, "ignore_case": True},
                    *({"exact": each} for each in TO_SERVER),
                ),
                "allowed_client_headers_on_success": _patterns(*({"exact": each} for each in TO_CALLER)),
                # No header of the request, which its server would get.
                "dynamic_metadata_from_headers": _patterns({"exact": PLAN_HEADER}),
            },
            # A resolver that ended does not end the request.
            "retry_policy": {
                "retry_on": "connect-failure,refused-stream,reset",
                "num_retries": RESOLVER_RETRIES,
                # Envoy gives each try the longest interval as its time; the intervals themselves never get that long.
                "retry_back_off": {
                    "base_interval": f"{min(2.0, try_ms) / 1000:.4f}s",
                    "max_interval": f"{try_ms / 1000:.4f}s",
                },
            },
        },
        # As they are: else bytes that are not UTF-8 become "!", and headers of one name a single one.
        "encode_raw_headers": True,
        "allowed_headers": _patterns({"safe_regex": {"regex": ".*"}}),
        # With the type of gRPC, Envoy would turn its own error about a resolver that does not answer into an answer of status 200.
        "disallowed_headers": _patterns({"exact": "content-type"}, {"exact": "te"}),
        "clear_route_cache": True,
        # The routes say what is served without a decision; see `routes`.
        "failure_mode_allow": True,
        "failure_mode_allow_header_add": True,
        "validate_mutations": True,
        "stat_prefix": "resolver",
    }


def _patterns(*patterns: Json) -> Json:
    return {"patterns": list(patterns)}
