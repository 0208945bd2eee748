"""What a bundle says about its objectives and its fleet: the part that callers and operators see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

AttributeType = Literal["string", "integer", "number", "boolean", "version", "set"]
Scalar = str | int | float | bool
ContextValue = Scalar | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attribute:
    """One context attribute of an objective.

    `values` is the closed domain (None: open), `default` what an absent attribute stands for (None: it stays absent),
    `header` the lower-case name of the HTTP header that may carry it (None: none may).
    """

    name: str
    type: AttributeType
    required: bool = False
    values: tuple[Scalar, ...] | None = None
    default: ContextValue | None = None
    header: str | None = None


@dataclass(frozen=True, slots=True)
class Objective:
    """The contract of one business use case: what a caller may say, never what serves it.

    `allocations` holds the ids of the experiments whose cell comes from the caller's own allocations. With `refuses_unknown`
    a context with an attribute that is not declared is an error; else such an attribute is ignored.
    """

    name: str
    summary: str
    owner: str
    attributes: Mapping[str, Attribute]
    sticky_key: tuple[str, ...]
    timeout_ms: int | None
    allocations: tuple[str, ...]
    refuses_unknown: bool = False


@dataclass(frozen=True, slots=True)
class Shard:
    """An isolated slice of the fleet; `replicas` is how many Triton servers it has (at least 1), and with `scale_to_zero`
    it may have none while nobody asks."""

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
    """What one caller may do.

    `objectives` are those it may use (None: all), `overrides` the targets it may pin, as `model` or `model/version`
    (None: every one that is loaded; empty: none). `rate_per_s` (requests per second) and `concurrency` (requests at a
    time) are its limits, None where it has none. `traffic` tells members' requests from tests.
    """

    name: str
    objectives: tuple[str, ...] | None = None
    overrides: tuple[str, ...] | None = ()
    rate_per_s: int | float | None = None
    concurrency: int | None = None
    traffic: Literal["real", "synthetic"] = "real"

    def may_use(self, objective: str) -> bool:
        """Whether its grant covers an objective."""
        return self.objectives is None or objective in self.objectives

    def may_pin(self, model: str, version: int | None) -> bool:
        """Whether its grant covers a target: a granted model covers all its versions, a granted version only itself."""
        if self.overrides is None or model in self.overrides:
            return True
        return version is not None and f"{model}/{version}" in self.overrides


def read_caller(name: str, entry: Mapping[str, Any]) -> Caller:
    """A caller from its entry in a bundle's manifest, where "*" stands for all."""
    objectives, overrides = (
        None if entry[key] == "*" else tuple(map(str, entry[key])) for key in ("objectives", "overrides")
    )
    return Caller(name, objectives, overrides, entry.get("rate_per_s"), entry.get("concurrency"), entry["traffic"])
