"""The checked rules of a directory, with the lines they came from: what the compiler emits and analysis reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.errors import Finding
from tidegate.placement import FleetDemand
from tidegate.rules.bundle.rule import Rule
from tidegate.rules.contract import Caller, Fleet, Objective
from tidegate.rules.sticky import BUCKETS

NO_FLEET = Fleet({}, {}, {})


@dataclass(frozen=True, slots=True)
class ObjectiveProgram:
    """An objective: its contract, its rules in normal form, and where these are. `lines` has the line in `file` of each rule
    by its id; a program from a bundle has no file and no lines."""

    contract: Objective
    rules: tuple[Rule, ...]
    file: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.contract.name

    @property
    def targets(self) -> tuple[str, ...]:
        """All targets that its rules name, and the one that serves without a decision, as written, sorted."""
        degraded = () if self.contract.degraded is None else (self.contract.degraded,)
        return tuple(sorted({*degraded, *(target for rule in self.rules for target in rule.targets())}))


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of experiments: its key's attributes, holdout and experiments as inclusive bucket ranges."""

    key: tuple[str, ...]
    holdout: tuple[tuple[int, int], ...]
    experiments: Mapping[str, tuple[tuple[int, int], ...]]


def free_buckets(layer: Layer) -> list[tuple[int, int]]:
    """Return the inclusive ranges of a layer's buckets that neither the holdout nor an experiment owns."""
    free, start = [], 0
    for first, last in sorted(pair for pairs in (layer.holdout, *layer.experiments.values()) for pair in pairs):
        if start < first:
            free.append((start, first - 1))
        start = max(start, last + 1)
    return [*free, (start, BUCKETS - 1)] if start < BUCKETS else free


@dataclass(frozen=True, slots=True)
class World:
    """The names that rules may refer to.

    `fleet` has `auto` models as planned by what is declared alone; `demand` is what they were planned from. `known` is False
    where fleet.yaml could not be read, so that not every target is reported as unknown. `images` has the name and the
    manifest (None: none) of the image that a shard's servers run, where it says so.
    """

    fleet: Fleet
    layers: Mapping[str, Layer]
    known: bool = True
    demand: FleetDemand = FleetDemand()  # noqa: RUF009  # immutable
    images: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Program:
    """All the rules of a directory. `callers` is None where there is no callers.yaml: every caller may call everything.
    `no_effect` are the settings that change nothing, each with its objective (empty: of none)."""

    world: World
    objectives: tuple[ObjectiveProgram, ...]
    callers: Mapping[str, Caller] | None = None
    no_effect: tuple[tuple[str, Finding], ...] = ()
