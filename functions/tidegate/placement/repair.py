"""Relieves shards that hold too much, and makes room for models that fit nowhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

from tidegate.placement.choosing import Chooser
from tidegate.placement.packing import PER_S, Bin, Item, Packing

Note = Callable[[Item, str], None]
"""Records why an item moves."""


def relieve(packing: Packing, chooser: Chooser, note: Note) -> None:
    """Take from every shard what exceeds it, except pins. A model keeps its other shards, and nothing is taken if another order
    of its shards is enough.
    """
    before: dict[str, tuple[str, ...]] = {}
    while before != packing.placed:
        # Taking a model from its first shard sends its traffic to the next one, which may have been checked before.
        before = dict(packing.placed)
        for bin_ in packing.bins.values():
            _separate(packing, bin_, note)
            _relieve_memory(packing, bin_, note)
            _relieve_traffic(packing, chooser, bin_, note)


def make_room(packing: Packing, chooser: Chooser, item: Item, note: Note) -> bool:
    """Place one more replica of an item by moving as little memory as possible; return False if that is impossible."""
    best: _Clearing | None = None
    on = packing.placed[item.model]
    for bin_ in packing.bins.values():
        if bin_.name in on or (bin_.memory_limit is not None and item.size_mb > bin_.memory_limit):
            continue
        mark = packing.mark()
        clearing = _clear(packing, chooser, item, bin_)
        packing.undo(mark)
        if clearing is not None and (best is None or clearing.cost < best.cost):
            best = clearing
    if best is None:
        return False
    for other, shards in best.moved:
        packing.assign(other, shards)
        note(other, f"makes room on {best.shard} for {item.model!r}")
    packing.assign(item, best.placed)
    return True


@dataclass(frozen=True, slots=True)
class _Clearing:
    """A way to make room on a shard: the item's shards, those of the moved items, and the cost (MB loaded, models moved)."""

    shard: str
    placed: tuple[str, ...]
    moved: tuple[tuple[Item, tuple[str, ...]], ...]
    cost: tuple[int, int]


def _clear(packing: Packing, chooser: Chooser, item: Item, bin_: Bin) -> _Clearing | None:
    """Put an item on a shard, and what is in its way elsewhere; None if that is impossible."""
    strangers = packing.strangers(item, bin_)
    moved = [other for other in bin_.items.values() if other.tenant in strangers] if strangers else []
    packing.assign(item, (*packing.placed[item.model], bin_.name))
    if not packing.served(item):
        chooser.prefer(item, bin_.name)
    for other in moved:
        if other.pins:
            return None
        _leave(packing, other, bin_)
    while bin_.memory_over > 0 or bin_.traffic_over > 0:
        pick = _heaviest(packing, bin_, item) if bin_.memory_over > 0 else _busiest(packing, bin_, item)
        if pick is None:
            return None
        _leave(packing, pick, bin_)
        moved.append(pick)
    before = {each.name: each.memory for each in packing.bins.values()}
    if not all(chooser.complete(other, bin_.name) for other in chooser.order(moved)) or not packing.served(item):
        return None
    loaded = sum(each.memory - before[each.name] for each in packing.bins.values())
    placed = packing.placed
    return _Clearing(
        bin_.name,
        placed[item.model],
        tuple((other, placed[other.model]) for other in moved),
        (loaded, len(moved)),
    )


def _separate(packing: Packing, bin_: Bin, note: Note) -> None:
    """Take from a shard the smaller of two tenants that are kept apart, or the one without pins there."""
    for one, other in combinations(sorted(bin_.tenants, key=str), 2):
        if not packing.apart(one, other) or not {one, other} <= bin_.tenants.keys():
            continue
        groups = [[each for each in bin_.items.values() if each.tenant == tenant] for tenant in (one, other)]
        leaving, staying = sorted(
            groups, key=lambda group: (any(each.pins for each in group), sum(each.size_mb for each in group))
        )
        for each in leaving:
            if not each.pins:
                _leave(packing, each, bin_)
                other_tenant = staying[0].tenant
                whose = "no tenant" if other_tenant is None else f"tenant {other_tenant!r}"
                note(each, f"it may not share {bin_.name} with models of {whose}")


def _relieve_memory(packing: Packing, bin_: Bin, note: Note) -> None:
    while (over := bin_.memory_over) > 0 and (item := _heaviest(packing, bin_)) is not None:
        _leave(packing, item, bin_)
        note(item, f"{bin_.name} was {over} MB over its memory")


def _relieve_traffic(packing: Packing, chooser: Chooser, bin_: Bin, note: Note) -> None:
    for item in list(bin_.items.values()):
        if (over := bin_.traffic_over) <= 0:
            return
        shards = packing.placed[item.model]
        is_first = item.traffic and not item.pins and shards[0] == bin_.name
        if is_first and any(chooser.prefer(item, other) for other in shards[1:]):
            note(item, _over_traffic(bin_, over))
    while (over := bin_.traffic_over) > 0 and (pick := _busiest(packing, bin_)) is not None:
        _leave(packing, pick, bin_)
        note(pick, _over_traffic(bin_, over))


def _over_traffic(bin_: Bin, over: int) -> str:
    return f"{bin_.name} was {over / PER_S:g}/s over its traffic"


def _leave(packing: Packing, item: Item, bin_: Bin) -> None:
    packing.assign(item, tuple(name for name in packing.placed[item.model] if name != bin_.name))


def _heaviest(packing: Packing, bin_: Bin, but: Item | None = None) -> Item | None:
    """Return the smallest item that frees enough memory, else the one that frees most."""
    free = [item for item in bin_.items.values() if not item.pins and item is not but]
    return _cheapest([(packing.freed_mb(item, bin_), item) for item in free], bin_.memory_over)


def _busiest(packing: Packing, bin_: Bin, but: Item | None = None) -> Item | None:
    """Return the smallest item that frees enough traffic, else the one that frees most."""
    portions = []
    for item in bin_.items.values():
        if item.traffic and not item.pins and item is not but:
            portion = sum(part for each, part in packing.portions(item, packing.placed[item.model]) if each is bin_)
            portions.append((portion, item))
    return _cheapest([(portion, item) for portion, item in portions if portion], bin_.traffic_over)


def _cheapest(freed_by: list[tuple[int, Item]], over: int) -> Item | None:
    if not freed_by:
        return None
    enough = [(item.size_mb, freed, item.model, item) for freed, item in freed_by if freed >= over]
    if enough:
        return min(enough)[3]
    return min((-freed, item.size_mb, item.model, item) for freed, item in freed_by)[3]
