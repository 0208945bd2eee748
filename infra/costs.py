"""What a stage costs a month: its own resources, counted in its templates, times list prices that are inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tidegate.errors import SettingsError

from infra.assembly import Assembly
from infra.settings import Settings
from infra.shards import Shard

HOURS: Final = 730
SECONDS: Final = HOURS * 3600
MILLION: Final = 1_000_000

PRICE_DATE: Final = "2025-06"
PRICE_REGION: Final = "us-east-1"

PER_INSTANCE_HOUR: Final = {
    "g4dn.xlarge": 0.526,
    "g4dn.2xlarge": 0.752,
    "g4dn.12xlarge": 3.912,
    "g5.xlarge": 1.006,
    "g5.2xlarge": 1.212,
    "g5.12xlarge": 5.672,
    "g6.xlarge": 0.8048,
    "g6.2xlarge": 0.9776,
    "c7i.4xlarge": 0.714,
}
"""On demand, Linux, in US dollars."""

PRICES: Final = {
    "disk, per GiB": 0.08,
    "load balancer, per hour": 0.0225,
    "load balancer capacity unit, per hour": 0.008,
    "interface endpoint, per hour and zone": 0.01,
    "NAT gateway, per hour": 0.045,
    "key": 1.00,
    "secret": 0.40,
    "image storage, per GB": 0.10,
    "alarm": 0.10,
    "dashboard beyond three": 3.00,
    "custom metric": 0.30,
    "log ingestion, per GB": 0.50,
    "HTTP API, per million up to 300": 1.00,
    "HTTP API, per million beyond": 0.90,
    "Lambda, per million": 0.20,
    "Lambda, per GB-second": 0.0000133334,
    "Lambda kept ready, per GB-second": 0.0000033334,
    "S3 GET, per million": 0.40,
    "S3 LIST, per million": 5.00,
    "DynamoDB write, per million": 0.625,
    "DynamoDB read, per million": 0.125,
    "trace, per million": 5.00,
}
"""List prices in US dollars a month, where the name says nothing else; Lambda's are those of arm64."""

ASSUMED: Final = {
    "billed ms of the gateway per request": 10,
    "requests per second of one server": 300,
    "peak, in averages": 3,
    "KB of request and answer": 2,
    "KB of logs per request": 2,
    "seconds of one reconciliation": 2,
    "seconds of one probe": 6,
    "custom metrics of the functions": 60,
    "custom metrics per shard": 30,
    "image storage, GB": 12,
    "traced share beyond one request a second": 0.05,
}
"""What the arithmetic assumes of the load; each is to be replaced by what a stage's own dashboards show."""


@dataclass(frozen=True, slots=True)
class Load:
    """A month's requests."""

    name: str
    requests: int

    @property
    def per_s(self) -> float:
        """The average."""
        return self.requests / SECONDS

    @property
    def environments(self) -> int:
        """Concurrent environments of the gateway at the peak, by Little's law; an idle stage has none."""
        busy = self.per_s * ASSUMED["peak, in averages"] * ASSUMED["billed ms of the gateway per request"] / 1000
        return math.ceil(busy)


LOADS: Final = (Load("idle", 0), Load("10 M requests", 10 * MILLION), Load("1 G requests", 1_000 * MILLION))


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: what, how it is reckoned, and dollars a month by load."""

    what: str
    how: str
    dollars: tuple[float, ...]


def cost_lines(assembly: Assembly, shards: Sequence[Shard], settings: Settings) -> list[Line]:
    """Every line, for `LOADS`.

    Raises:
        SettingsError: the price of an instance type is not known here.
    """
    servers = [sum(servers_for(shard, load, len(shards)) for shard in shards) for load in LOADS]
    return [*_servers(shards, settings), *_standing(assembly, shards, settings), *_by_request(settings, servers)]


def servers_for(shard: Shard, load: Load, shards: int) -> int:
    """Servers of a shard that the peak needs, where the shards share the load evenly, be it more than `max_replicas`."""
    peak = load.per_s * ASSUMED["peak, in averages"] / shards
    needed = math.ceil(peak / ASSUMED["requests per second of one server"])
    return max(needed, shard.min_replicas)


def _servers(shards: Sequence[Shard], settings: Settings) -> Iterator[Line]:
    for shard in shards:
        price = PER_INSTANCE_HOUR.get(shard.instance_type)
        if price is None:
            known = ", ".join(sorted(PER_INSTANCE_HOUR))
            raise SettingsError(
                f"the price of {shard.instance_type} (shard {shard.name!r}) is not known: add it to PER_INSTANCE_HOUR in "
                f"infra/costs.py, which has {known}"
            )
        per_instance = max(1, round(shard.max_replicas / max(1, shard.max_instances)))
        counts = [math.ceil(servers_for(shard, load, len(shards)) / per_instance) for load in LOADS]
        monthly = HOURS * price + settings.triton.root_volume_gib * PRICES["disk, per GiB"]
        yield Line(
            f"instances of shard {shard.name}",
            f"{_words(counts)} × ({HOURS} h × {price:g} for {shard.instance_type} + {settings.triton.root_volume_gib} GiB × "
            f"{PRICES['disk, per GiB']:g}), all on demand",
            tuple(count * monthly for count in counts),
        )


def _standing(assembly: Assembly, shards: Sequence[Shard], settings: Settings) -> Iterator[Line]:
    endpoints = sum(
        settings.availability_zones
        for each in assembly.resources("AWS::EC2::VPCEndpoint")
        if each.properties.get("VpcEndpointType") == "Interface"
    )
    balancers = _count(assembly, "AWS::ElasticLoadBalancingV2::LoadBalancer")
    # A policy that tracks a metric makes two alarms of its own.
    tracking = sum(
        each.properties["PolicyType"] == "TargetTrackingScaling"
        for each in assembly.resources("AWS::ApplicationAutoScaling::ScalingPolicy")
    )
    alarms = _count(assembly, "AWS::CloudWatch::Alarm") + 2 * tracking
    dashboards = max(0, _count(assembly, "AWS::CloudWatch::Dashboard") - 3)
    metrics = ASSUMED["custom metrics of the functions"] + ASSUMED["custom metrics per shard"] * len(shards)
    for what, count, unit, per in (
        ("load balancers", balancers, "load balancer, per hour", HOURS),
        ("interface endpoints × zones", endpoints, "interface endpoint, per hour and zone", HOURS),
        ("NAT gateways", _count(assembly, "AWS::EC2::NatGateway"), "NAT gateway, per hour", HOURS),
        ("alarms", alarms, "alarm", 1),
        ("dashboards beyond three", dashboards, "dashboard beyond three", 1),
        ("custom metrics", metrics, "custom metric", 1),
        ("keys", _count(assembly, "AWS::KMS::Key"), "key", 1),
        ("secrets", _count(assembly, "AWS::SecretsManager::Secret"), "secret", 1),
        ("images, GB", ASSUMED["image storage, GB"], "image storage, per GB", 1),
    ):
        if count:
            hours = f" × {per} h" if per != 1 else ""
            yield Line(what, f"{count:g}{hours} × {PRICES[unit]:g}", (count * per * PRICES[unit],) * len(LOADS))
    yield _control(settings)


def _control(settings: Settings) -> Line:
    gb = settings.control.memory_mib / 1024
    price = PRICES["Lambda, per GB-second"]
    minutes = HOURS * 60
    reconciled = minutes / settings.control.reconcile_every_min * ASSUMED["seconds of one reconciliation"]
    probed = minutes / settings.control.probe_every_min * ASSUMED["seconds of one probe"]
    dollars = (reconciled + probed) * gb * price
    return Line(
        "reconcile and probe",
        f"({reconciled:,.0f} s + {probed:,.0f} s) × {gb:g} GB × {price:g}",
        (dollars,) * len(LOADS),
    )


def _by_request(settings: Settings, servers: Sequence[int]) -> Iterator[Line]:
    ms, gb = ASSUMED["billed ms of the gateway per request"], settings.gateway.memory_mib / 1024
    millions = [load.requests / MILLION for load in LOADS]
    first, beyond = PRICES["HTTP API, per million up to 300"], PRICES["HTTP API, per million beyond"]
    if settings.door != "function_url":
        yield Line(
            "HTTP API",
            f"millions × {first:g}, beyond 300 × {beyond:g}",
            tuple(min(each, 300) * first + max(0.0, each - 300) * beyond for each in millions),
        )
    yield _line("gateway, requests", millions, "Lambda, per million", "millions")
    seconds = [each * MILLION * ms / 1000 * gb for each in millions]
    yield _line(f"gateway, time ({ms} ms × {gb:.3f} GB each)", seconds, "Lambda, per GB-second", "GB-seconds")
    kept = settings.gateway.provisioned_concurrency
    if kept:
        always = [kept * gb * SECONDS] * len(LOADS)
        yield _line(
            f"gateway, {kept} environments kept ready", always, "Lambda kept ready, per GB-second", "GB-seconds"
        )
    data_gb = [load.requests * ASSUMED["KB of request and answer"] / MILLION for load in LOADS]
    yield _line("load balancers, 1 GB each unit", data_gb, "load balancer capacity unit, per hour", "GB")
    logs_gb = [load.requests * ASSUMED["KB of logs per request"] / MILLION for load in LOADS]
    yield _line(f"logs ({ASSUMED['KB of logs per request']} KB each)", logs_gb, "log ingestion, per GB", "GB")
    traced = [_traced_per_s(load) * SECONDS / MILLION for load in LOADS]
    yield _line("traces", traced, "trace, per million", "millions")
    polls = [load.environments * SECONDS / 2 / MILLION for load in LOADS]
    yield _line("gateways poll the pointer every 2 s", polls, "S3 GET, per million", "millions")
    # An agent, of which each server has one, lists the claims with every report.
    reports = [count * SECONDS / 10 / MILLION for count in servers]
    yield _line("agents look at claims every 10 s", reports, "S3 LIST, per million", "millions")
    writes = [each + load.environments * SECONDS / 10 / MILLION for each, load in zip(reports, LOADS, strict=True)]
    yield _line("signs of life every 10 s", writes, "DynamoDB write, per million", "millions")
    reads = [count * SECONDS / 2 / MILLION for count in servers]
    yield _line("agents read the registry every 2 s", reads, "DynamoDB read, per million", "millions")


def _traced_per_s(load: Load) -> float:
    beyond = max(0.0, load.per_s - 1) * ASSUMED["traced share beyond one request a second"]
    return min(1.0, load.per_s) + beyond


def _line(what: str, amounts: Sequence[float], unit: str, noun: str) -> Line:
    price = PRICES[unit]
    return Line(what, f"{_words(amounts)} {noun} × {price:g}", tuple(amount * price for amount in amounts))


def _words(amounts: Sequence[float]) -> str:
    """Amounts by load, one where they are the same."""
    texts = [f"{amount:,.0f}" if amount == int(amount) or amount >= 100 else f"{amount:.3g}" for amount in amounts]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def _count(assembly: Assembly, kind: str) -> int:
    return sum(1 for _ in assembly.resources(kind))


def cost_table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table, every amount rounded to cents, and their sums last."""
    rows = [f"| | arithmetic | {' | '.join(load.name for load in LOADS)} |", "|---|---|" + "--:|" * len(LOADS)]
    rows += [f"| {line.what} | {line.how} | {' | '.join(_dollars(each) for each in line.dollars)} |" for line in lines]
    rows.append(f"| **sum** | | {' | '.join(f'**{_dollars(each)}**' for each in totals(lines))} |")
    return "\n".join(rows)


def totals(lines: Sequence[Line]) -> list[float]:
    """The sums of the rounded amounts by load."""
    return [sum(round(line.dollars[at], 2) for line in lines) for at in range(len(LOADS))]


def assumptions_table() -> str:
    """What the arithmetic assumes, as a Markdown table."""
    rows = ["| assumed | |", "|---|--:|", *(f"| {name} | {value:g} |" for name, value in ASSUMED.items())]
    return "\n".join(rows)


def _dollars(amount: float) -> str:
    return f"{amount:,.2f}"
