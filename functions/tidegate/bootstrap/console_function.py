"""Wires the console of a deployment: the app of the local stack, with CloudWatch in place of what a gateway's process counts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from tidegate.aws.authorizer import authorized_caller
from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.http_function import App, HttpFunction, NoRules, Scope
from tidegate.aws.metric_reads import MetricReads
from tidegate.aws.secrets import with_management_secret
from tidegate.aws.telemetry import Telemetry, metrics_namespace
from tidegate.bootstrap import build_transport
from tidegate.bootstrap.control import build_control_plane, shadow_pairs
from tidegate.bootstrap.fleet_reports import FleetReports
from tidegate.bootstrap.functions import event_loop
from tidegate.console.cloudwatch import CloudWatchTraffic
from tidegate.console.console import Console
from tidegate.console.sources import ConsoleSources
from tidegate.control.status import read_status
from tidegate.gateway.grants import CallerOf
from tidegate.settings import Settings
from tidegate.web.console.app import create_console
from tidegate.web.console.paths import PAGE
from tidegate.web.errors import operators_only, problem

STATUS_S = 10.0
"""The longest wait for the fleet's status: a new environment makes its clients meanwhile."""


def build_console_function(settings: Settings) -> HttpFunction:
    """Wire the function. Without the management secret it asks no server: their state is what they report to the registry.

    Raises:
        SettingsError: a setting is missing or malformed.
        StoreError: the management secret cannot be read.
    """
    settings = with_management_secret(settings)
    plane = build_control_plane(settings, build_transport(settings))
    reads = MetricReads(AwsClients(AwsConfig.from_settings(settings)), metrics_namespace())
    asks = settings.management_secret is not None
    sources = ConsoleSources(
        status=partial(_status, FleetReports(partial(read_status, plane, asks=asks), STATUS_S), asks),
        plane=plane,
        traffic=CloudWatchTraffic(reads),
        pairs=partial(shadow_pairs, settings),
        writes=settings.console_writes,
        asks=asks,
        stops_after_answers=True,
    )
    operator_of = authorized_caller(settings.caller_claim)
    app = create_console(
        Console(sources),
        # `_authorized` has checked.
        admit=lambda _headers: None,
        author_of=lambda scope: f"{operator_of(scope)} (console)",
    )
    event_loop()
    return HttpFunction(_authorized(app, operator_of), NoRules(), Telemetry("console", settings.log_level))


def _authorized(app: App, operator_of: CallerOf) -> App:
    """Refuse requests that no authorizer let through, but for the page itself: a browser opens that without a token.

    The routes of the API have the authorizer. This holds also where somebody adds a route without.
    """

    async def checked(scope: Scope, receive: Any, send: Any) -> None:
        path = scope["path"]
        if path != PAGE and not path.startswith(f"{PAGE}/") and operator_of(scope) is None:
            await problem(operators_only())(scope, receive, send)
        else:
            await app(scope, receive, send)

    return checked


async def _status(reports: FleetReports, asks: bool) -> Mapping[str, Any]:
    """Return the fleet's status; `asked` says whether the servers were asked what they have loaded."""
    return {**await reports.latest(), "asked": asks}
