"""The checked rules of a directory, with the places they came from: what the compiler emits and analysis reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tidegate.errors import Finding
from tidegate.rules.conditions import Conjunction
from tidegate.rules.contract import Attribute, Caller
from tidegate.rules.placement import FleetDemand
from tidegate.rules.sticky import BUCKETS


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule in its normal form. `body` is its line of the bundle; `line` where it stands in its file."""

    id: str
    line: int
    when: Conjunction
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ObjectiveProgram:
    """An objective in its normal form; `targets` are all the targets its rules name, as written, sorted."""

    name: str
    file: str
    summary: str
    owner: str
    attributes: Mapping[str, Attribute]
    sticky_key: tuple[str, ...]
    timeout_ms: int | None
    rules: tuple[Rule, ...]
    targets: tuple[str, ...]
    unknown_attributes: Literal["ignore", "refuse"] = "ignore"


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of experiments: its key's attributes, holdout and experiments as inclusive bucket ranges."""

    key: tuple[str, ...]
    holdout: tuple[tuple[int, int], ...]
    experiments: Mapping[str, tuple[tuple[int, int], ...]]


def free_buckets(layer: Layer) -> list[tuple[int, int]]:
    """The inclusive ranges of a layer's buckets that neither the holdout nor an experiment owns."""
    free, start = [], 0
    for first, last in sorted(pair for pairs in (layer.holdout, *layer.experiments.values()) for pair in pairs):
        if start < first:
            free.append((start, first - 1))
        start = max(start, last + 1)
    return [*free, (start, BUCKETS - 1)] if start < BUCKETS else free


@dataclass(frozen=True, slots=True)
class World:
    """What rules may refer to.

    `models` has the shards of every model, those of auto models as planned by what is declared alone; `demand` is what
    they were planned from. `known` is False where fleet.yaml could not be read, so that not every target is reported as
    unknown. `images` has the name and the manifest (None: none) of the image that a shard's servers run, where it says so.
    `sleepers` are the shards that may have no server while nobody asks.
    """

    shards: Mapping[str, int]
    models: Mapping[str, tuple[str, ...]]
    aliases: Mapping[str, str]
    layers: Mapping[str, Layer]
    known: bool = True
    demand: FleetDemand = FleetDemand()  # noqa: RUF009  # immutable
    images: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    sleepers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Program:
    """All the rules of a directory. `callers` is None where there is no callers.yaml: everybody may call everything.
    `no_effect` are the settings that change nothing, each with its objective (empty: of none)."""

    world: World
    objectives: tuple[ObjectiveProgram, ...]
    callers: Mapping[str, Caller] | None = None
    no_effect: tuple[tuple[str, Finding], ...] = ()
