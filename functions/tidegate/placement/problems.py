"""Explains what does not fit, and what would help."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import combinations

from tidegate.placement.model import PlacementProblem
from tidegate.placement.packing import PER_S, Bin, Item, Packing

SHOWN = 4
"""How many shards or models a message lists."""


def find_problems(packing: Packing, current: Collection[str] = ()) -> list[PlacementProblem]:
    """Return the problems of a packing: pins that conflict, models that the empty fleet could not take, and one problem for all
    other models that lack shards, in which those in `current` are named last.
    """
    found = [problem for bin_ in packing.bins.values() for problem in _pins(packing, bin_)]
    short = []
    for item in packing.items.values():
        if item.pins or len(packing.placed[item.model]) >= item.replicas:
            continue
        explained = impossible(packing, item)
        if explained is not None:
            found.append(PlacementProblem(item.model, "", *explained))
        else:
            short.append(item)
    if len(short) == 1:
        found.append(_unplaced(packing, short[0]))
    elif short:
        found.append(_together(packing, short, current))
    return found


def impossible(packing: Packing, item: Item) -> tuple[str, str] | None:
    """Return why not even the empty fleet could take a model, and what would help; None if it could."""
    for check in (_too_many, _too_large, _too_hot):
        explained = check(packing, item)
        if explained is not None:
            return explained
    return None


def _together(packing: Packing, short: list[Item], current: Collection[str]) -> PlacementProblem:
    possible = [each for each in packing.items.values() if each.pins or impossible(packing, each) is None]
    memory = _missing([bin_.memory_limit for bin_ in packing.bins.values()], _least_memory(packing, possible))
    traffic = _missing([bin_.traffic_limit for bin_ in packing.bins.values()], sum(each.traffic for each in possible))
    if not (traffic or memory):
        short.sort(key=lambda item: (item.model in current, -item.size_mb, -item.traffic, item.model))
        first = _unplaced(packing, short[0])
        others = _names([each.model for each in short[1:]])
        also = tuple(each.model for each in short[1:])
        return PlacementProblem(first.model, "", f"{first.message}; nor is there room for {others}", first.hint, also)
    if traffic:
        needed, had, lack = (f"{each / PER_S:g}/s" for each in traffic)
        message = f"the models expect {needed} together, and the shards take {had}: {lack} are missing"
        hint = f"raise the shards' traffic_per_s by {lack} in all, with more servers, or lower what models expect"
        asking = sorted(possible, key=lambda item: (item.model in current, -item.traffic, item.model))
        most = [f"{each.model!r} ({each.traffic / PER_S:g}/s)" for each in asking[:SHOWN] if each.traffic]
    else:
        needed, had, lack = (f"{each} MB" for each in memory or ())
        message = f"the models need {needed} together, each step once, and the shards have {had}: {lack} are missing"
        hint = f"raise the shards' memory_mb by {lack} in all, or place fewer or smaller models"
        asking = sorted(possible, key=lambda item: (item.model in current, -item.size_mb * item.replicas, item.model))
        most = [f"{each.model!r} ({each.size_mb * each.replicas} MB)" for each in asking[:SHOWN]]
    names = _names(sorted(each.model for each in short))
    message += f", so that {names} find too few shards; most is asked for by {', '.join(most)}"
    also = tuple(each.model for each in short if each is not asking[0])
    return PlacementProblem(asking[0].model, "", message, hint, also)


def _missing(limits: list[int | None], needed: int) -> tuple[int, int, int] | None:
    """Return what is needed, available and missing; None if nothing is missing."""
    had = sum(limit for limit in limits if limit is not None)
    return None if None in limits or needed <= had else (needed, had, needed - had)


def _least_memory(packing: Packing, items: list[Item]) -> int:
    """Return the least memory of items: each part as often as the item with the most replicas that needs it."""
    copies: dict[str, int] = {}
    for item in items:
        for name in item.names:
            copies[name] = max(copies.get(name, 0), 1 if item.hot else item.replicas)
    return sum(packing.sizes[name] * count for name, count in copies.items())


def _names(models: list[str]) -> str:
    shown = ", ".join(map(repr, models[:SHOWN]))
    return shown if len(models) <= SHOWN else f"{shown} and {len(models) - SHOWN} more"


def _pins(packing: Packing, bin_: Bin) -> Iterator[PlacementProblem]:
    pinned = [item for item in bin_.items.values() if item.pins]
    if bin_.memory_over > 0:
        message = f"the models pinned to shard {bin_.name!r} need {bin_.memory} MB, and it has {bin_.memory_limit}"
        yield PlacementProblem("", bin_.name, message, f"pin fewer, or raise its memory_mb by {bin_.memory_over}")
    if bin_.traffic_over > 0:
        limit = (bin_.traffic_limit or 0) / PER_S
        message = f"the models pinned first to shard {bin_.name!r} expect {bin_.traffic / PER_S:g}/s, and it takes {limit:g}/s"
        hint = f"pin fewer there first, or raise its traffic_per_s by {bin_.traffic_over / PER_S:g}"
        yield PlacementProblem("", bin_.name, message, hint)
    for one, other in combinations(pinned, 2):
        if packing.apart(one.tenant, other.tenant):
            message = (
                f"{_owned(one)} and {_owned(other)} are pinned to shard {bin_.name!r}, and their tenants are kept apart"
            )
            yield PlacementProblem(one.model, bin_.name, message, "pin one of them to another shard")


def _unplaced(packing: Packing, item: Item) -> PlacementProblem:
    free = [bin_ for bin_ in packing.bins.values() if bin_.name not in packing.placed[item.model]]
    free.sort(key=lambda bin_: (bool(packing.strangers(item, bin_)), _lack(packing, item, bin_), bin_.name))
    reasons = [f"{bin_.name} {_obstacle(packing, item, bin_)}" for bin_ in free[:SHOWN]]
    reasons += [f"{len(free) - SHOWN} more lack more"] if len(free) > SHOWN else []
    placed = len(packing.placed[item.model])
    where = "on no shard" if not placed else f"on {placed} of {item.replicas} shards"
    message = f"{_described(item)} fits {where}: {'; '.join(reasons)}"
    return PlacementProblem(item.model, "", message, _help(packing, item, free[0]))


def _too_many(packing: Packing, item: Item) -> tuple[str, str] | None:
    if item.replicas <= len(packing.bins):
        return None
    return (
        f"model {item.model!r} asks for {item.replicas} shards, and the fleet has {len(packing.bins)}",
        "lower its replicas, or add a shard",
    )


def _too_large(packing: Packing, item: Item) -> tuple[str, str] | None:
    limits = [bin_.memory_limit for bin_ in packing.bins.values()]
    largest = max((limit for limit in limits if limit is not None), default=0)
    if None in limits or item.size_mb <= largest:
        return None
    return (
        f"model {item.model!r} needs {item.size_mb} MB with its steps, and the largest shard has {largest}: {item.size_mb - largest} MB are missing",
        f"give a shard a memory_mb of at least {item.size_mb}",
    )


def _too_hot(packing: Packing, item: Item) -> tuple[str, str] | None:
    limits = [bin_.traffic_limit for bin_ in packing.bins.values()]
    most = sum(sorted((limit for limit in limits if limit is not None), reverse=True)[: item.replicas])
    if None in limits or item.traffic <= most:
        return None
    return (
        f"model {item.model!r} expects {item.traffic / PER_S:g}/s, and {_count(item.replicas)} "
        f"{'takes' if item.replicas == 1 else 'take'} {most / PER_S:g}/s at most: {(item.traffic - most) / PER_S:g}/s are missing",
        "place it on more shards (replicas), or give shards more servers and a higher traffic_per_s",
    )


def _lack(packing: Packing, item: Item, bin_: Bin) -> int:
    """Return the memory that a shard lacks for an item."""
    if bin_.memory_limit is None:
        return 0
    return max(0, bin_.memory + packing.added_mb(item, bin_) - bin_.memory_limit)


def _obstacle(packing: Packing, item: Item, bin_: Bin) -> str:
    strangers = packing.strangers(item, bin_)
    if strangers:
        names = ", ".join(sorted("no tenant" if tenant is None else tenant for tenant in strangers))
        return f"holds models of {names}, which is kept apart"
    if _lack(packing, item, bin_):
        return f"has {-bin_.memory_over} of the {packing.added_mb(item, bin_)} MB free that it would add"
    return f"has {-bin_.traffic_over / PER_S:g}/s of its traffic free"


def _help(packing: Packing, item: Item, nearest: Bin) -> str:
    if packing.strangers(item, nearest):
        return f"add a shard of at least {item.size_mb} MB for its tenant, or keep fewer tenants apart"
    lack = _lack(packing, item, nearest)
    if lack:
        return f"raise the memory_mb of {nearest.name!r} by {lack}, or add a shard of at least {item.size_mb} MB"
    return f"raise the traffic_per_s of a shard with more servers, or add a shard that takes {item.traffic / PER_S:g}/s"


def _described(item: Item) -> str:
    traffic = f", {item.traffic / PER_S:g}/s" if item.traffic else ""
    return f"{_owned(item)} ({item.size_mb} MB with its steps{traffic})"


def _owned(item: Item) -> str:
    return f"model {item.model!r}" + ("" if item.tenant is None else f" of tenant {item.tenant!r}")


def _count(shards: int) -> str:
    return "one shard" if shards == 1 else f"{shards} shards"
