"""`tidegate fleet plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tidegate.cli.columns import say
from tidegate.cli.fleet.plan_tables import show_plan
from tidegate.cli.rules.compiled import sound_program
from tidegate.cli.rules.options import AS_JSON, DIRECTORY, print_json
from tidegate.files import read_regular
from tidegate.rules import compile_directory, load_bundle
from tidegate.rules.bundle import MAX_BYTES
from tidegate.rules.placement import FleetDemand, Move, PlacementPlan, ShardPlan

SHOWN = 4
"""How many models a note names."""


@click.command()
@click.option("--rules", type=DIRECTORY, required=True, help="Directory of the rules.")
@click.option("--models", type=DIRECTORY, help="Triton model repository: ensembles' steps, and sizes nobody declared.")
@click.option(
    "--current",
    type=click.Path(exists=True, path_type=Path),
    help="What is placed now: a bundle, or the rules directory that it was made from.",
)
@AS_JSON
def plan(rules: Path, models: Path | None, current: Path | None, as_json: bool) -> None:
    """Plan where the models of fleet.yaml are placed, say why, and what that moves against what is placed now.

    A model's memory is its memory_mb in fleet.yaml; where that is not said, the size of its files in --models, and
    nothing without --models. Exit code 1: something moves against --current, or not everything fits.
    """
    demand = sound_program(rules, as_json=as_json).world.demand
    closures, notes = _closures(demand, models)
    planned = demand.plan(closures, None if current is None else _placement(current))
    moved = current is not None and bool(planned.moves)
    if as_json:
        print_json(_as_dict(planned, notes, compared=current is not None))
    else:
        show_plan(planned, compared=current is not None)
        for note in notes:
            say(f"note: {note}", err=True)
        for problem in planned.problems:
            say(f"error: {problem}", err=True)
    if moved or planned.problems:
        raise click.exceptions.Exit(1)


def _placement(current: Path) -> Mapping[str, Sequence[str]]:
    if current.is_dir():
        return load_bundle(compile_directory(current)).fleet.models
    try:
        data = read_regular(current, MAX_BYTES)
    except OSError as error:
        raise click.BadParameter(f"{current} cannot be read: {error.strerror}", param_hint="--current") from error
    return load_bundle(data).fleet.models


def _closures(demand: FleetDemand, models: Path | None) -> tuple[Mapping[str, Mapping[str, int]], list[str]]:
    """The closures of all models, and what is to be said of the sizes."""
    if models is None:
        undeclared = [model for model in demand.models if demand.declared_mb(model) is None]
        return {}, _note("no memory_mb and no --models, so that it counts nothing and its steps neither", undeclared)
    from tidegate.triton.footprint import read_footprints
    from tidegate.triton.model_directory import ModelDirectory

    read = read_footprints(ModelDirectory(models), demand.models)
    parts = sorted({part for closure in read.closures.values() for part in closure})
    guessed = [part for part in parts if demand.declared_mb(part) is None]
    notes = _note("no memory_mb, so that it counts by the size of its files, the least that it takes", guessed)
    return read.closures, notes + _note(f"no folder in {models}, so that it counts by what is declared", read.missing)


def _note(what: str, models: Sequence[str]) -> list[str]:
    more = f" and {len(models) - SHOWN} more" if len(models) > SHOWN else ""
    return [f"{what}: {', '.join(models[:SHOWN])}{more}"] if models else []


def _as_dict(planned: PlacementPlan, notes: list[str], *, compared: bool) -> dict[str, Any]:
    return {
        "ok": not planned.problems and not (compared and planned.moves),
        "fits": not planned.problems,
        "problems": [
            {
                "model": each.model,
                "shard": each.shard,
                "message": each.message,
                "hint": each.hint,
                "also": list(each.also),
            }
            for each in planned.problems
        ],
        "placement": {model: list(shards) for model, shards in planned.placement.items()},
        "reasons": {each.model: each.reason for each in planned.decisions},
        "moves": [_move_dict(move) for move in planned.moves] if compared else [],
        "load_mb": planned.load_mb if compared else 0,
        "shards": [_shard_dict(shard) for shard in planned.shards],
        "notes": notes,
    }


def _move_dict(move: Move) -> dict[str, Any]:
    return {
        "model": move.model,
        "shard": move.shard,
        "action": move.action,
        "memory_mb": move.memory_mb,
        "reason": move.reason,
    }


def _shard_dict(shard: ShardPlan) -> dict[str, Any]:
    return {
        "name": shard.capacity.name,
        "memory_mb": shard.capacity.memory_mb,
        "traffic_per_s": shard.capacity.traffic_per_s,
    } | {
        when: {"memory_mb": use.memory_mb, "traffic_per_s": use.traffic_per_s, "models": use.models}
        for when, use in (("before", shard.before), ("after", shard.after))
    }
