"""Which items are on which shards, and how full these are. Integers throughout, so that no rounding errors add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from itertools import accumulate

from tidegate.placement.model import EVERYONE, PlacementItem, ShardCapacity, ShardUse

PER_S = 1000
"""Traffic is counted in thousandths of a request per second."""

HOT_SHARE = 0.5
"""A model that expects this share of the largest shard's traffic gets a second shard, unless its replicas are given."""

NOWHERE: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """An item in the planner's units. `names` are its parts and itself, `size_mb` is their memory; `hot`: the planner gave it
    more than one shard for its traffic."""

    model: str
    names: tuple[str, ...]
    size_mb: int
    traffic: int
    replicas: int
    tenant: str | None
    pins: tuple[str, ...]
    hot: bool = False


@dataclass(slots=True, eq=False)
class Bin:
    """A shard while it is packed. `users` counts the items that need a part, `first` those that prefer this shard."""

    name: str
    memory_limit: int | None
    traffic_limit: int | None
    memory: int = 0
    traffic: int = 0
    first: int = 0
    users: dict[str, int] = field(default_factory=dict)
    items: dict[str, Item] = field(default_factory=dict)
    tenants: Counter[str | None] = field(default_factory=Counter)

    @property
    def memory_over(self) -> int:
        """The memory above the limit; negative: what is free."""
        return 0 if self.memory_limit is None else self.memory - self.memory_limit

    @property
    def traffic_over(self) -> int:
        return 0 if self.traffic_limit is None else self.traffic - self.traffic_limit

    def use(self) -> ShardUse:
        return ShardUse(self.memory, per_s(self.traffic) or 0.0, len(self.items))


class Packing:
    """The shards and their items. Only `assign` changes it; `mark` and `undo` revert changes."""

    def __init__(
        self,
        items: Iterable[PlacementItem],
        shards: Iterable[ShardCapacity],
        apart: Collection[tuple[str, str]],
    ) -> None:
        """Raise `ValueError` if a part has two sizes or a name is duplicated: bugs of the caller."""
        self.bins = {
            shard.name: Bin(shard.name, shard.memory_mb, _thousandths(shard.traffic_per_s))
            for shard in sorted(shards, key=lambda shard: shard.name)
        }
        self.sizes: dict[str, int] = {}
        given = sorted(items, key=lambda item: item.model)
        for each in given:
            for name, size in ({**each.parts, each.model: each.memory_mb}).items():
                if self.sizes.setdefault(name, size) != size:
                    raise ValueError(f"part {name!r} has {size} MB for {each.model!r} and {self.sizes[name]} MB before")
        limits = [bin_.traffic_limit for bin_ in self.bins.values() if bin_.traffic_limit is not None]
        self._limits = sorted(limits, reverse=True)
        self.items = {each.model: self._item(each) for each in given}
        if len(self.items) != len(given):
            raise ValueError("two items have the same model")
        self.placed: dict[str, tuple[str, ...]] = dict.fromkeys(self.items, NOWHERE)
        self._apart = {frozenset(pair) for pair in apart}
        self.exclusive = {tenant for pair in apart for tenant in pair if tenant != EVERYONE}
        self._journal: list[tuple[Item, tuple[str, ...]]] = []

    def assign(self, item: Item, shards: tuple[str, ...]) -> None:
        """Place an item on these shards alone, preferred first. Nothing is checked."""
        before = self.placed[item.model]
        if before == shards:
            return
        self._journal.append((item, before))
        self._count_traffic(item, before, -1)
        for name in before:
            if name not in shards:
                self._take(item, self.bins[name])
        for name in shards:
            if name not in before:
                self._put(item, self.bins[name])
        self._count_traffic(item, shards, 1)
        self.placed[item.model] = shards

    def resize(self, item: Item, replicas: int) -> Item:
        """Change the wanted number of shards of an item, and forget the changes so far: `undo` cannot revert this."""
        resized, on = replace(item, replicas=replicas), self.placed[item.model]
        self.assign(item, NOWHERE)
        self.items[item.model] = resized
        self.assign(resized, on)
        self._journal.clear()
        return resized

    def mark(self) -> int:
        return len(self._journal)

    def undo(self, mark: int) -> None:
        """Revert every change since a `mark`."""
        while len(self._journal) > mark:
            item, before = self._journal.pop()
            self.assign(item, before)
            self._journal.pop()

    def added_mb(self, item: Item, bin_: Bin) -> int:
        users, sizes = bin_.users, self.sizes
        return sum([sizes[name] for name in item.names if name not in users])

    def freed_mb(self, item: Item, bin_: Bin) -> int:
        users, sizes = bin_.users, self.sizes
        return sum([sizes[name] for name in item.names if users[name] == 1])

    def apart(self, one: str | None, other: str | None) -> bool:
        """Return whether models of two tenants (None: of no tenant) may not be on one shard."""
        if one == other or not self._apart:
            return False
        if any(tenant is not None and frozenset((tenant, EVERYONE)) in self._apart for tenant in (one, other)):
            return True
        return one is not None and other is not None and frozenset((one, other)) in self._apart

    def strangers(self, item: Item, bin_: Bin) -> list[str | None]:
        """Return the tenants of a shard from which an item is kept apart."""
        return [other for other in bin_.tenants if self.apart(item.tenant, other)] if self._apart else []

    def served(self, item: Item) -> bool:
        """Return whether no shard of an item has more traffic than it can take."""
        return all(bin_.traffic_over <= 0 for bin_, portion in self.portions(item, self.placed[item.model]) if portion)

    def portions(self, item: Item, shards: tuple[str, ...]) -> list[tuple[Bin, int]]:
        """Divide an item's traffic: each shard takes what it can and leaves the rest to the next."""
        left, found = item.traffic, []
        for position, name in enumerate(shards):
            bin_ = self.bins[name]
            portion = self.portion(bin_, left, last=position + 1 >= item.replicas)
            found.append((bin_, portion))
            left -= portion
        return found

    def portion(self, bin_: Bin, left: int, *, last: bool) -> int:
        """Return how much of an item's remaining traffic a shard takes; the last one takes all."""
        return left if last or bin_.traffic_limit is None else min(left, bin_.traffic_limit)

    def _replicas_for(self, traffic: int) -> int:
        """Return the default number of shards of a model with this traffic, from the shards with a limit."""
        if not traffic or not self._limits or traffic < HOT_SHARE * self._limits[0]:
            return 1
        needed = next((count for count, taken in enumerate(accumulate(self._limits), 1) if taken >= traffic), None)
        return min(len(self.bins), max(2, len(self._limits) + 1 if needed is None else needed))

    def _item(self, each: PlacementItem) -> Item:
        names = tuple(sorted({each.model, *each.parts}))
        traffic = _thousandths(each.traffic_per_s) or 0
        wanted = len(each.pins) or each.replicas
        replicas = self._replicas_for(traffic) if wanted is None else wanted
        size = sum(self.sizes[name] for name in names)
        return Item(
            each.model, names, size, traffic, replicas, each.tenant, each.pins, hot=wanted is None and replicas > 1
        )

    def _count_traffic(self, item: Item, shards: tuple[str, ...], sign: int) -> None:
        if not shards:
            return
        self.bins[shards[0]].first += sign
        if item.traffic:
            for bin_, portion in self.portions(item, shards):
                bin_.traffic += sign * portion

    def _put(self, item: Item, bin_: Bin) -> None:
        for name in item.names:
            count = bin_.users.get(name, 0)
            if not count:
                bin_.memory += self.sizes[name]
            bin_.users[name] = count + 1
        bin_.items[item.model] = item
        bin_.tenants[item.tenant] += 1

    def _take(self, item: Item, bin_: Bin) -> None:
        for name in item.names:
            bin_.users[name] -= 1
            if not bin_.users[name]:
                del bin_.users[name]
                bin_.memory -= self.sizes[name]
        del bin_.items[item.model]
        bin_.tenants[item.tenant] -= 1
        if not bin_.tenants[item.tenant]:
            del bin_.tenants[item.tenant]


def per_s(traffic: int | None) -> float | None:
    return None if traffic is None else traffic / PER_S


def _thousandths(per_s: float | None) -> int | None:
    return None if per_s is None else round(per_s * PER_S)
