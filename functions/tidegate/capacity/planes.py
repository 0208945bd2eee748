"""The arithmetic for each data plane. docs/scale.md has the formulae in the same order, so that they can be checked by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.capacity import limits
from tidegate.capacity.figures import Figures
from tidegate.capacity.limits import Use
from tidegate.capacity.prices import PER_INSTANCE_HOUR, PRICES

HOURS = 730
MONTH_S = HOURS * 3600
MILLION = 1_000_000
PROXY_INSTANCE, PROXY_CORES = "c7i.2xlarge", 8
BASE64_MS_PER_MB = 3.4
"""What a function spends on base64 and JSON, for each MB of request and answer (shared with every ASGI adapter)."""

VARIANTS = 2
HTTP_API_FIRST = 300
"""Millions of requests a month at the first price of an HTTP API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The traffic, and what is assumed of it.

    Attributes:
        body_bytes, answer_bytes: sizes of a request and of its answer.
        rules: rules of one objective.
        triton_rps: requests per second that one Triton server answers with all its cores or its GPU busy.
        utilization: the part of a core or a server that is used at the most.
        callers: processes of callers that decide by themselves.
        cached: whether the functions read the pointer from the shard agents' cache.
    """

    rps: float
    objectives: int
    rules: int
    body_bytes: float
    answer_bytes: float
    model_ms: float
    triton_rps: float
    triton_instance: str
    triton_dollars_per_hour: float
    shards: int
    utilization: float
    memory_mib: float
    poll_s: float
    report_s: float
    callers: int
    log_bytes: float
    resolver_us: float
    cached: bool

    @property
    def mean_bytes(self) -> float:
        return (self.body_bytes + self.answer_bytes) / 2

    @property
    def gb_per_hour(self) -> float:
        return self.rps * (self.body_bytes + self.answer_bytes) * 3600 / 1e9


@dataclass(frozen=True, slots=True)
class Plane:
    """What one data plane needs.

    Attributes:
        cores: cores of proxies, resolvers, or callers' decisions, at `utilization`.
        environments: concurrent environments of the function.
        servers: instances of proxies and resolvers.
        added_ms: the median latency that it adds; None: not measured.
        dollars: for a million requests, by item.
    """

    name: str
    cores: float
    environments: int
    servers: int
    tritons: int
    reads_per_s: float
    added_ms: float | None
    dollars: Mapping[str, float]
    uses: tuple[Use, ...]
    notes: tuple[str, ...] = ()

    @property
    def dollars_per_million(self) -> float:
        return sum(self.dollars.values())

    @property
    def breaks(self) -> list[Use]:
        """What breaks, the first first: fixed limits that are exceeded at any rate, then by the rate."""
        return sorted(self.uses, key=lambda use: (use.grows or not use.exceeded, -use.share))

    def as_dict(self, rps: float) -> dict[str, Any]:
        return {
            "name": self.name,
            "cores": round(self.cores, 3),
            "environments": self.environments,
            "servers": self.servers,
            "tritons": self.tritons,
            "store_reads_per_s": round(self.reads_per_s, 3),
            "added_ms": None if self.added_ms is None else round(self.added_ms, 3),
            "dollars_per_million": {
                **{item: round(value, 6) for item, value in self.dollars.items()},
                "sum": round(self.dollars_per_million, 6),
            },
            "limits": [use.as_dict(rps) for use in self.breaks],
            "notes": list(self.notes),
        }


def planes(load: Load, figures: Figures) -> Sequence[Plane]:
    return (_function(load, figures), _gateway(load, figures), _envoy(load, figures), _sdk(load, figures))


def tritons_for(load: Load) -> int:
    return math.ceil(load.rps / (load.triton_rps * load.utilization))


def _function(load: Load, figures: Figures) -> Plane:
    stretch = max(1.0, limits.WHOLE_CORE_MIB / load.memory_mib)
    base64_ms = BASE64_MS_PER_MB * (load.body_bytes + load.answer_bytes) / 1e6
    added_ms = (figures.numbers["function_ms"] + base64_ms) * stretch
    billed_ms = math.ceil(load.model_ms + added_ms)
    environments = math.ceil(load.rps * billed_ms / 1000)
    flip = _flip(load, figures, environments, "environments")
    executions = max(environments, load.rps / limits.REQUESTS_PER_EXECUTION)
    tritons = tritons_for(load)
    polls = min(load.rps, environments / load.poll_s)
    reads = float(tritons) if load.cached else polls
    metered = math.ceil((load.body_bytes + load.answer_bytes) / limits.METERED_BYTES) or 1
    polled_gb_per_hour = polls * limits.POLL_BYTES * 3600 / 1e9 if load.cached else 0.0
    # One connection to a shard, and with `cached` one to its agents.
    connections = environments * (2 if load.cached else 1)
    units = max(
        (load.gb_per_hour + polled_gb_per_hour) / limits.UNIT_GB_PER_HOUR, connections / limits.UNIT_CONNECTIONS
    )
    dollars = {
        "HTTP API": _http_api(load.rps * metered) * metered,
        "Lambda, requests": PRICES["Lambda, per million"],
        "Lambda, time": billed_ms * 1000 * load.memory_mib / 1024 * PRICES["Lambda, per GB-second"],
        "logs": load.log_bytes * MILLION / 1e9 * PRICES["log ingestion, per GB"],
        "polls of the pointer": _per_million(load, reads * 3600 / MILLION * PRICES["S3 GET, per million"]),
        "reports": _per_million(
            load, environments / load.report_s * 3600 / MILLION * PRICES["DynamoDB write, per million"]
        ),
        "load balancers of shards": _balancers(load, units, load.shards),
        "Tritons": _tritons(load, tritons),
    }
    largest = max(load.body_bytes, load.answer_bytes)
    uses = (
        Use(limits.API_RATE, load.rps),
        Use(limits.LAMBDA_CONCURRENCY, executions),
        Use(limits.LAMBDA_PAYLOAD, largest * 4 / 3, grows=False),
        Use(limits.API_TIMEOUT, load.model_ms + added_ms, grows=False),
        Use(limits.S3_READS, reads),
        Use(limits.REGISTRY_WRITES, environments / load.report_s),
        *_shard_uses(load, tritons),
    )
    notes = (
        f"{billed_ms} ms are billed of each request: {load.model_ms:g} of the model, {added_ms:.2f} of the function",
        flip,
        f"from no environment to {environments:,} takes {environments / limits.LAMBDA_GROWTH_PER_S:,.0f} s, and the first answer of "
        f"each {figures.numbers['cold_start_ms']:.0f} ms more",
    )
    return Plane("function in the path", 0.0, environments, 0, tritons, reads, added_ms, dollars, uses, notes)


def _gateway(load: Load, figures: Figures) -> Plane:
    cores = load.rps * figures.at("gateway_us", load.mean_bytes) / MILLION / load.utilization
    servers = math.ceil(cores / PROXY_CORES)
    added_ms = figures.at("gateway_ms", load.mean_bytes)
    pollers = servers * PROXY_CORES
    notes = (_flip(load, figures, pollers, "processes"),)
    return _proxied("gateway server in the path", load, cores, servers, pollers, added_ms, notes)


def _envoy(load: Load, figures: Figures) -> Plane:
    # Beyond the last size the line may lead below what Envoy takes by itself.
    filters = max(1.0, figures.at("filters", load.mean_bytes)) if "filters" in figures.curves else 1.0
    envoy = load.rps * figures.at("envoy_us", load.mean_bytes) * filters / MILLION / load.utilization
    resolver = load.rps * load.resolver_us / MILLION / load.utilization
    cores = envoy + resolver
    note = (
        f"of these cores {envoy:,.1f} are Envoy's, {filters:.2f} times those of one without Tidegate's filters, "
        f"and {resolver:,.1f} the resolver's, at {load.resolver_us:g} µs"
    )
    pollers = math.ceil(resolver)
    notes = (note, _flip(load, figures, pollers, "processes"))
    return _proxied("Envoy and resolver", load, cores, math.ceil(cores / PROXY_CORES), pollers, None, notes)


def _proxied(
    name: str,
    load: Load,
    cores: float,
    servers: int,
    pollers: int,
    added_ms: float | None,
    notes: tuple[str, ...] = (),
) -> Plane:
    """Return a plane of servers behind a load balancer, which send to Triton servers themselves."""
    tritons = tritons_for(load)
    reads = pollers / load.poll_s
    dollars = {
        "proxies": _per_million(load, servers * PER_INSTANCE_HOUR[PROXY_INSTANCE]),
        "load balancer": _balancers(load, load.gb_per_hour / limits.UNIT_GB_PER_HOUR, 1),
        "logs": load.log_bytes * MILLION / 1e9 * PRICES["log ingestion, per GB"],
        "polls of the pointer": _per_million(load, reads * 3600 / MILLION * PRICES["S3 GET, per million"]),
        "reports": _per_million(load, pollers / load.report_s * 3600 / MILLION * PRICES["DynamoDB write, per million"]),
        "Tritons": _tritons(load, tritons),
    }
    uses = (
        Use(limits.BALANCER_TARGETS, servers),
        Use(limits.S3_READS, reads),
        Use(limits.REGISTRY_WRITES, pollers / load.report_s),
    )
    return Plane(name, cores, 0, servers, tritons, reads, added_ms, dollars, uses, notes)


def _sdk(load: Load, figures: Figures) -> Plane:
    decide_us = figures.at("decide_us", load.rules) + VARIANTS * figures.numbers["variant_us"]
    cores = load.rps * decide_us / MILLION
    tritons = tritons_for(load)
    reads = min(load.rps, load.callers / load.poll_s)
    units = max(load.gb_per_hour / limits.UNIT_GB_PER_HOUR, load.callers / limits.UNIT_CONNECTIONS)
    dollars = {
        "polls of the pointer": _per_million(load, reads * 3600 / MILLION * PRICES["S3 GET, per million"]),
        "load balancers of shards": _balancers(load, units, load.shards),
        "Tritons": _tritons(load, tritons),
    }
    uses = (Use(limits.S3_READS, reads, grows=False), *_shard_uses(load, tritons))
    note = f"{decide_us:.2f} µs of each decision are the callers' own; so are their logs"
    notes = (note, _flip(load, figures, load.callers, "processes"))
    return Plane("SDK, direct", cores, 0, 0, tritons, reads, decide_us / 1000, dollars, uses, notes)


def _flip(load: Load, figures: Figures, readers: int, noun: str) -> str:
    size = figures.at("bundle_bytes", load.objectives * load.rules)
    return (
        f"after a publish {readers:,} {noun} read a bundle of about {size / 1000:,.0f} kB ({load.objectives * load.rules:,} rules), "
        f"{readers * size / 1e6:,.0f} MB in all, within {load.poll_s:g} s"
    )


def _shard_uses(load: Load, tritons: int) -> tuple[Use, ...]:
    return (
        Use(limits.BALANCERS, load.shards, grows=False),
        Use(limits.BALANCER_TARGETS, math.ceil(tritons / load.shards)),
    )


def _http_api(rps: float) -> float:
    """Return dollars for a million requests, at the mean price of a month with this rate."""
    millions = rps * MONTH_S / MILLION
    first = min(millions, HTTP_API_FIRST)
    beyond = millions - first
    total = first * PRICES["HTTP API, per million up to 300"] + beyond * PRICES["HTTP API, per million beyond"]
    return total / millions


def _balancers(load: Load, units: float, count: int) -> float:
    hourly = count * PRICES["load balancer, per hour"] + units * PRICES["load balancer capacity unit, per hour"]
    return _per_million(load, hourly)


def _tritons(load: Load, tritons: int) -> float:
    return _per_million(load, tritons * load.triton_dollars_per_hour)


def _per_million(load: Load, dollars_per_hour: float) -> float:
    return dollars_per_hour / (load.rps * 3600) * MILLION
