"""Checks beyond the type of a single setting: settings that contradict each other, and values that AWS or a process refuses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from tidegate.aws.shadow_queue import BATCH_SPARE_MS
from tidegate.errors import SettingsError
from tidegate.settings import PREFIX
from tidegate.settings import Settings as ProcessSettings

from infra.settings import Settings, process_variables

LOG_RETENTION_DAYS = (1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 3653)
"""The retentions that CloudWatch Logs knows."""

PRIVATE_NETWORKS = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
"""What callers may connect from: private networks, and the shared addresses that AWS allows in a VPC too."""

OWN_VARIABLES = frozenset(
    {
        "aws_endpoint_url",
        "aws_region",
        "bucket",
        "bundle_file",
        "cache_dir",
        "caller_claim",
        "console",
        "console_writes",
        "endpoint_networks",
        "edge_key",
        "edge_key_before",
        "edge_key_enforced",
        "facts_table",
        "gpu_metrics_port",
        "jwks_ca_file",
        "jwks_uri",
        "jwt_audience",
        "jwt_issuer",
        "jwt_scopes",
        "management_secret",
        "management_secret_arn",
        "registry_table",
        "rule_metrics",
        "sequence_key",
        "sequence_key_arn",
        "sequence_key_version",
        "shard",
        "shard_endpoints",
        "triton_home",
    }
)
"""Settings of the processes that follow from the templates, or mean nothing in the cloud."""


Conflict = tuple[tuple[str, ...], str, str]
"""(path of the setting, what is wrong, what would be right)."""


def conflicts(settings: Settings) -> list[Conflict]:
    """Return the settings that contradict each other, or that AWS or a process refuses."""
    checks = (
        _of_network,
        _of_observability,
        _of_servers,
        _of_entry,
        _of_console,
        _of_data_plane,
        _of_functions,
        _of_variables,
        _of_pointer_cache,
        _of_shadows,
        _of_tags,
    )
    return [found for check in checks for found in check(settings)]


def _of_network(settings: Settings) -> Iterator[Conflict]:
    try:
        network = ipaddress.IPv4Network(settings.vpc_cidr)
        private = network.is_private and 16 <= network.prefixlen <= 20
    except ValueError:
        private = False
    if not private:
        hint = "write a private IPv4 range from /16 to /20 whose host bits are 0, such as 10.42.0.0/16"
        yield ("vpc_cidr",), f"{settings.vpc_cidr!r} is not an address range for the VPC", hint
    if settings.nat_gateways > settings.availability_zones:
        message = "there are more NAT gateways than availability zones"
        yield ("nat_gateways",), message, f"write at most {settings.availability_zones}"


def _of_observability(settings: Settings) -> Iterator[Conflict]:
    if settings.log_retention_days not in LOG_RETENTION_DAYS:
        days = ", ".join(map(str, LOG_RETENTION_DAYS))
        message = f"CloudWatch Logs has no retention of {settings.log_retention_days} days"
        yield ("log_retention_days",), message, f"write one of {days}"
    if settings.metrics_namespace.lower().startswith("aws/"):
        message = f"CloudWatch keeps namespaces such as {settings.metrics_namespace!r} for AWS's own metrics"
        yield ("metrics_namespace",), message, "write one that does not begin with AWS/"


def _of_servers(settings: Settings) -> Iterator[Conflict]:
    mibps, iops = settings.triton.root_volume_mibps, settings.triton.root_volume_iops
    if mibps > iops / 4:
        message = f"a disk of {iops} operations a second has at most {iops // 4} MiB/s"
        yield ("triton", "root_volume_mibps"), message, f"write root_volume_iops: {4 * mibps} or more"


def _of_entry(settings: Settings) -> Iterator[Conflict]:
    if settings.domain is not None and settings.entry_point == "function_url":
        message = "a Function URL cannot have a domain name of its own"
        yield ("domain",), message, "delete it, or set entry_point: http_api"
    if settings.cloudfront is None:
        return
    versions = settings.cloudfront.key_versions
    if len(set(versions)) != len(versions):
        yield ("cloudfront", "key_versions"), "a version is named twice", "name each once"
    if settings.domain is None:
        yield ("cloudfront",), "CloudFront needs a domain", "set domain: both have the same name"
    if settings.entry_point != "http_api":
        yield ("cloudfront",), "CloudFront needs the HTTP API as the only address", "set entry_point: http_api"
    if settings.authorizer.kind != "jwt":
        message = "CloudFront needs tokens: a signature is for another host"
        yield ("cloudfront",), message, "set authorizer: {kind: jwt, …}"


def _of_console(settings: Settings) -> Iterator[Conflict]:
    console, callers = settings.console, settings.authorizer
    if console is None or console.authorizer.kind != "jwt" or callers.kind != "jwt":
        return
    operators = console.authorizer
    has_own_audience = operators.issuer != callers.issuer or not set(operators.audience) & set(callers.audience)
    has_own_scopes = operators.scopes and not set(operators.scopes) & set(callers.scopes)
    if not has_own_audience and not has_own_scopes:
        message = "the tokens of callers would open the console"
        hint = "write an audience that callers' tokens do not have, or scopes that they do not have"
        yield ("console", "authorizer"), message, hint


def _of_data_plane(settings: Settings) -> Iterator[Conflict]:
    envoy = settings.envoy
    if settings.data_plane == "envoy" and envoy is None:
        yield ("data_plane",), "Envoy's tasks are not described", "set envoy: {certificate_arn: …, jwks_uri: …}"
    if settings.data_plane != "envoy" or envoy is None:
        return
    if settings.authorizer.kind != "jwt":
        message = "Envoy cannot verify signatures of requests"
        yield ("data_plane",), message, "set authorizer: {kind: jwt, …}"
    elif any(re.search(r"\s", each) for each in (*settings.authorizer.audience, *settings.authorizer.scopes)):
        yield ("authorizer",), "a blank is in an audience or a scope", "write each without blanks"
    if not settings.nat_gateways:
        message = "Envoy reads the issuer's keys from the internet, which nothing reaches without a NAT gateway"
        yield ("data_plane",), message, f"set nat_gateways: {settings.availability_zones}, or 1"
    if urlsplit(envoy.jwks_uri).port not in (None, 443):
        yield ("envoy", "jwks_uri"), "the security group of Envoy lets it connect to port 443 alone", "write no port"
    if envoy.min_tasks > envoy.max_tasks:
        yield ("envoy", "min_tasks"), "min_tasks is above max_tasks", f"write at most {envoy.max_tasks}"
    if not 2 * envoy.cpu_units <= envoy.memory_mib <= 8 * envoy.cpu_units:
        message = f"Fargate has no task of {envoy.cpu_units} CPU units and {envoy.memory_mib} MiB"
        yield ("envoy", "memory_mib"), message, f"write {2 * envoy.cpu_units} to {8 * envoy.cpu_units}"
    for text in envoy.caller_networks or ():
        if not _is_private(text):
            hint = "write a private IPv4 range whose host bits are 0, such as 10.0.0.0/8"
            yield ("envoy", "caller_networks"), f"{text!r} is not a private address range", hint


def _is_private(text: str) -> bool:
    try:
        return any(ipaddress.IPv4Network(text).subnet_of(each) for each in PRIVATE_NETWORKS)
    except ValueError:
        return False


def _of_functions(settings: Settings) -> Iterator[Conflict]:
    for name, function in (("gateway", settings.gateway), ("resolve", settings.resolve)):
        reserved = function.reserved_concurrency
        if reserved is not None and function.provisioned_concurrency > reserved:
            message = "provisioned_concurrency is above reserved_concurrency"
            yield (name, "provisioned_concurrency"), message, f"write at most {reserved}"
        if function.snap_start and function.provisioned_concurrency:
            message = "a function has either environments that are kept ready or SnapStart"
            yield (name, "snap_start"), message, "delete it, or provisioned_concurrency"


def _of_shadows(settings: Settings) -> Iterator[Conflict]:
    """A batch sends no copy unless there is time for it, and to store what was counted."""
    try:
        timeout_ms = ProcessSettings.from_environment(process_variables(settings)).shadow_timeout_ms
    except SettingsError:
        # `_of_variables` reports it.
        return
    least_s = (timeout_ms + BATCH_SPARE_MS) / 1000
    if settings.shadows and settings.control.shadow_timeout_s <= least_s:
        message = f"a batch would send no copy: a single one, and storing what was counted, may take {least_s:g} s"
        hint = f"write more than {least_s:g}, or a smaller shadow_timeout_ms below variables"
        yield ("control", "shadow_timeout_s"), message, hint


def _of_variables(settings: Settings) -> Iterator[Conflict]:
    for name, value in settings.variables.items():
        at = ("variables", name)
        if name in OWN_VARIABLES:
            yield at, f"{name!r} is set by the templates themselves", "delete it"
            continue
        try:
            ProcessSettings.from_environment({PREFIX + name.upper(): str(value)})
        except SettingsError as error:
            yield at, str(error), "see docs/settings.md"


def _of_pointer_cache(settings: Settings) -> Iterator[Conflict]:
    if settings.pointer_cache and "pointer_cache_url" in settings.variables:
        message = "there are two caches of the pointer: the agents', and the one of pointer_cache_url below variables"
        yield ("pointer_cache",), message, "delete one of them"


def _of_tags(settings: Settings) -> Iterator[Conflict]:
    for tag in sorted(settings.tags):
        if tag.startswith(("aws:", "tidegate:")):
            yield ("tags", tag), f"tag {tag!r} is reserved", "choose another prefix"
