"""Prints a plan for people: the shards before and after, and the moves, or every placement where nothing is compared."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from tidegate.rules.placement import PlacementPlan, ShardPlan

PLAIN_WIDTH = 160
"""Columns where the output is no terminal, so that nothing is cut for a file or another program."""


def show_plan(planned: PlacementPlan, *, compared: bool) -> None:
    """Print a plan; `compared`: there is a current placement, so that what was before and what moves is shown."""
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    console.print(_shards(planned, compared=compared))
    if not compared:
        console.print(_placements(planned))
    elif planned.moves:
        console.print(_moves(planned))
    console.print(_summary(planned, compared=compared))


def _shards(planned: PlacementPlan, *, compared: bool) -> Table:
    table = Table("shard")
    for name in ("models", "memory, MB", "of", "requests/s", "of"):
        table.add_column(name, justify="right")
    for shard in planned.shards:
        table.add_row(shard.capacity.name, *_uses(shard, compared=compared))
    return table


def _uses(shard: ShardPlan, *, compared: bool) -> list[str]:
    """The cells of a shard: each use as `before → after`, each limit, or "-" where there is none."""

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


def _moves(planned: PlacementPlan) -> Table:
    table = Table("model", "change", "shard")
    table.add_column("MB", justify="right")
    table.add_column("why")
    for move in planned.moves:
        table.add_row(move.model, move.action, move.shard, str(move.memory_mb), move.reason)
    return table


def _placements(planned: PlacementPlan) -> Table:
    table = Table("model", "shards", "why")
    for decision in planned.decisions:
        table.add_row(decision.model, ", ".join(decision.shards) or "-", decision.reason)
    return table


def _summary(planned: PlacementPlan, *, compared: bool) -> str:
    if planned.problems:
        return f"does not fit: {_count(len(planned.problems), 'problem')}"
    if not compared:
        return f"fits: {_count(len(planned.decisions), 'model')} on {_count(len(planned.shards), 'shard')}"
    if not planned.moves:
        return "nothing moves"
    return f"{_count(len(planned.moves), 'move')}, {planned.load_mb} MB to load"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
