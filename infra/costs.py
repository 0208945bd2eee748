"""The monthly costs of a stage: the resources in its templates times list prices, which are inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tidegate.capacity.prices import PER_INSTANCE_HOUR, PRICES
from tidegate.errors import SettingsError

from infra.assembly import Assembly
from infra.setting_groups import HttpFunction
from infra.settings import Settings
from infra.shards import Shard

HOURS: Final = 730
SECONDS: Final = HOURS * 3600
MILLION: Final = 1_000_000

ASSUMED: Final = {
    "billed ms of the gateway per request, without its model": 10,
    "ms that the gateway waits for its model": 20,
    "requests per second of one server": 300,
    "peak, in averages": 3,
    "KB of request and answer": 2,
    "KB of logs per request": 2,
    "KB of a poll of the pointer at an agent": 0.5,
    "seconds of one reconciliation": 2,
    "seconds of one probe": 6,
    "publishes a month": 20,
    "minutes of one publish": 10,
    "hours that an environment of a function lives": 2,
    "custom metrics of the functions": 60,
    "custom metrics per shard": 30,
    "Container Insights metrics per shard": 30,
    "image storage, GB": 12,
    "traced share beyond one request a second": 0.05,
}
"""Assumptions about the load; replace each with the figure from the stage's own dashboards."""


def billed_ms() -> float:
    """Return the billed milliseconds of a request: waiting for the model is billed like work."""
    return (
        ASSUMED["billed ms of the gateway per request, without its model"]
        + ASSUMED["ms that the gateway waits for its model"]
    )


@dataclass(frozen=True, slots=True)
class Load:
    """The requests of a month."""

    name: str
    requests: int

    @property
    def per_s(self) -> float:
        """The average."""
        return self.requests / SECONDS

    @property
    def environments(self) -> int:
        """Concurrent environments of the gateway at the peak, by Little's law; an idle stage has none."""
        return math.ceil(self.per_s * ASSUMED["peak, in averages"] * billed_ms() / 1000)


LOADS: Final = (Load("idle", 0), Load("10 M requests", 10 * MILLION), Load("1 G requests", 1_000 * MILLION))


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: the item, its calculation, and dollars a month by load."""

    what: str
    how: str
    dollars: tuple[float, ...]


def cost_lines(assembly: Assembly, shards: Sequence[Shard], settings: Settings) -> list[Line]:
    """Return every line, for `LOADS`.

    Raises:
        SettingsError: the prices of instance types are not known here.
    """
    servers = [_servers_of(shards, load, len(shards)) for load in LOADS]
    keepers = [_servers_of([each for each in shards if each.keeps_the_pointer], load, len(shards)) for load in LOADS]
    return [
        *_servers(shards, settings),
        *_standing(assembly, shards, settings),
        *_by_request(assembly, settings),
        *_polls(settings, keepers),
        *_by_server(servers),
    ]


def _servers_of(some: Sequence[Shard], load: Load, shards: int) -> int:
    return sum(servers_for(each, load, shards) for each in some)


def servers_for(shard: Shard, load: Load, shards: int) -> int:
    """Return the servers of a shard at the peak, if the shards share the load evenly; possibly more than `max_replicas`."""
    peak = load.per_s * ASSUMED["peak, in averages"] / shards
    needed = math.ceil(peak / ASSUMED["requests per second of one server"])
    return max(needed, shard.min_replicas)


def _instance_prices(shards: Sequence[Shard], settings: Settings) -> dict[str, float]:
    """Return dollars an hour by instance type, for every type that a shard may use.

    Raises:
        SettingsError: prices are not known; it names all of them.
    """
    known = PER_INSTANCE_HOUR | settings.prices
    types = {each: shard.name for shard in shards for each in (shard.instance_type, *shard.alternative_types)}
    missing = sorted(each for each in types if each not in known)
    if missing:
        named = ", ".join(f"{each} (shard {types[each]!r})" for each in missing)
        written = ", ".join(f"{each}: 1.23" for each in missing)
        raise SettingsError(
            f"no price is known of {named}: state dollars an hour in the stage's settings, as in prices: {{{written}}}"
        )
    return known


def _servers(shards: Sequence[Shard], settings: Settings) -> Iterator[Line]:
    prices = _instance_prices(shards, settings)
    triton = settings.triton
    disk = (
        triton.root_volume_gib * PRICES["disk, per GiB"]
        + (triton.root_volume_mibps - 125) * PRICES["disk throughput beyond 125, per MiB/s"]
        + (triton.root_volume_iops - 3_000) * PRICES["disk operations beyond 3,000, per operation"]
    )
    monitored = PRICES["detailed monitoring, per instance"]
    for shard in shards:
        # Of several types the dearest: which of them a shard gets is not known before.
        price, dearest = max((prices[each], each) for each in (shard.instance_type, *shard.alternative_types))
        per_instance = max(1, round(shard.max_replicas / max(1, shard.max_instances)))
        counts = [math.ceil(servers_for(shard, load, len(shards)) / per_instance) for load in LOADS]
        yield Line(
            f"instances of shard {shard.name}",
            f"{_words(counts)} × ({HOURS} h × {price:g} for {dearest} + {disk:g} for the disk + {monitored:g} for its "
            "metrics), all on demand",
            tuple(count * (HOURS * price + disk + monitored) for count in counts),
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
    insights = ASSUMED["Container Insights metrics per shard"] * _count(assembly, "AWS::ECS::Cluster")
    for what, count, unit, per in (
        ("load balancers", balancers, "load balancer, per hour", HOURS),
        ("interface endpoints × zones", endpoints, "interface endpoint, per hour and zone", HOURS),
        ("NAT gateways", _count(assembly, "AWS::EC2::NatGateway"), "NAT gateway, per hour", HOURS),
        ("alarms", alarms, "alarm", 1),
        ("dashboards beyond three", dashboards, "dashboard beyond three", 1),
        ("custom metrics", metrics, "custom metric", 1),
        ("metrics of Container Insights", insights, "custom metric", 1),
        ("keys", _count(assembly, "AWS::KMS::Key"), "key", 1),
        ("secrets", _count(assembly, "AWS::SecretsManager::Secret"), "secret", 1),
        ("images, GB", ASSUMED["image storage, GB"], "image storage, per GB", 1),
    ):
        if count:
            hours = f" × {per} h" if per != 1 else ""
            yield Line(what, f"{count:g}{hours} × {PRICES[unit]:g}", (count * per * PRICES[unit],) * len(LOADS))
    yield from _envoy(settings)
    yield _control(settings)
    minutes = ASSUMED["publishes a month"] * ASSUMED["minutes of one publish"]
    price = PRICES["small build, per minute"]
    jobs = _count(assembly, "AWS::CodeBuild::Project")
    yield Line("the job that publishes", f"{minutes:g} min × {price:g}", (jobs * minutes * price,) * len(LOADS))


def _envoy(settings: Settings) -> Iterator[Line]:
    """Yield what Envoy's fewest tasks cost, whatever their load."""
    envoy, architecture = settings.envoy, settings.architecture
    if settings.data_plane != "envoy" or envoy is None:
        return
    cores, gib = envoy.cpu_units / 1024, envoy.memory_mib / 1024
    core, memory = (PRICES[f"Fargate, per {what} and hour, {architecture}"] for what in ("core", "GiB"))
    price = envoy.min_tasks * HOURS * (cores * core + gib * memory)
    how = f"{envoy.min_tasks} × {HOURS} h × ({cores:g} × {core:g} + {gib:g} × {memory:g}), the fewest"
    yield Line("Envoy's tasks", how, (price,) * len(LOADS))


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


def _by_request(assembly: Assembly, settings: Settings) -> Iterator[Line]:
    ms, gb = billed_ms(), settings.gateway.memory_mib / 1024
    millions = [load.requests / MILLION for load in LOADS]
    first, beyond = PRICES["HTTP API, per million up to 300"], PRICES["HTTP API, per million beyond"]
    if settings.entry_point != "function_url":
        yield Line(
            "HTTP API",
            f"millions × {first:g}, beyond 300 × {beyond:g}",
            tuple(min(each, 300) * first + max(0.0, each - 300) * beyond for each in millions),
        )
    if _count(assembly, "AWS::CloudFront::Distribution"):
        yield _line("CloudFront, requests", millions, "CloudFront, per million", "millions")
        yield _line("web ACL, without its rules", [1] * len(LOADS), "web ACL", "web ACL")
        yield _line("web ACL, requests", millions, "web ACL, per million", "millions")
    yield _line("gateway, requests", millions, "Lambda, per million", "millions")
    seconds = [each * MILLION * ms / 1000 * gb for each in millions]
    yield _line(f"gateway, time ({ms:g} ms × {gb:.3f} GB each)", seconds, "Lambda, per GB-second", "GB-seconds")
    for name, function in (("gateway", settings.gateway), ("resolve", settings.resolve)):
        yield from _ready(name, function)
    data_gb = [load.requests * ASSUMED["KB of request and answer"] / MILLION for load in LOADS]
    yield _line("load balancers, 1 GB each unit", data_gb, "load balancer capacity unit, per hour", "GB")
    logs_gb = [load.requests * ASSUMED["KB of logs per request"] / MILLION for load in LOADS]
    yield _line(f"logs ({ASSUMED['KB of logs per request']} KB each)", logs_gb, "log ingestion, per GB", "GB")
    traced = [_traced_per_s(load) * SECONDS / MILLION for load in LOADS]
    yield _line("traces", traced, "trace, per million", "millions")


def _polls(settings: Settings, keepers: Sequence[int]) -> Iterator[Line]:
    """Yield what gateways cost that poll the pointer in S3, or at the agents of `keepers` servers, by load."""
    what = "gateways poll the pointer every 2 s"
    polls = [load.environments * SECONDS / 2 / MILLION for load in LOADS]
    if not settings.pointer_cache:
        yield _line(what, polls, "S3 GET, per million", "millions")
        return
    # An agent reads S3 once a second while functions ask it.
    reads = [min(each, count * SECONDS / MILLION) for each, count in zip(polls, keepers, strict=True)]
    yield _line("agents read the pointer every second", reads, "S3 GET, per million", "millions")
    polled_gb = [each * ASSUMED["KB of a poll of the pointer at an agent"] for each in polls]
    yield _line(f"{what} at agents", polled_gb, "load balancer capacity unit, per hour", "GB")


def _by_server(servers: Sequence[int]) -> Iterator[Line]:
    """Yield what agents and gateways do by themselves, for the servers of each load."""
    # An agent, of which each server has one, lists the claims with every report.
    reports = [count * SECONDS / 10 / MILLION for count in servers]
    yield _line("agents look at claims every 10 s", reports, "S3 LIST, per million", "millions")
    writes = [each + load.environments * SECONDS / 10 / MILLION for each, load in zip(reports, LOADS, strict=True)]
    yield _line("signs of life every 10 s", writes, "DynamoDB write, per million", "millions")
    reads = [count * SECONDS / 2 / MILLION for count in servers]
    yield _line("agents read the registry every 2 s", reads, "DynamoDB read, per million", "millions")


def _ready(name: str, function: HttpFunction) -> Iterator[Line]:
    """Return the cost of provisioned environments and snapshots."""
    gb, kept = function.memory_mib / 1024, function.provisioned_concurrency
    if kept:
        always = [kept * gb * SECONDS] * len(LOADS)
        yield _line(f"{name}, {kept} environments kept ready", always, "Lambda kept ready, per GB-second", "GB-seconds")
    if function.snap_start:
        held = [gb * SECONDS] * len(LOADS)
        yield _line(f"{name}, its snapshot", held, "Lambda snapshot kept, per GB-second", "GB-seconds")
        lives = HOURS / ASSUMED["hours that an environment of a function lives"]
        restored = [load.environments * lives * gb for load in LOADS]
        yield _line(f"{name}, restores of it", restored, "Lambda snapshot restored, per GB", "GB")


def _traced_per_s(load: Load) -> float:
    beyond = max(0.0, load.per_s - 1) * ASSUMED["traced share beyond one request a second"]
    return min(1.0, load.per_s) + beyond


def _line(what: str, amounts: Sequence[float], unit: str, noun: str) -> Line:
    price = PRICES[unit]
    return Line(what, f"{_words(amounts)} {noun} × {price:g}", tuple(amount * price for amount in amounts))


def _words(amounts: Sequence[float]) -> str:
    """Return the amounts by load, or one if they are equal."""
    texts = [f"{amount:,.0f}" if amount == int(amount) or amount >= 100 else f"{amount:.3g}" for amount in amounts]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def _count(assembly: Assembly, kind: str) -> int:
    return sum(1 for _ in assembly.resources(kind))


def cost_table(lines: Sequence[Line]) -> str:
    """Return the lines as a Markdown table, with amounts rounded to cents and their sums last."""
    rows = [f"| | arithmetic | {' | '.join(load.name for load in LOADS)} |", "|---|---|" + "--:|" * len(LOADS)]
    rows += [f"| {line.what} | {line.how} | {' | '.join(_dollars(each) for each in line.dollars)} |" for line in lines]
    rows.append(f"| **sum** | | {' | '.join(f'**{_dollars(each)}**' for each in totals(lines))} |")
    return "\n".join(rows)


def totals(lines: Sequence[Line]) -> list[float]:
    """Return the sums of the rounded amounts by load."""
    return [sum(round(line.dollars[at], 2) for line in lines) for at in range(len(LOADS))]


def assumptions_table() -> str:
    """Return the assumptions as a Markdown table."""
    rows = ["| assumed | |", "|---|--:|", *(f"| {name} | {value:g} |" for name, value in ASSUMED.items())]
    return "\n".join(rows)


def _dollars(amount: float) -> str:
    return f"{amount:,.2f}"
