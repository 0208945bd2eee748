"""The plan of a fleet from its rules and a folder of models, as `tidegate fleet plan` and the console show it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tidegate.placement import FleetDemand, PlacementPlan

SHOWN = 4


def plan_fleet(
    demand: FleetDemand, models: Path | None, current: Mapping[str, Sequence[str]] | None
) -> tuple[PlacementPlan, list[str]]:
    """Plan where models are placed, against a current placement, with notes on sizes that are not known.

    The memory of a model is its memory_mb in fleet.yaml, else the size of its files in `models`, else 0. Raises `ModelConfigError`.
    """
    closures, notes = _closures(demand, models)
    return demand.plan(closures, current), notes


def _closures(demand: FleetDemand, models: Path | None) -> tuple[Mapping[str, Mapping[str, int]], list[str]]:
    """Return the closures of all models, and notes on their sizes."""
    if models is None:
        undeclared = [model for model in demand.models if demand.declared_mb(model) is None]
        return {}, _note("no memory_mb and no --models, so that it counts nothing and its steps neither", undeclared)
    # It loads Triton's client, which a plan without a folder does without.
    from tidegate.models.footprint import read_footprints

    read = read_footprints(models, demand.models)
    parts = sorted({part for closure in read.closures.values() for part in closure})
    guessed = [part for part in parts if demand.declared_mb(part) is None]
    notes = _note("no memory_mb, so that it counts by the size of its files, the least that it takes", guessed)
    return read.closures, notes + _note(f"no folder in {models}, so that it counts by what is declared", read.missing)


def _note(what: str, models: Sequence[str]) -> list[str]:
    more = f" and {len(models) - SHOWN} more" if len(models) > SHOWN else ""
    return [f"{what}: {', '.join(models[:SHOWN])}{more}"] if models else []


def plan_json(planned: PlacementPlan, notes: list[str], *, compared: bool) -> dict[str, Any]:
    """Return a plan as plain JSON values: see docs/json.md."""
    return {
        "ok": not planned.problems and not (compared and planned.moves),
        "fits": not planned.problems,
        "problems": [dataclasses.asdict(each) for each in planned.problems],
        "placement": {model: list(shards) for model, shards in planned.placement.items()},
        "reasons": {each.model: each.reason for each in planned.decisions},
        "moves": [dataclasses.asdict(move) for move in planned.moves] if compared else [],
        "load_mb": planned.load_mb if compared else 0,
        "shards": [
            dataclasses.asdict(shard.capacity)
            | {"before": dataclasses.asdict(shard.before), "after": dataclasses.asdict(shard.after)}
            for shard in planned.shards
        ],
        "notes": notes,
    }
