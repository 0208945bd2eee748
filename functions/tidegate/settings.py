"""The settings: one frozen dataclass, read from `TIDEGATE_*` environment variables with the standard library alone.

The variable of a field is its name in capitals after `TIDEGATE_`: `default_timeout_ms` is `TIDEGATE_DEFAULT_TIMEOUT_MS`.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from tidegate.errors import SettingsError

PREFIX = "TIDEGATE_"
INFRASTRUCTURE = "TIDEGATE_INFRA_"
"""What begins the variables of the infrastructure's own settings, which are not these."""

WHOLE = ("int", "int | None")
"""The types of settings that are whole numbers."""


def _setting(default: Any, doc: str, minimum: float = 0, maximum: float = math.inf) -> Any:
    return field(default=default, metadata={"doc": doc, "minimum": minimum, "maximum": maximum})


def _text(default: str | None, doc: str, pattern: str, words: str, *, secret: bool = False) -> Any:
    """A setting that is a text; `words` say what `pattern` matches as a whole. A `secret` is never shown."""
    metadata = {"doc": doc, "pattern": pattern, "words": words, "secret": secret}
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting with its default; `metadata["doc"]` of a field says what it means and in which unit."""

    default_timeout_ms: int = _setting(
        10_000,
        "Deadline of a request, in milliseconds, where neither caller, rule nor objective sets one.",
        1,
        3_600_000,
    )
    max_body_bytes: int = _setting(64 * 1024 * 1024, "Largest request body that is accepted, in bytes.", 1)
    max_buffered_bytes: int = _setting(
        512 * 1024 * 1024,
        "Most bytes of request bodies and of models' answers that a gateway holds at one time, over all requests.",
        1024 * 1024,
    )
    max_json_bytes: int = _setting(
        4 * 1024 * 1024,
        "Most JSON of a request to `/v2`, in bytes, without the tensors in binary after it: servers parse it slowly, and hold "
        "up others' requests meanwhile.",
        1024,
    )
    stream_above_bytes: int = _setting(
        1024 * 1024,
        "Size of a request body, in bytes, above which it is passed on as it comes and not held, where nothing needs it whole.",
        65_536,
    )
    max_v1_body_bytes: int = _setting(
        8 * 1024 * 1024, "Largest body of a request to `/v1`, in bytes: its JSON is parsed as a whole.", 1024
    )
    max_v1_values: int = _setting(1_000_000, "Most values in the inputs of one request to `/v1`.", 1)
    model_errors: str | None = _text(
        None,
        "What callers are told of an error that a model raised: redacted (a short text and the id of the whole one in the log) or "
        "passed; unset: redacted, and passed by the local stack.",
        "redacted|passed",
        "redacted or passed",
    )
    max_connections: int = _setting(
        1024,
        "Open connections of callers to the local gateway; half of the process's descriptors are the limit where that is "
        "less. Above it the longest idle one is closed, or else the new one gets a 503.",
        1,
        1_000_000,
    )
    max_header_bytes: int = _setting(
        65_536,
        "Largest request line and headers together that the local gateway reads, in bytes; more is a 431.",
        1024,
        1024 * 1024,
    )
    header_timeout_s: float = _setting(
        10.0,
        "Longest that a request's headers may take to arrive at the local gateway, from their first byte, in seconds.",
        0.1,
        3600,
    )
    body_timeout_s: float = _setting(
        30.0,
        "How long a request's body may bring less than 500 bytes per second to the local gateway, in seconds.",
        0.1,
        3600,
    )
    write_timeout_s: float = _setting(
        30.0,
        "How long a caller of the local gateway may take less than 500 bytes per second of its answer, in seconds.",
        0.1,
        3600,
    )
    idle_timeout_s: float = _setting(
        75.0, "How long the local gateway keeps a connection open without a request, in seconds.", 0.1, 86_400
    )
    connect_timeout_ms: int = _setting(250, "Time to open a connection to an endpoint, in milliseconds.", 1, 60_000)
    pool_connections_per_endpoint: int = _setting(64, "Idle connections kept open to each endpoint.", 0, 10_000)
    max_connections_per_endpoint: int = _setting(256, "Most connections open to each endpoint.", 1, 10_000)
    max_response_bytes: int = _setting(64 * 1024 * 1024, "Largest answer of a model that is passed on, in bytes.", 1)
    max_in_flight: int = _setting(
        256,
        "Most requests under way for one model on one endpoint; the limit that a gateway measures stays below it.",
        1,
        10_000,
    )
    queue_ms: int = _setting(
        1000,
        "Longest that a request waits for room at a model on an endpoint, in milliseconds; after that the next target is "
        "tried.",
        0,
        600_000,
    )
    quarantine_s: float = _setting(
        600.0, "How long a request that has ended two servers is refused, in seconds; 0: not at all.", 0, 86_400
    )
    breaker_failures: int = _setting(
        5, "Consecutive failures of a model on an endpoint that open its breaker there.", 1, 10_000
    )
    breaker_open_ms: int = _setting(
        1000,
        "How long a breaker stays open before the model is asked whether it is ready, in milliseconds; it doubles each time, up to "
        "30 s.",
        1,
        600_000,
    )
    attempt_share: float = _setting(
        0.5, "Share of the time left that one attempt may use while another target could still be tried.", 0.01, 1
    )
    retry_budget_percent: float = _setting(20.0, "Retries allowed, in percent of the requests.", 0, 100)
    load_timeout_s: float = _setting(30.0, "Time that loading one model may take, in seconds.", 0.1, 3600)
    server_start_timeout_s: float = _setting(
        30.0, "Time that one Triton server may take to start, in seconds.", 1, 3600
    )
    hung_after_s: float = _setting(
        10.0,
        "How long a Triton server that runs may answer no health request before it is replaced, in seconds; it is sent no "
        "requests once two in a row were not answered.",
        5,
        3600,
    )
    scratch_memory_mb: int | None = _setting(
        None,
        "Most memory, in MiB, of the server on this machine that new models are tried on; unset: half of what is left.",
        256,
        1_000_000_000,
    )
    drain_timeout_s: float = _setting(
        10.0, "How long models and servers that no rule reaches wait for the requests under way, in seconds.", 0, 3600
    )
    keep_revisions: int = _setting(
        3,
        "Earlier revisions, none marked bad, whose models stay loaded, so that a rollback to them is one write.",
        0,
        49,
    )
    triton_home: Path | None = _setting(  # noqa: RUF009  # makes a field
        None,
        "Folder with Triton's `bin/tritonserver`, `backends/` and `python_backend_stubs/`; unset: pytriton's wheel.",
    )
    cache_dir: Path | None = _setting(  # noqa: RUF009  # makes a field
        None, "Folder for what is built once and kept; unset: `$XDG_CACHE_HOME/tidegate` or `~/.cache/tidegate`."
    )
    bucket: str | None = _text(
        None,
        "S3 bucket of the pushed models and the bundles.",
        r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
        "the name of a bucket (3 to 63 lower-case letters, digits, '.' and '-')",
    )
    stack: str | None = _text(
        None,
        "Address of the running stack that commands mean where no option names one; unset: `http://127.0.0.1:8080`, if a "
        "stack answers there.",
        r"https?://[^/\s?#]+/?",
        "an http:// or https:// address without a path",
    )
    registry_table: str | None = _text(
        None,
        "DynamoDB table of the registry of endpoints and gateways.",
        r"[A-Za-z0-9_.-]{3,255}",
        "the name of a table (3 to 255 letters, digits, '_', '-' and '.')",
    )
    aws_endpoint_url: str | None = _text(
        None,
        "Address of S3 and DynamoDB, such as that of the local stack; unset: AWS itself.",
        r"https?://[^/\s?#]+/?",
        "an http:// or https:// address without a path",
    )
    aws_region: str | None = _text(
        None,
        "AWS region; unset: as AWS's own variables and files say, and `us-east-1` with a local endpoint.",
        r"[a-z]{2,}(-[a-z0-9]+)+",
        "a region such as eu-west-1",
    )
    store_timeout_s: float = _setting(
        5.0, "Longest wait for an answer of S3 or DynamoDB, in seconds; a failed call is tried twice more.", 0.1, 300
    )
    require_samples: str | None = _text(
        "false",
        "Whether a publish refuses rules with a target that has no golden request.",
        "true|false",
        "true or false",
    )
    poll_interval_s: float = _setting(
        2.0, "How often a gateway looks whether another revision is live, in seconds.", 0.05, 3600
    )
    fresh_wait_ms: float = _setting(
        250.0,
        "Longest that requests wait for the live revision to be read, in milliseconds, where a gateway's rules are older than "
        "the poll interval, as they are once a function was frozen; 0: they never wait.",
        0,
        10_000,
    )
    report_interval_s: float = _setting(
        10.0, "How often an endpoint or a gateway tells the registry that it is alive, in seconds.", 0.1, 3600
    )
    silence_timeout_s: float = _setting(
        30.0, "How long the registry believes in an endpoint or a gateway that is silent, in seconds.", 0.2, 86_400
    )
    self_test_interval_s: float = _setting(
        5.0,
        "Longest time between two golden requests that a server is asked by the stack or the shard agent that looks after it, "
        "each live model in turn, in seconds; 0: never.",
        0,
        3600,
    )
    endpoint_networks: str | None = _text(
        "127.0.0.0/8,::1/128",
        "Networks that registered model servers may be in, such as the VPC's; one elsewhere is reported and sent nothing.",
        r"[0-9a-fA-F.:]+/[0-9]{1,3}(,[0-9a-fA-F.:]+/[0-9]{1,3})*",
        "address ranges such as 10.42.0.0/16, separated by commas",
    )

    shard_endpoints: str | None = _text(
        None,
        'Where a deployed gateway reaches each shard: a JSON object of "host:port" by shard; "*" is every other shard, with '
        '"{label}" for its name as a DNS label.',
        r"\s*\{.*\}\s*",
        'a JSON object such as {"alpha": "alpha.internal:80"}',
    )
    shard: str | None = _text(
        None, "Shard of the Triton server that a shard agent looks after.", r"[^\s/]{1,128}", "the name of a shard"
    )
    management_secret: str | None = _text(
        None,
        "Secret that opens the management endpoints of Triton servers which restrict them; unset: `tidegate up` makes one.",
        r"[!-~]{8,256}",
        "a secret of 8 to 256 printable characters without a blank",
        secret=True,
    )
    operator_token: str | None = _text(
        None,
        "Token that opens `GET /v1/fleet` of a gateway, as `Authorization: Bearer` or `Tidegate-Operator`; unset: `tidegate up` "
        "makes one, which commands of the same user find, and a function opens it to nobody.",
        r"[!-~]{16,256}",
        "a token of 16 to 256 printable characters without a blank",
        secret=True,
    )
    management_secret_arn: str | None = _text(
        None,
        "ARN in Secrets Manager of the management secret, for the functions that need it.",
        r"arn:[!-~]{1,2000}",
        "an ARN",
    )
    edge_key: str | None = _text(
        None,
        "Key that CloudFront sends with each request, in `Tidegate-Edge-Key`; set: requests without it are refused (see "
        "`edge_key_enforced`), unset: CloudFront's headers are not believed.",
        r"[!-~]{16,256}",
        "a key of 16 to 256 printable characters without a blank",
        secret=True,
    )
    edge_key_before: str | None = _text(
        None,
        "Another key that is accepted in place of `edge_key`, while it is rotated.",
        r"[!-~]{16,256}",
        "a key of 16 to 256 printable characters without a blank",
        secret=True,
    )
    edge_key_enforced: str | None = _text(
        "true",
        "Whether requests without `edge_key` are refused, where it is set; false while DNS moves to CloudFront or away from it: "
        "CloudFront's headers are believed of requests with the key alone.",
        "true|false",
        "true or false",
    )
    guard_window_s: float = _setting(1800.0, "How long after a publish an alarm takes it back, in seconds.", 1, 604_800)
    caller_claim: str | None = _text(
        "client_id",
        "Claim of the JWT that names the caller; where a token lacks it, its `sub` does.",
        r"[!-~]{1,128}",
        "the name of a claim",
    )
    bundle_file: Path | None = _setting(  # noqa: RUF009  # makes a field
        None, "Bundle that a function serves until it has read the live one, such as one that came with its code."
    )
    log_level: str | None = _text(
        "INFO", "Least severe log lines that a function writes.", "DEBUG|INFO|WARNING|ERROR", "a level such as INFO"
    )
    reconcile_interval_s: float = _setting(
        5.0, "How often the local stack compares its servers with what they must hold, in seconds.", 0.1, 86_400
    )
    probe_interval_s: float = _setting(5.0, "Time between the two readings of a probe, in seconds.", 0.1, 300)
    gpu_metrics_port: int | None = _setting(
        None,
        "Port at which the DCGM exporter beside each Triton server answers the probe; unset: there is none.",
        1,
        65_535,
    )
    facts_table: str | None = _text(
        None,
        "DynamoDB table of the facts that models look up.",
        r"[A-Za-z0-9_.-]{3,255}",
        "the name of a table (3 to 255 letters, digits, '_', '-' and '.')",
    )
    facts_timeout_ms: float = _setting(
        50.0,
        "Time that a model may take to look facts up, in milliseconds, where its config does not say.",
        1,
        60_000,
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `environment` (the process's own where None).

        Raises:
            SettingsError: a value is malformed or out of range, or a `TIDEGATE_*` variable is no setting; the message
                names the variable and says what would be right.
        """
        environment = os.environ if environment is None else environment
        known = {PREFIX + entry.name.upper(): entry for entry in fields(cls)}
        found = {
            name: text
            for name, text in environment.items()
            if name.startswith(PREFIX) and not name.startswith(INFRASTRUCTURE)
        }
        for name in found:
            if name not in known:
                raise SettingsError(f"{name} is no setting{_suggestion(name, known)}")
        return cls(**{known[name].name: _parse(name, text, known[name]) for name, text in found.items()})

    def to_environment(self) -> dict[str, str]:
        """The variables that `from_environment` reads these settings from, secrets included."""
        values = {PREFIX + entry.name.upper(): getattr(self, entry.name) for entry in fields(self)}
        return {name: "" if value is None else str(value) for name, value in values.items()}


def _suggestion(name: str, known: Mapping[str, object]) -> str:
    bare = [each.removeprefix(PREFIX) for each in known]
    near = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1, cutoff=0.6)
    return f"; did you mean {PREFIX}{near[0]}?" if near else f"; the settings are {', '.join(sorted(known))}"


def _parse(name: str, text: str, entry: Field[Any]) -> Any:
    if entry.type == "Path | None":
        return Path(text).expanduser() if text else None
    if entry.type == "str | None":
        if text and not re.fullmatch(entry.metadata["pattern"], text):
            shown = "" if entry.metadata["secret"] else f", not {text!r}"
            raise SettingsError(f"{name} must be {entry.metadata['words']}{shown}")
        return text or None
    if entry.type == "int | None" and not text:
        return None
    kind, words = (int, "a whole number") if entry.type in WHOLE else (float, "a number")
    low, high = entry.metadata["minimum"], entry.metadata["maximum"]
    bounds = f"of at least {low}" if high == math.inf else f"from {low} to {high}"
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high or not math.isfinite(value):
        raise SettingsError(f"{name} must be {words} {bounds}, not {text!r}")
    return value
