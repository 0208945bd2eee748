"""The settings: one frozen dataclass, read from `TIDEGATE_*` environment variables with the standard library alone.

The variable of a field is its name in capitals after `TIDEGATE_`: `default_timeout_ms` is `TIDEGATE_DEFAULT_TIMEOUT_MS`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tidegate import setting_kinds as kinds
from tidegate.errors import SettingsError

PREFIX = "TIDEGATE_"
INFRASTRUCTURE = "TIDEGATE_INFRA_"
"""Prefix of the variables of the infrastructure's own settings, which are not these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting with its default; `metadata["doc"]` of a field says what it means and in which unit."""

    default_timeout_ms: int = kinds.whole(
        10_000,
        "Deadline of a request, in milliseconds, where neither caller, rule nor objective sets one.",
        1,
        3_600_000,
    )
    max_body_bytes: int = kinds.whole(64 * 1024 * 1024, "Largest request body that is accepted, in bytes.", 1)
    max_buffered_bytes: int = kinds.whole(
        512 * 1024 * 1024,
        "Most bytes of request bodies and of models' answers that a gateway holds at one time, over all requests.",
        1024 * 1024,
    )
    max_json_bytes: int = kinds.whole(
        4 * 1024 * 1024,
        "Most JSON of a request to `/v2`, in bytes, without the tensors in binary after it: servers parse it slowly, and hold "
        "up others' requests meanwhile.",
        1024,
    )
    stream_above_bytes: int = kinds.whole(
        512 * 1024,
        "Size of a request's or an answer's body, in bytes, above which it is passed on as it comes and not held, where nothing "
        "needs it whole.",
        65_536,
    )
    stream_idle_ms: int = kinds.whole(
        30_000, "How long a stream of a model's responses may pause, in milliseconds; then it ends with an error.", 1
    )
    stream_most_ms: int = kinds.whole(
        600_000, "How long a stream may take from its first byte, in milliseconds; then it ends with an error.", 1
    )
    max_v1_body_bytes: int = kinds.whole(
        8 * 1024 * 1024, "Largest body of a request to `/v1`, in bytes: its JSON is parsed as a whole.", 1024
    )
    max_v1_values: int = kinds.whole(1_000_000, "Most values in the inputs of one request to `/v1`.", 1)
    model_errors: str | None = kinds.text(
        None,
        "What callers see of an error that a model raised: redacted (a short text and the id of the whole one in the log) or "
        "passed; unset: redacted, and passed by the local stack.",
        "redacted|passed",
        "redacted or passed",
    )
    bundle_readers: str | None = kinds.text(
        None,
        "Who may read all the rules and the addresses of shards (`GET /v1/bundle`, `GET /v1/shards`), to decide in their own process: "
        "granted (callers with `bundle: true` in callers.yaml, and operators), unlisted (also everyone while there is no callers.yaml) or "
        "everyone; unset: granted, and unlisted by the local stack.",
        "granted|unlisted|everyone",
        "granted, unlisted or everyone",
    )
    max_connections: int = kinds.whole(
        1024,
        "Open connections of callers to the local gateway; half of the process's descriptors are the limit where that is "
        "less. Above it the longest idle one is closed, or else the new one gets a 503.",
        1,
        1_000_000,
    )
    max_rpcs: int = kinds.whole(
        1024,
        "Most RPCs that the local gateway answers at one time over gRPC, streams included; more end with RESOURCE_EXHAUSTED.",
        1,
        100_000,
    )
    cancel_rpcs: bool = kinds.switch(
        "Whether a unary RPC that no caller waits for any longer is cancelled at the Triton server, and has its deadline there; "
        "servers before 25.03 can crash on it.",
        default=False,
    )
    max_header_bytes: int = kinds.whole(
        65_536,
        "Largest request line and headers together that the local gateway reads, in bytes; more is a 431.",
        1024,
        1024 * 1024,
    )
    header_timeout_s: float = kinds.number(
        10.0,
        "Longest that a request's headers may take to arrive at the local gateway, from their first byte, in seconds.",
        0.1,
        3600,
    )
    body_timeout_s: float = kinds.number(
        30.0,
        "How long a request's body may bring less than 500 bytes per second to the local gateway, in seconds.",
        0.1,
        3600,
    )
    write_timeout_s: float = kinds.number(
        30.0,
        "How long a caller of the local gateway may take less than 500 bytes per second of its answer, in seconds.",
        0.1,
        3600,
    )
    idle_timeout_s: float = kinds.number(
        75.0, "How long the local gateway keeps a connection open without a request, in seconds.", 0.1, 86_400
    )
    connect_timeout_ms: int = kinds.whole(250, "Time to open a connection to an endpoint, in milliseconds.", 1, 60_000)
    pool_connections_per_endpoint: int = kinds.whole(64, "Idle connections kept open to each endpoint.", 0, 10_000)
    max_connections_per_endpoint: int = kinds.whole(256, "Most connections open to each endpoint.", 1, 10_000)
    max_response_bytes: int = kinds.whole(64 * 1024 * 1024, "Largest answer of a model that is passed on, in bytes.", 1)
    max_in_flight: int = kinds.whole(
        256,
        "Most requests in flight for one model on one endpoint; the measured limit of a gateway stays below it.",
        1,
        10_000,
    )
    access_log: str | None = kinds.text(
        None,
        "Where the local gateway logs each request that names an objective, as a line of JSON: the path of a file, stdout or off; "
        "unset: off. A function writes it to its log, unless it is off.",
        r"\S.{0,4095}",
        "a path, stdout or off",
    )
    access_log_percent: float = kinds.number(
        100.0,
        "Share of the answered, decided and refused requests that are logged, in percent; those that failed, that a fallback answered or "
        "whose caller left always are.",
        0,
        100,
    )
    tracing: str = kinds.text(
        "off",
        "Whether spans of requests are exported to an OpenTelemetry collector: off or otlp (over HTTP, by OpenTelemetry's own "
        "variables such as OTEL_EXPORTER_OTLP_ENDPOINT; needs the extra `tracing`).",
        "off|otlp",
        "off or otlp",
    )
    rule_metrics: bool = kinds.switch(
        "Whether the gateway's function emits metrics by objective, and by rule, variant and model, which the console of a deployment "
        "shows; each metric has a price.",
        default=False,
    )
    max_active_requests: int = kinds.whole(
        1024,
        "Most requests under way at a time in a gateway's process; the limit falls, to 64 at least, while its event loop is late.",
        1,
        1_000_000,
    )
    limit_shares: int = kinds.whole(
        1,
        "How many processes share the limits of callers and objectives, such as the execution environments of the gateway's "
        "function: each enforces its share.",
        1,
        100_000,
    )
    queue_ms: int = kinds.whole(
        1000,
        "Longest wait of a request for capacity of a model on an endpoint, in milliseconds; then the next target is tried.",
        0,
        600_000,
    )
    slow_start_ms: int = kinds.whole(
        10_000,
        "How long an endpoint that came back takes to get its full share of the requests, in milliseconds; 0: at once.",
        0,
        3_600_000,
    )
    ejection_ms: int = kinds.whole(
        30_000,
        "How long a model gets no requests on an endpoint where it fails or takes far more than on the others, in milliseconds; 0: never. It grows each time, up to five minutes.",
        0,
        300_000,
    )
    quarantine_s: float = kinds.number(
        600.0, "How long a request that has crashed two servers is refused, in seconds; 0: never.", 0, 86_400
    )
    breaker_failures: int = kinds.whole(
        5, "Consecutive failures of a model on an endpoint that open its breaker there.", 1, 10_000
    )
    breaker_open_ms: int = kinds.whole(
        1000,
        "How long a breaker stays open before the model is asked whether it is ready, in milliseconds; it doubles each time, up to "
        "30 s.",
        1,
        600_000,
    )
    resolver_timeout_ms: int = kinds.whole(
        500,
        "How long Envoy waits for a decision, in milliseconds, and a third of that for one resolver; then a request gets what its objective declares as `degraded`, else a 503.",
        1,
        60_000,
    )
    attempt_share: float = kinds.number(
        0.5, "Share of the time left that one attempt may use while another target could still be tried.", 0.01, 1
    )
    retry_budget_percent: float = kinds.number(20.0, "Retries allowed, in percent of the requests.", 0, 100)
    shadow_timeout_ms: int = kinds.whole(
        10_000,
        "Longest that a copy for a shadow waits for its turn, and again for its answer, in milliseconds.",
        1,
        600_000,
    )
    shadow_in_flight: int = kinds.whole(
        8, "Most copies in flight for each shadow; further ones wait for their turn.", 1, 1_000
    )
    shadow_waiting: int = kinds.whole(
        64, "Most copies that wait for each shadow; further ones are dropped and counted.", 0, 100_000
    )
    shadow_buffered_bytes: int = kinds.whole(
        64 * 1024 * 1024,
        "Most bytes of copies for shadows and of their answers that a gateway holds at one time; further ones are dropped and counted.",
        1024 * 1024,
    )
    shadow_carrier: str = kinds.text(
        "process",
        "What carries copies for shadows out in a local stack: process (one beside the gateway) or queue (SQS and S3 in memory and the "
        "function `shadow`, as on AWS).",
        "process|queue",
        "process or queue",
    )
    shadow_queue_url: str | None = kinds.text(
        None,
        "Address of the queue in SQS that a function sends copies for shadows to; unset: it makes none. A local stack makes its own queue: see "
        "`shadow_carrier`.",
        r"https?://[!-~]{1,1000}",
        "an http:// or https:// address",
    )
    shadow_send_timeout_ms: int = kinds.whole(
        250,
        "Longest wait of a function for an answer of the queue, and of S3 for a large copy, in milliseconds: its caller waits, too.",
        10,
        5_000,
    )
    load_timeout_s: float = kinds.number(30.0, "Time that loading one model may take, in seconds.", 0.1, 3600)
    server_start_timeout_s: float = kinds.number(
        30.0, "Time that one Triton server may take to start, in seconds.", 1, 3600
    )
    hung_after_s: float = kinds.number(
        10.0,
        "How long a running Triton server may leave health requests unanswered before it is replaced, in seconds; after two it gets no requests.",
        5,
        3600,
    )
    scratch_memory_mb: int | None = kinds.whole(
        None,
        "Most memory, in MiB, of the scratch server on this machine, which tries new models; unset: half of what is free.",
        256,
        1_000_000_000,
    )
    drain_timeout_s: float = kinds.number(
        10.0, "How long models and servers that no rule needs are kept for requests in flight, in seconds.", 0, 3600
    )
    keep_revisions: int = kinds.whole(
        3,
        "Earlier revisions, none marked bad, whose models stay loaded, so that a rollback to them is one write.",
        0,
        49,
    )
    triton_home: Path | None = kinds.path(  # noqa: RUF009  # makes a field
        "Folder with Triton's `bin/tritonserver`, `backends/` and `python_backend_stubs/`; unset: pytriton's wheel."
    )
    cache_dir: Path | None = kinds.path(  # noqa: RUF009  # makes a field
        "Folder of the cache for built files; unset: `$XDG_CACHE_HOME/tidegate` or `~/.cache/tidegate`."
    )
    bucket: str | None = kinds.text(
        None,
        "S3 bucket of the pushed models and the bundles.",
        r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
        "the name of a bucket (3 to 63 lower-case letters, digits, '.' and '-')",
    )
    stack: str | None = kinds.url(
        "Address of the running stack for commands without an option that names one; unset: `http://127.0.0.1:8080`, if a stack answers there."
    )
    registry_table: str | None = kinds.table_name("DynamoDB table of the registry of endpoints and gateways.")
    aws_endpoint_url: str | None = kinds.url(
        "Address of S3 and DynamoDB, such as that of the local stack; unset: AWS itself."
    )
    aws_region: str | None = kinds.text(
        None,
        "AWS region; unset: from AWS's own variables and files, and `us-east-1` with a local endpoint.",
        r"[a-z]{2,}(-[a-z0-9]+)+",
        "a region such as eu-west-1",
    )
    store_timeout_s: float = kinds.number(
        5.0, "Longest wait for an answer of S3 or DynamoDB, in seconds; a failed call is tried twice more.", 0.1, 300
    )
    require_samples: bool = kinds.switch(
        "Whether a publish refuses rules with a target that has no golden request.", default=False
    )
    poll_interval_s: float = kinds.number(
        2.0, "How often a gateway polls for the live revision, in seconds.", 0.05, 3600
    )
    pointer_cache_url: str | None = kinds.text(
        None,
        "Address of an HTTP cache of the pointer to the live revision, such as a shard agent's `/pointer`; a gateway's function polls "
        "it in place of S3. Unset: S3 is polled.",
        r"https?://[^/\s?#]+(/[^\s?#]*)?",
        "an http:// or https:// address without a query",
    )
    pointer_cache_s: float = kinds.number(
        2.0,
        "Oldest answer of `pointer_cache_url` that counts, in seconds by its header `Age` (one without is taken for that old); above "
        "it, and where the cache does not answer, S3 is polled.",
        0,
        3600,
    )
    fresh_wait_ms: float = kinds.number(
        250.0,
        "Longest wait of a request for the live revision, in milliseconds, if the rules are older than the poll interval, as after a function was frozen; 0: none.",
        0,
        10_000,
    )
    report_interval_s: float = kinds.number(
        10.0, "How often an endpoint or a gateway reports to the registry, in seconds.", 0.1, 3600
    )
    silence_timeout_s: float = kinds.number(
        30.0, "How long an endpoint or a gateway counts as alive after its last report, in seconds.", 0.2, 86_400
    )
    self_test_interval_s: float = kinds.number(
        5.0,
        "Longest interval between two golden requests of the self-test of a server, each for the next live model, in seconds; 0: no self-test.",
        0,
        3600,
    )
    endpoint_networks: str = kinds.text(
        "127.0.0.0/8,::1/128",
        "Networks of registered model servers, such as the VPC's; a server elsewhere is reported, and gets no requests.",
        r"[0-9a-fA-F.:]+/[0-9]{1,3}(,[0-9a-fA-F.:]+/[0-9]{1,3})*",
        "address ranges such as 10.42.0.0/16, separated by commas",
    )

    shard_endpoints: str | None = kinds.text(
        None,
        'Where a deployed gateway reaches each shard: a JSON object of "host:port" by shard; "*" is every other shard, with '
        '"{label}" for its name as a DNS label.',
        r"\s*\{.*\}\s*",
        'a JSON object such as {"alpha": "alpha.internal:80"}',
    )
    shard: str | None = kinds.text(
        None, "Shard of the Triton server that a shard agent looks after.", r"[^\s/]{1,128}", "the name of a shard"
    )
    management_secret: str | None = kinds.secret(
        "secret",
        "Secret for the restricted management endpoints of Triton servers; unset: `tidegate up` generates one.",
        fewest=8,
    )
    operator_token: str | None = kinds.secret(
        "token",
        "Token that opens `GET /v1/fleet` of a gateway, as `Authorization: Bearer` or `Tidegate-Operator`; unset: `tidegate up` "
        "makes one, which commands of the same user find, and a function refuses every request for it.",
    )
    console: bool = kinds.switch(
        "Whether a local stack serves the console at `/console`, and the operators' paths beside `GET /v1/fleet`.",
        default=True,
    )
    console_writes: bool = kinds.switch(
        "Whether the console may change what is live: roll back. Everything else in it only reads.", default=False
    )
    sequence_key: str | None = kinds.secret(
        "key",
        "Key that keeps the sequence ids which callers have at the models' servers unpredictable; the same for all gateways before "
        "the same servers. Unset: `tidegate up` makes one, and a function reads that of `sequence_key_arn`.",
    )
    sequence_key_arn: str | None = kinds.text(
        None,
        "ARN in Secrets Manager of the sequence key, which a function reads with its first sequence of a named caller; unset: it has "
        "none.",
        r"arn:[!-~]{1,2000}",
        "an ARN",
    )
    sequence_key_version: str | None = kinds.text(
        None, "Version of that secret; unset: the current one.", r"[A-Za-z0-9-]{32,64}", "the id of a version"
    )
    management_secret_arn: str | None = kinds.text(
        None,
        "ARN in Secrets Manager of the management secret, for the functions that need it.",
        r"arn:[!-~]{1,2000}",
        "an ARN",
    )
    edge_key: str | None = kinds.secret(
        "key",
        "Key that CloudFront sends with each request, in `Tidegate-Edge-Key`; set: requests without it are refused (see "
        "`edge_key_enforced`), unset: CloudFront's headers are not trusted.",
    )
    edge_key_before: str | None = kinds.secret(
        "key", "Another key that is accepted instead of `edge_key`, during a rotation."
    )
    edge_key_enforced: bool = kinds.switch(
        "Whether requests without `edge_key` are refused, where it is set; false while DNS moves to CloudFront or away from it: "
        "CloudFront's headers are trusted only with the key.",
        default=True,
    )
    guard_window_s: float = kinds.number(
        1800.0, "How long after a publish an alarm rolls it back, in seconds.", 1, 604_800
    )
    caller_claim: str = kinds.text(
        "client_id",
        "Claim of the JWT that names the caller; where a token lacks it, its `sub` does.",
        r"[!-~]{1,128}",
        "the name of a claim",
    )
    jwt_issuer: str | None = kinds.text(
        None,
        "Issuer (`iss`) of the tokens that Envoy asks callers for; unset: Envoy trusts `Tidegate-Caller`.",
        r"[!-~]{1,2048}",
        "the `iss` of tokens",
    )
    jwt_audience: str | None = kinds.text(
        None,
        "Accepted `aud` of these tokens, or `client_id` of a token without `aud`.",
        r"[!-~]+( [!-~]+)*",
        "values separated by blanks",
    )
    jwt_scopes: str | None = kinds.text(
        None, "Scopes of which these tokens need one.", r"[!-~]+( [!-~]+)*", "scopes separated by blanks"
    )
    jwks_uri: str | None = kinds.text(
        None,
        "Where the issuer publishes its keys, which Envoy verifies tokens with.",
        r"https?://[^/\s?#@]+(/[!-~]*)?",
        "an http:// or https:// address",
    )
    jwks_ca_file: Path = kinds.path(  # noqa: RUF009  # makes a field
        "Certificate authorities that the address of these keys is verified by.", "/etc/ssl/certs/ca-certificates.crt"
    )
    bundle_file: Path | None = kinds.path(  # noqa: RUF009  # makes a field
        "Bundle that a function serves until it has read the live one, such as one that came with its code."
    )
    log_level: str = kinds.text(
        "INFO", "Least severe log lines that a function writes.", "DEBUG|INFO|WARNING|ERROR", "a level such as INFO"
    )
    reconcile_interval_s: float = kinds.number(
        5.0, "How often the local stack compares its servers with what they must hold, in seconds.", 0.1, 86_400
    )
    probe_interval_s: float = kinds.number(5.0, "Time between the two readings of a probe, in seconds.", 0.1, 300)
    gpu_metrics_port: int | None = kinds.whole(
        None,
        "Port at which the DCGM exporter beside each Triton server answers the probe; unset: there is none.",
        1,
        65_535,
    )
    facts_table: str | None = kinds.table_name("DynamoDB table of the facts that models look up.")
    facts_timeout_ms: float = kinds.number(
        50.0, "Time that a model may take to look up facts, in milliseconds, unless its config sets it.", 1, 60_000
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from `environment` (the process's own where None).

        Raises:
            SettingsError: a value is malformed or out of range, or a `TIDEGATE_*` variable is not a setting; the message
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
                raise SettingsError(f"{name} is not a setting{_suggestion(name, known)}")
        values = {}
        for name, text in found.items():
            try:
                values[known[name].name] = known[name].metadata["parse"](text)
            except ValueError as error:
                raise SettingsError(f"{name} must be {error}") from None
        return cls(**values)

    def to_environment(self) -> dict[str, str]:
        """The variables that `from_environment` reads these settings from, secrets included."""
        values = {PREFIX + entry.name.upper(): getattr(self, entry.name) for entry in fields(self)}
        return {name: "" if value is None else as_text(value) for name, value in values.items()}


def as_text(value: Any) -> str:
    """Return a setting's value as its variable has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _suggestion(name: str, known: Mapping[str, object]) -> str:
    bare = [each.removeprefix(PREFIX) for each in known]
    import difflib  # by the start that fails alone

    near = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1, cutoff=0.6)
    return f"; did you mean {PREFIX}{near[0]}?" if near else f"; the settings are {', '.join(sorted(known))}"
