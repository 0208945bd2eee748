"""The contract of a bundle with callers and operators: its objectives, its callers and its fleet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

AttributeType = Literal["string", "integer", "number", "boolean", "version", "set"]
Scalar = str | int | float | bool
ContextValue = Scalar | tuple[str, ...]

RESERVED_PARAMETERS = "tidegate"
"""Prefix, in any case, of the names of the request parameters that only the gateway gives to a model."""


class Traffic(StrEnum):
    """Why a request was sent: the traffic class, which models, metrics and logs get with it."""

    REAL = "real"
    """A member waits for the answer."""

    SYNTHETIC = "synthetic"
    """A load test or a probe."""

    SHADOW = "shadow"
    """A copy of another request; its answer is discarded. No caller can send it."""

    REPLAY = "replay"
    """A recorded request that is sent again."""


class Priority(StrEnum):
    """Who waits when requests have to, and who is refused first: the later class."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class Responses(StrEnum):
    """How many responses the models of an objective may give to a request."""

    ONE = "one"
    """Exactly one: they are asked with `infer`."""

    STREAM = "stream"
    """Any number, as some of them have decoupled responses: they are asked with `generate_stream`."""


class Limit(NamedTuple):
    """What requests may take together: requests per second with a burst, and requests at a time. None: no limit.

    `burst` is how many requests may come at once after a pause (at least 1); None: as many as in one second, rounded
    down.
    """

    rate_per_s: int | float | None = None
    burst: int | None = None
    concurrency: int | None = None

    @property
    def burst_size(self) -> float:
        """How many requests may come at once, where there is a rate."""
        return float(max(1, int(self.rate_per_s or 0)) if self.burst is None else self.burst)


NO_LIMIT = Limit()


@dataclass(frozen=True, slots=True)
class Attribute:
    """One context attribute of an objective.

    `values` is the closed domain (None: open), `default` the value of an absent attribute (None: it stays absent),
    `header` the lower-case name of the HTTP header that may carry it (None: none may).
    """

    name: str
    type: AttributeType
    required: bool = False
    values: tuple[Scalar, ...] | None = None
    default: ContextValue | None = None
    header: str | None = None


class Ranking(NamedTuple):
    """The output that ranks things, as their ids with the best first, and how many of them count when answers are compared."""

    output: str
    k: int


@dataclass(frozen=True, slots=True)
class Objective:
    """The contract of one business use case: what a caller may say, never what serves it.

    `allocations` holds the ids of the experiments whose cell comes from the caller's own allocations. With `refuses_unknown`
    a context with an attribute that is not declared is an error; else such an attribute is ignored. `limit` is of all its
    requests together. Only the attributes in `loggable` may be written to a log. `degraded` is the target, as written, that a proxy
    serves while no resolver answers (None: no target).
    """

    name: str
    summary: str
    owner: str
    attributes: Mapping[str, Attribute]
    sticky_key: tuple[str, ...]
    timeout_ms: int | None
    allocations: tuple[str, ...]
    refuses_unknown: bool = False
    ranking: Ranking | None = None
    limit: Limit = NO_LIMIT
    loggable: tuple[str, ...] = ()
    responses: Responses = Responses.ONE
    degraded: str | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """An isolated slice of the fleet; `replicas` is how many Triton servers it has (at least 1), and with `scale_to_zero`
    it may have none while there are no requests."""

    name: str
    replicas: int
    scale_to_zero: bool = False


@dataclass(frozen=True, slots=True)
class Fleet:
    """The shards, and where each model is placed (shard names, preferred first)."""

    shards: Mapping[str, Shard]
    models: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Caller:
    """The rights and limits of one caller.

    `objectives` are those it may use (None: all), `overrides` the targets it may pin, as `model` or `model/version`
    (None: every one that is loaded; empty: none). `limit` is of all its requests, `limits` of those for one objective (None:
    none has one). `traffic` is the class of its requests, and `marks` are the other classes that it may give to single ones.
    With `reads_bundle` it may read all the rules, to decide by itself.
    """

    name: str
    objectives: tuple[str, ...] | None = None
    overrides: tuple[str, ...] | None = ()
    limit: Limit = NO_LIMIT
    traffic: Traffic = Traffic.REAL
    limits: Mapping[str, Limit] | None = None
    priority: Priority = Priority.NORMAL
    marks: tuple[Traffic, ...] = ()
    reads_bundle: bool = False

    def may_use(self, objective: str) -> bool:
        return self.objectives is None or objective in self.objectives

    def may_pin(self, model: str, version: int | None) -> bool:
        """Return whether its grant covers a target: a granted model covers all its versions, a granted version only itself."""
        if self.overrides is None or model in self.overrides:
            return True
        return version is not None and f"{model}/{version}" in self.overrides
