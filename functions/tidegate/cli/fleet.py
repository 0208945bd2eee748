"""`tidegate fleet …`: plan the fleet that a rules directory describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from tidegate.cli.columns import count, say, show_table
from tidegate.cli.group import ReportingGroup
from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.cli.options import DIRECTORY
from tidegate.cli.rules.named import sound_program
from tidegate.files import read_regular
from tidegate.models.fleet_plan import plan_fleet, plan_json
from tidegate.placement import PlacementPlan, ShardPlan
from tidegate.rules import compile_directory, load_bundle
from tidegate.rules.bundle import MAX_BYTES


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
    planned, notes = plan_fleet(demand, models, None if current is None else _placement(current))
    moved = current is not None and bool(planned.moves)
    if as_json:
        print_json(plan_json(planned, notes, compared=current is not None))
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
