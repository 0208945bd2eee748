"""`tidegate fleet …`: plan the fleet that a rules directory describes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tidegate.cli.columns import count, say, show_table
from tidegate.cli.group import ReportingGroup
from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.cli.options import DIRECTORY
from tidegate.cli.rules.named import sound_program
from tidegate.files import read_regular
from tidegate.placement import FleetDemand, PlacementPlan, ShardPlan
from tidegate.rules import compile_directory, load_bundle
from tidegate.rules.bundle import MAX_BYTES

SHOWN = 4


@click.group(cls=ReportingGroup)
def fleet() -> None:
    """Plan the fleet that a rules directory describes."""


@fleet.command(short_help="Plan where models are placed, and what that would move.")
@click.option("--rules", type=DIRECTORY, required=True, help="Directory of the rules.")
@click.option(
    "--models",
    type=DIRECTORY,
    help="Triton model repository, for the steps of ensembles and for sizes that fleet.yaml lacks.",
)
@click.option(
    "--current",
    type=click.Path(exists=True, path_type=Path),
    help="The present placement: a bundle, or the rules directory that it was compiled from.",
)
@AS_JSON
def plan(rules: Path, models: Path | None, current: Path | None, as_json: bool) -> None:
    """Plan where the models of fleet.yaml are placed, and why, and what moves against the present placement.

    The memory of a model is its memory_mb in fleet.yaml, else the size of its files in --models, else 0. Exit code 1:
    something moves against --current, or not everything fits.
    """
    demand = sound_program(rules, as_json=as_json).world.demand
    closures, notes = _closures(demand, models)
    planned = demand.plan(closures, None if current is None else _placement(current))
    moved = current is not None and bool(planned.moves)
    if as_json:
        print_json(_as_dict(planned, notes, compared=current is not None))
    else:
        _show(planned, compared=current is not None)
        for note in notes:
            say(f"note: {note}", err=True)
        for problem in planned.problems:
            say(f"error: {problem}", err=True)
    if moved or planned.problems:
        raise click.exceptions.Exit(1)


def _placement(current: Path) -> Mapping[str, Sequence[str]]:
    try:
        data = compile_directory(current) if current.is_dir() else read_regular(current, MAX_BYTES)
    except OSError as error:
        raise click.BadParameter(f"{current} cannot be read: {error.strerror}", param_hint="--current") from error
    return load_bundle(data).fleet.models


def _closures(demand: FleetDemand, models: Path | None) -> tuple[Mapping[str, Mapping[str, int]], list[str]]:
    """Return the closures of all models, and notes on their sizes."""
    if models is None:
        undeclared = [model for model in demand.models if demand.declared_mb(model) is None]
        return {}, _note("no memory_mb and no --models, so that it counts nothing and its steps neither", undeclared)
    from tidegate.models.footprint import read_footprints

    read = read_footprints(models, demand.models)
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


def _show(planned: PlacementPlan, *, compared: bool) -> None:
    """Print the shards and, beside a current placement (`compared`), the moves; else every placement."""
    figures = ("models", "memory, MB", "of MB", "requests/s", "of requests/s", "MB")
    heads = ("shard", *figures[:5])
    rows = [(shard.capacity.name, *_uses(shard, compared=compared)) for shard in planned.shards]
    show_table(heads, rows, figures, box=True)
    if not compared:
        placed = [(each.model, ", ".join(each.shards) or "-", each.reason) for each in planned.decisions]
        show_table(("model", "shards", "why"), placed, box=True)
    elif planned.moves:
        moves = [(each.model, each.action, each.shard, str(each.memory_mb), each.reason) for each in planned.moves]
        show_table(("model", "change", "shard", "MB", "why"), moves, figures, box=True)
    say(_summary(planned, compared=compared))


def _uses(shard: ShardPlan, *, compared: bool) -> list[str]:
    """Return the cells of a shard: each use as `before → after`, each limit, or "-" where there is none."""

    def change(before: float, after: float) -> str:
        return f"{before:g} → {after:g}" if compared else f"{after:g}"

    before, after, capacity = shard.before, shard.after, shard.capacity
    return [
        change(before.models, after.models),
        change(before.memory_mb, after.memory_mb),
        "-" if capacity.memory_mb is None else str(capacity.memory_mb),
        change(before.traffic_per_s, after.traffic_per_s),
        "-" if capacity.traffic_per_s is None else f"{capacity.traffic_per_s:g}",
    ]


def _summary(planned: PlacementPlan, *, compared: bool) -> str:
    if planned.problems:
        return f"does not fit: {count(len(planned.problems), 'problem')}"
    if not compared:
        return f"fits: {count(len(planned.decisions), 'model')} on {count(len(planned.shards), 'shard')}"
    if not planned.moves:
        return "nothing moves"
    return f"{count(len(planned.moves), 'move')}, {planned.load_mb} MB to load"
