"""Prints a plan for people: the shards before and after, and the moves, or every placement where nothing is compared."""

from __future__ import annotations

from tidegate.cli import columns
from tidegate.rules.placement import PlacementPlan, ShardPlan


def show_plan(planned: PlacementPlan, *, compared: bool) -> None:
    """Print a plan; `compared`: there is a current placement, so that what was before and what moves is shown."""
    console = columns.console()
    figures = ("models", "memory, MB", "of MB", "requests/s", "of requests/s", "MB")
    heads = ("shard", *figures[:5])
    rows = [(shard.capacity.name, *_uses(shard, compared=compared)) for shard in planned.shards]
    columns.show_table(console, heads, rows, figures, box=True)
    if not compared:
        placed = [(each.model, ", ".join(each.shards) or "-", each.reason) for each in planned.decisions]
        columns.show_table(console, ("model", "shards", "why"), placed, box=True)
    elif planned.moves:
        moves = [(each.model, each.action, each.shard, str(each.memory_mb), each.reason) for each in planned.moves]
        columns.show_table(console, ("model", "change", "shard", "MB", "why"), moves, figures, box=True)
    columns.line(console, _summary(planned, compared=compared))


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
