"""What a bundle says about its objectives and its fleet: the part that callers and operators see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

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

    `allocations` holds the ids of the experiments whose cell comes from the caller's own allocations.
    """

    name: str
    summary: str
    owner: str
    attributes: Mapping[str, Attribute]
    sticky_key: tuple[str, ...]
    timeout_ms: int | None
    allocations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """An isolated slice of the fleet; `replicas` is how many Triton servers it has (at least 1)."""

    name: str
    replicas: int


@dataclass(frozen=True, slots=True)
class Fleet:
    """The shards, and where each model is placed (shard names, preferred first)."""

    shards: Mapping[str, Shard]
    models: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, str]
