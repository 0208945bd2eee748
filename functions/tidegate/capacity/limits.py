"""The quotas that a data plane meets first, and where AWS states them. Most can be raised on request; `fixed` ones cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_DOCS = "https://docs.aws.amazon.com"


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit of an account, in one region where nothing else is said."""

    name: str
    unit: str
    limit: float
    fixed: bool
    source: str


LAMBDA_CONCURRENCY = Quota(
    "Lambda: concurrent executions, of which each allows 10 requests/s",
    "executions",
    1_000,
    False,
    f"{_DOCS}/lambda/latest/dg/gettingstarted-limits.html",
)
LAMBDA_PAYLOAD = Quota(
    "Lambda: payload of a request or an answer, as base64 in JSON",
    "bytes",
    6_291_456,
    True,
    f"{_DOCS}/lambda/latest/dg/gettingstarted-limits.html",
)
API_RATE = Quota(
    "API Gateway: requests/s of an account",
    "requests/s",
    10_000,
    False,
    f"{_DOCS}/apigateway/latest/developerguide/limits.html",
)
API_TIMEOUT = Quota(
    "API Gateway: time of a request",
    "ms",
    30_000,
    True,
    f"{_DOCS}/apigateway/latest/developerguide/http-api-quotas.html",
)
S3_READS = Quota(
    "S3: reads/s of a prefix (live/)",
    "reads/s",
    5_500,
    True,
    f"{_DOCS}/AmazonS3/latest/userguide/optimizing-performance.html",
)
REGISTRY_WRITES = Quota(
    "DynamoDB: writes/s of a partition (the registry's gateways)",
    "writes/s",
    1_000,
    True,
    f"{_DOCS}/amazondynamodb/latest/developerguide/bp-partition-key-design.html",
)
BALANCERS = Quota(
    "load balancers, one for each shard",
    "load balancers",
    50,
    False,
    f"{_DOCS}/elasticloadbalancing/latest/application/load-balancer-limits.html",
)
BALANCER_TARGETS = Quota(
    "servers behind one load balancer",
    "servers",
    1_000,
    False,
    f"{_DOCS}/elasticloadbalancing/latest/application/load-balancer-limits.html",
)

LAMBDA_GROWTH_PER_S = 100.0
"""Environments that a function gains a second: 1 000 every 10 s (https://docs.aws.amazon.com/lambda/latest/dg/scaling-behavior.html)."""

REQUESTS_PER_EXECUTION = 10.0
"""Synchronous requests/s that the quota of concurrent executions allows for each of them."""

WHOLE_CORE_MIB = 1_769.0
"""Memory of a function that comes with one vCPU (https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html)."""

METERED_BYTES = 512 * 1024
"""An HTTP API counts a request once for each of these (https://aws.amazon.com/api-gateway/pricing/)."""

POLL_BYTES = 500.0
"""A poll of the pointer at a shard agent, request and answer."""

UNIT_GB_PER_HOUR, UNIT_CONNECTIONS = 1.0, 3_000.0
"""What one capacity unit of a load balancer holds (https://aws.amazon.com/elasticloadbalancing/pricing/)."""


@dataclass(frozen=True, slots=True)
class Use:
    """What some traffic uses of a quota; `grows`: it does so in proportion to the requests."""

    quota: Quota
    used: float
    grows: bool = True

    @property
    def share(self) -> float:
        return self.used / self.quota.limit

    @property
    def exceeded(self) -> bool:
        return self.share > 1

    def breaks_at(self, rps: float) -> float | None:
        """Return the requests per second at which the quota is used up; None: it does not depend on them."""
        return rps / self.share if self.grows and self.used else None

    def as_dict(self, rps: float) -> dict[str, Any]:
        at = self.breaks_at(rps)
        return {
            "name": self.quota.name,
            "used": round(self.used, 3),
            "limit": self.quota.limit,
            "unit": self.quota.unit,
            "exceeded": self.exceeded,
            "fixed": self.quota.fixed,
            "breaks_at_rps": None if at is None else round(at, 1),
            "source": self.quota.source,
        }
