"""Outcome of proving rules, as the process that proves writes it and another one reads it.

It needs neither the compiler nor pydantic, whose imports take a process a quarter of a second.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from tidegate.errors import Finding
from tidegate.placement import FleetDemand, ModelDemand, ShardCapacity


class Task(StrEnum):
    """The work of the process that proves; `COMPILE` leaves out the analysis and the cases."""

    PROVE = "prove"
    COMPILE = "compile"


@dataclass(frozen=True, slots=True)
class CaseTally:
    """Result of all cases.

    `failures` has every case that failed and every error of the case files, `uncovered` the objective and id of each rule
    that no passing case decides.
    """

    passed: int = 0
    failures: tuple[Finding, ...] = ()
    uncovered: tuple[tuple[str, str], ...] = ()

    def summary(self) -> str:
        text = "1 case passes" if self.passed == 1 else f"{self.passed} cases pass"
        if self.failures:
            text += f", {len(self.failures)} fail"
        if not self.uncovered:
            return f"{text}; every rule has a case"
        without = "1 rule has" if len(self.uncovered) == 1 else f"{len(self.uncovered)} rules have"
        return f"{text}; {without} no case"


@dataclass(frozen=True, slots=True)
class ProofOutcome:
    """What a publisher needs of a `tidegate.analysis.proving.Proof`, whose fields these are."""

    bundle: bytes | None
    demand: FleetDemand
    summary: str | None
    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]
    cases: CaseTally


def encode_outcome(outcome: ProofOutcome) -> str:
    bundle = None if outcome.bundle is None else outcome.bundle.decode()
    return json.dumps({**asdict(outcome), "bundle": bundle})


def decode_outcome(text: bytes) -> ProofOutcome:
    """Read what `encode_outcome` wrote."""
    found = json.loads(text)
    cases = found["cases"]
    return ProofOutcome(
        None if found["bundle"] is None else found["bundle"].encode(),
        _demand(found["demand"]),
        found["summary"],
        _findings(found["errors"]),
        _findings(found["warnings"]),
        CaseTally(cases["passed"], _findings(cases["failures"]), tuple(map(tuple, cases["uncovered"]))),
    )


def _demand(found: Mapping[str, Any]) -> FleetDemand:
    return FleetDemand(
        tuple(ShardCapacity(**shard) for shard in found["shards"]),
        {name: ModelDemand(**{**model, "pins": tuple(model["pins"])}) for name, model in found["models"].items()},
        found["steps"],
        tuple(map(tuple, found["apart"])),
    )


def _findings(found: Iterable[Mapping[str, Any]]) -> tuple[Finding, ...]:
    return tuple(Finding(**each) for each in found)
