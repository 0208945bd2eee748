"""The wiring of the functions that answer HTTP: the local stack's gateway, with AWS around it."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tidegate.aws.authorizer import authorized_caller
from tidegate.aws.cached_pointer import CachedBundleSource
from tidegate.aws.edge_headers import EdgeKeys
from tidegate.aws.gateway_stores import WireBundleSource, WireGatewayReports
from tidegate.aws.http_function import MOST_REQUEST_BYTES, App, HttpFunction, Scope
from tidegate.aws.secrets import read_sequence_key
from tidegate.aws.telemetry import Telemetry
from tidegate.bootstrap import build_gateway, build_tracer
from tidegate.bootstrap.balancers import OFFERED, shard_directory
from tidegate.bootstrap.wires import shadow_queue_of, wire_to
from tidegate.errors import BundleError, SettingsError
from tidegate.files import read_regular
from tidegate.gateway.follower import EngineFollower, FollowerConfig, KnownRules
from tidegate.rules import Engine, load_bundle
from tidegate.rules.bundle import MAX_BYTES
from tidegate.settings import Settings
from tidegate.web.errors import not_found, problem

_log = logging.getLogger("tidegate.function")

Offers = Callable[[str], bool]
"""Returns whether a function answers a path."""

TYPE_VARIABLE = "AWS_LAMBDA_INITIALIZATION_TYPE"
FROM_SNAPSHOT = "snap-start"

Build = Callable[[KnownRules | None], tuple[HttpFunction, EngineFollower]]
"""Wires a function around rules that it may fall back on: the function, and the follower that its rules come from."""

FLUSH_S = 0.5
"""How long an invocation waits for its spans to be exported, since nothing runs after it. What is left goes with the next one's."""


def build_http_function(
    service: str,
    settings: Settings,
    environment: Mapping[str, str],
    offers: Offers | None = None,
    fallback: KnownRules | None = None,
) -> tuple[HttpFunction, EngineFollower]:
    """Wire a function that answers HTTP, and the follower that its rules come from.

    Args:
        environment: where Lambda says region, credentials and the environment's own name.
        offers: which paths it answers (None: all); every other one is a 404.
        fallback: the rules that a snapshot was taken with. They are served only while the store does not answer.

    Raises:
        SettingsError: a setting is missing or malformed.
    """
    telemetry = Telemetry(service, settings.log_level, by_rule=settings.rule_metrics)
    tracer = build_tracer(settings, report_traces)
    follower = build_follower(settings, environment, fallback)
    shadows = shadow_queue_of(settings, environment)
    gateway = build_gateway(
        replace(settings, max_body_bytes=min(settings.max_body_bytes, MOST_REQUEST_BYTES)),
        follower,
        shard_directory(settings.shard_endpoints),
        follower,
        authorized_caller(settings.caller_claim),
        telemetry.observe,
        shadows=shadows,
        write_line=None if settings.access_log == "off" else telemetry.log_request,
        streams=False,
        sequence_key=_sequence_key(settings, environment),
        tracer=tracer,
        authorizes=offers is not None,
    )
    if follower.revision is None or fallback is not None:
        _read_first(follower)
    app = gateway.app if offers is None else _only(gateway.app, offers)

    def flush_shadows() -> Counter[str]:
        counts = gateway.shadow_counts.copy()
        gateway.shadow_counts.clear()
        return counts if shadows is None else counts + shadows.flush(gateway.shadow_pairs)

    breakers = gateway.dispatcher.open_breakers
    flush_traces = None if tracer is None else partial(tracer.flush, FLUSH_S)
    function = HttpFunction(app, follower, telemetry, breakers, _edge_keys(settings), flush_shadows, flush_traces)
    return function, follower


def report_traces(text: str) -> None:
    """Log what became of spans that were lost."""
    _log.warning("%s", text)


def _edge_keys(settings: Settings) -> EdgeKeys | None:
    if settings.edge_key is None:
        return None
    keys = (settings.edge_key, settings.edge_key_before)
    return EdgeKeys(tuple(each for each in keys if each is not None), settings.edge_key_enforced)


def _sequence_key(settings: Settings, environment: Mapping[str, str]) -> Callable[[], str] | None:
    """Return what reads the key of sequence ids from Secrets Manager; None: the settings have it, or there is none.

    It is read with the first sequence of a named caller: an environment without one waits for nothing, and a snapshot does not
    hold it. An environment has one request at a time, so no other request waits meanwhile.
    """
    arn = settings.sequence_key_arn
    if settings.sequence_key is not None or arn is None:
        return None
    wire = wire_to("secretsmanager", settings, environment)
    return lambda: read_sequence_key(wire, arn, settings.sequence_key_version)


def _only(app: App, offers: Offers) -> App:
    async def offered(scope: Scope, receive: Any, send: Any) -> None:
        if offers(scope["path"]):
            await app(scope, receive, send)
        else:
            await problem(not_found(f"this function answers only {OFFERED}"))(scope, receive, send)

    return offered


class PreparedFunction:
    """A handler that wires its function with the first event; where a snapshot (Lambda's SnapStart) will be taken, before it
    and after it.

    The same snapshot becomes many environments, hours or days later. What was wired before it would share its random numbers
    and its name in the registry, hold dead connections and old credentials, and take old rules for live. So a restored
    environment keeps only what it imported, and the rules as a last resort: it has read the live bundle before its first
    request. https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
    """

    def __init__(self, build: Build, environment: Mapping[str, str]) -> None:
        self._build = build
        self._function: HttpFunction | None = None
        self._follower: EngineFollower | None = None
        if environment.get(TYPE_VARIABLE) == FROM_SNAPSHOT:
            # The runtime ships it from Python 3.12 on; nothing else needs it.
            from snapshot_restore_py import register_after_restore

            self._wire()
            self._stop()  # a report would name an environment that never answers
            register_after_restore(self._restored)

    def __call__(self, event: Any, context: Any) -> dict[str, Any]:
        return (self._function or self._wire())(event, context)

    def _wire(self) -> HttpFunction:
        fallback = None if self._follower is None else self._follower.known
        self._function, self._follower = self._build(fallback)
        return self._function

    def _stop(self) -> None:
        if self._follower is not None:
            self._follower.stop()

    def _restored(self) -> None:
        random.seed()
        self._stop()
        self._wire()
        _log.info("restored from a snapshot")


def prepared_function(service: str, offers: Offers | None = None) -> PreparedFunction:
    """Return the handler of a function, wired with the first event, or before a snapshot and after it."""

    def build(fallback: KnownRules | None) -> tuple[HttpFunction, EngineFollower]:
        return build_http_function(service, Settings.from_environment(), os.environ, offers, fallback)

    return PreparedFunction(build, os.environ)


def build_follower(
    settings: Settings, environment: Mapping[str, str], fallback: KnownRules | None = None
) -> EngineFollower:
    """Wire the follower of the live bundle in S3; it begins with `fallback`, or with the bundle that came with the asset."""
    if settings.bucket is None:
        raise SettingsError("TIDEGATE_BUCKET must be set")
    initial = fallback
    if initial is None and settings.bundle_file is not None:
        # When these were live is unknown: their age counts from the start of the process.
        initial = KnownRules(_engine_of(settings.bundle_file), time.time())
    stored = WireBundleSource(wire_to("s3", settings, environment), settings.bucket)
    cache_url, cached_s = settings.pointer_cache_url, settings.pointer_cache_s
    source = stored if cache_url is None else CachedBundleSource(stored, cache_url, cached_s)
    reports = None
    if settings.registry_table is not None:
        wire = wire_to("dynamodb", settings, environment)
        reports = WireGatewayReports(wire, settings.registry_table, settings.silence_timeout_s)
    # The name of the log stream is the one name that an execution environment has.
    name = environment.get("AWS_LAMBDA_LOG_STREAM_NAME") or f"environment-{os.urandom(8).hex()}"
    config = FollowerConfig(
        poll_interval_s=settings.poll_interval_s,
        report_interval_s=settings.report_interval_s,
        fresh_wait_s=settings.fresh_wait_ms / 1000,
        cached_s=0.0 if cache_url is None else cached_s,
    )
    return EngineFollower(source, name, reports, initial, config)


def _engine_of(file: Path) -> Engine:
    try:
        return load_bundle(read_regular(file, MAX_BYTES))
    except (OSError, BundleError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(f"TIDEGATE_BUNDLE_FILE: {file} cannot be read: {reason}") from error


def _read_first(follower: EngineFollower) -> None:
    """Read the live bundle before the first request, on the event loop that will answer it."""
    event_loop().run_until_complete(follower.poll())


def event_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop on which Mangum runs the app; Python 3.14 makes none by itself."""
    try:
        loop = asyncio.get_event_loop_policy().get_event_loop()
    except RuntimeError:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
    return loop
