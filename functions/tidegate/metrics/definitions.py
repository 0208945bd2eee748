"""What a metric is: in CloudWatch, which the serverless functions log to, and in Prometheus, which scrapes processes that stay."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Unit(StrEnum):
    """CloudWatch's units."""

    COUNT = "Count"
    SECONDS = "Seconds"
    MILLISECONDS = "Milliseconds"
    PERCENT = "Percent"
    NONE = "None"


class Dimension(StrEnum):
    """CloudWatch finds a metric only by all the dimensions that it was emitted with."""

    SERVICE = "service"
    """The function's name; Powertools adds it to every metric."""

    OBJECTIVE = "Objective"
    RULE = "Rule"
    VARIANT = "Variant"
    SHARD = "Shard"
    MODEL = "Model"
    REASON = "Reason"
    CALLER = "Caller"
    TRAFFIC = "Traffic"


@dataclass(frozen=True, slots=True)
class Emf:
    """A metric in CloudWatch: its unit, the functions that emit it, and with which sets of dimensions."""

    unit: Unit
    functions: tuple[str, ...]
    dimensions: tuple[tuple[Dimension, ...], ...]


class Kind(StrEnum):
    """Kinds of metrics, as both formats name them; `INFO` is a gauge of 1 in the text format."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    INFO = "info"


class Label(StrEnum):
    """Labels, the same for all metrics. Those of HTTP and RPCs are OpenTelemetry's attributes, with underscores for their
    dots: https://opentelemetry.io/docs/specs/semconv/http/http-metrics/ and https://opentelemetry.io/docs/specs/semconv/rpc/."""

    OBJECTIVE = "objective"
    RULE = "rule"
    VARIANT = "variant"
    """Empty for a rule that only serves."""

    TRAFFIC = "traffic"
    """The class of the requests, `real` or `synthetic`."""

    MODEL = "model"
    """The model that answered; that of the decision where none did."""

    VERSION = "version"
    SHARD = "shard"
    """The shard that answered; empty where none did."""

    OUTCOME = "outcome"
    """`answered`, `fallback`, `client_error` (4xx) or `server_error` (5xx)."""

    END = "end"
    """How a stream ended: `complete`, `caller-left` or `broken`."""

    RESULT = "result"
    REASON = "reason"
    ENDPOINT = "endpoint"
    STATE = "state"
    PROCESS = "process"
    """`gateway` or `control`, which is the control plane; `agent`; `resolver-0` and so on."""

    REVISION = "revision"
    RESOLUTION = "resolution"
    RPC_METHOD = "rpc_method"
    RPC_CODE = "rpc_response_status_code"
    HTTP_METHOD = "http_request_method"
    HTTP_STATUS = "http_response_status_code"
    HTTP_ROUTE = "http_route"


class Emitter(StrEnum):
    """What answers `GET /metrics` with a metric."""

    STACK = "stack"
    """A local stack."""

    AGENT = "agent"
    """A shard agent, beside each deployed Triton server."""

    RESOLVER = "resolver"
    """A resolver, beside a proxy that carries requests."""


@dataclass(frozen=True, slots=True)
class Exposed:
    """A metric in Prometheus.

    Attributes:
        family: its name, in base units and without the `_total` that samples of a counter end in
            (https://prometheus.io/docs/practices/naming/).
        kind: its kind.
        labels: the labels of each sample.
        emitters: where it is scraped.
        meaning: the meaning, where it differs from that in CloudWatch.
    """

    family: str
    kind: Kind
    labels: tuple[Label, ...] = ()
    emitters: tuple[Emitter, ...] = (Emitter.STACK,)
    meaning: str = ""

    @property
    def sample(self) -> str:
        """The name of its samples, by which queries find it; a histogram's have further suffixes."""
        match self.kind:
            case Kind.COUNTER:
                return f"{self.family}_total"
            case Kind.INFO:
                return f"{self.family}_info"
        return self.family

    @property
    def unit(self) -> str:
        """The unit that the name ends in, or "" for a number of things."""
        suffix = self.family.rpartition("_")[2]
        return suffix if suffix in ("seconds", "bytes", "ratio") else ""
