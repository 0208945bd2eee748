"""The changes between two placements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tidegate.placement.model import Move, MoveAction
from tidegate.placement.packing import NOWHERE, Packing

GONE = "the rules do not place it any more"


def find_moves(
    after: Packing, before: Packing, current: Mapping[str, tuple[str, ...]], reasons: Mapping[str, str]
) -> list[Move]:
    """Return the changes from `current` (packed in `before`) to `after`, sorted by action, shard and model.

    A part that several models need on a shard is counted with the first of them.
    """
    loads: list[Move] = []
    unloads: list[Move] = []
    prefers: list[Move] = []
    for model, was in sorted(current.items()):
        is_now = after.placed.get(model, NOWHERE)
        why = reasons.get(model, GONE)
        unloads += [Move(model, shard, MoveAction.UNLOAD, 0, why) for shard in was if shard not in is_now]
        if is_now and was and is_now[0] != was[0] and is_now[0] in was:
            prefers.append(Move(model, is_now[0], MoveAction.PREFER, 0, why))
    for model, is_now in after.placed.items():
        was = current.get(model, NOWHERE)
        loads += [Move(model, shard, MoveAction.LOAD, 0, reasons[model]) for shard in is_now if shard not in was]
    return [*_sized(loads, after, before), *_sized(unloads, before, after), *prefers]


def _sized(moves: list[Move], holding: Packing, other: Packing) -> list[Move]:
    """Return the moves with the memory that their shard has in `holding` and not in `other`."""
    counted: set[tuple[str, str]] = set()
    sized = []
    for move in sorted(moves, key=lambda move: (move.shard, move.model)):
        elsewhere = other.bins[move.shard].users if move.shard in other.bins else {}
        item = holding.items.get(move.model)
        names = [
            name
            for name in (item.names if item is not None else ())
            if name not in elsewhere and (move.shard, name) not in counted
        ]
        counted.update((move.shard, name) for name in names)
        sized.append(replace(move, memory_mb=sum(holding.sizes[name] for name in names)))
    return sized
