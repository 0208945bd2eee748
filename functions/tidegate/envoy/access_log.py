"""Envoy's log of requests, with the members of a line of the gateway's log.

https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage
"""

from __future__ import annotations

from typing import Any

from tidegate.envoy.filters import TYPES, Json, http_filter
from tidegate.envoy.scripts import METADATA

_ELSE = r"|^\C*$"
"""A text in which nothing is found is replaced by none, and so is not noted."""


def header_notes() -> Json:
    """Return the filter that notes what the log has of a request's and an answer's headers."""

    def found(header: str, key: str, pattern: str) -> Json:
        rewrite = {"pattern": {"regex": pattern + _ELSE}, "substitution": r"\1"}
        return {
            "header": header,
            "on_header_present": {"metadata_namespace": METADATA, "key": key, "regex_value_rewrite": rewrite},
        }

    version = {"metadata_namespace": METADATA, "key": "version", "type": "NUMBER"}
    return http_filter(
        "notes",
        "header_to_metadata.v3.Config",
        request_rules=[
            found("tidegate-objective", "objective", r"^(\C+)$"),
            # The objective of a path counts before one of a header, which is an RPC's.
            found(":path", "objective", r"^/v2/models/([^/?]+)\C*$"),
            found("traceparent", "trace_id", r"^00-([0-9a-f]{32})-[0-9a-f]+-..$"),
        ],
        response_rules=[{"header": "tidegate-model-version", "on_header_present": version}],
    )


def access_logs(file: str, percent: float) -> list[Json]:
    """Return the logs, one of which has a line for each request of an objective: by whether a script noted the outcome.

    Args:
        file: the file of all of them.
        percent: the share of what was answered, decided or refused that is logged; all else always is.
    """
    share = {"numerator": round(percent * 10_000), "denominator": "MILLION"}
    sampled = {
        "runtime_filter": {
            "runtime_key": "tidegate.logged",
            "percent_sampled": share,
            "use_independent_randomness": True,
        }
    }
    unnoted = _metadata("outcome", {"string_match": {"exact": ""}}, match_if_key_not_found=True)
    return [
        _access_log(file, _known("outcome"), _noted("outcome", "failed|fallback|degraded|undecided")),
        _access_log(file, _known("outcome"), _noted("outcome", "decided|refused"), sampled),
        _access_log(file, "answered", unnoted, _status("GE", 1), sampled),
        _access_log(file, "left", unnoted, _status("EQ", 0)),
    ]


def _access_log(file: str, outcome: str, *filters: Json) -> Json:
    line: dict[str, Any] = {
        "service": "envoy",
        "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
        "objective": f"{_known('objective')[:-1]}:256%",
        "outcome": outcome,
        "took_ms": "%DURATION%",
        "status": "%RESPONSE_CODE%",
        "caller": "%REQ(X-TIDEGATE-CALLER)%",
        "traffic": "%REQ(X-TIDEGATE-TRAFFIC)%",
        "rule": "%RESP(TIDEGATE-RULE)%",
        "reason": "%RESP(TIDEGATE-REASON)%",
        "model": "%RESP(TIDEGATE-MODEL)%",
        "revision": "%RESP(TIDEGATE-REVISION)%",
        "version": _known("version"),
        "variant": "%RESP(TIDEGATE-VARIANT)%",
        "cell": "%RESP(TIDEGATE-CELL)%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "shard": "%RESP(TIDEGATE-SHARD)%",
        "trace_id": _known("trace_id"),
        "request_id": "%REQ(X-REQUEST-ID):256%",
    }
    # A header alone makes no RPC.
    asks = {"header_filter": {"header": {"name": ":path", "string_match": _ASKS}}}
    return {
        "name": "envoy.access_loggers.file",
        "filter": {"and_filter": {"filters": [asks, _metadata("objective", {"present_match": True}), *filters]}},
        "typed_config": {
            "@type": f"{TYPES}/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": file,
            "log_format": {"json_format": line, "omit_empty_values": True},
        },
    }


_ASKS = {"safe_regex": {"regex": r"/(v2/models|inference\.GRPCInferenceService)/\C*"}}


def _known(key: str) -> str:
    return f"%DYNAMIC_METADATA({METADATA}:{key})%"


def _noted(key: str, pattern: str) -> Json:
    return _metadata(key, {"string_match": {"safe_regex": {"regex": pattern}}})


def _metadata(key: str, value: Json, *, match_if_key_not_found: bool = False) -> Json:
    # The filter heeds no `invert` of its matcher. What is noted is never empty.
    matcher = {"filter": METADATA, "path": [{"key": key}], "value": value}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": match_if_key_not_found}}


def _status(how: str, status: int) -> Json:
    value = {"default_value": status, "runtime_key": f"tidegate.{how.lower()}_{status}"}
    return {"status_code_filter": {"comparison": {"op": how, "value": value}}}
