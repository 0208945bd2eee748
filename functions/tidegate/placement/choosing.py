"""Chooses the shard of the next replica."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from tidegate.placement.packing import NOWHERE, Bin, Item, Packing

Key = tuple[Any, ...]


class Chooser:
    """Chooses shards for the items of one packing.

    Of the shards that can take a replica it picks the one where the sum over all shards of the squared shares of memory and
    of traffic in use grows least. That balances the shards and still co-locates models that share steps, as a loaded step
    adds nothing. Greedy by the L2 norm: Panigrahy et al., "Heuristics for Vector Bin Packing", 2011. Items that share
    memory: Sindelar et al., "Sharing-Aware Algorithms for Virtual Machine Colocation", SPAA 2011.

    A shard that a tenant enters is lost to the tenants that are kept apart from it. So such a tenant first fills its own
    shards, until its share of the shards is no smaller than its share of memory and traffic.

    Args:
        tight: pick the fullest shard, where least is loaded: uneven, but more fits.
        current: the shards of each model now, which come before all others.
    """

    def __init__(
        self, packing: Packing, *, tight: bool = False, current: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        self._packing = packing
        self._tight = tight
        self._current = current or {}
        items, bins = packing.items.values(), packing.bins.values()
        count = max(1, len(bins))
        memory = sum(item.size_mb * item.replicas for item in items)
        traffic = sum(item.traffic for item in items)
        self._memory_scale = {each.name: each.memory_limit or max(1.0, memory / count) for each in bins}
        self._traffic_scale = {each.name: each.traffic_limit or max(1.0, traffic / count) for each in bins}
        self._quotas = self._shards_by_tenant(memory, traffic, count)

    def order(self, items: Collection[Item]) -> list[Item]:
        """Sort items for placing: those of tenants that are kept apart first, then the largest."""
        exclusive = self._packing.exclusive
        memory = min(self._memory_scale.values(), default=1.0)
        traffic = min(self._traffic_scale.values(), default=1.0)
        return sorted(
            items,
            key=lambda item: (
                item.tenant not in exclusive,
                -max(item.size_mb / memory, item.traffic / traffic),
                -item.size_mb,
                item.model,
            ),
        )

    def complete(self, item: Item, without: str | None = None) -> bool:
        """Place an item on the shards that it still lacks, never on `without`. Return False if too few could take it; it keeps
        those that did."""
        packing = self._packing
        kept = packing.placed[item.model]
        shards = kept
        while len(shards) < item.replicas and (best := self._best(item, shards, without)) is not None:
            shards = (*shards, best.name)
            packing.assign(item, shards)
        if len(shards) > 1:
            if not kept:
                self._least_loaded_first(item, shards)
            elif not packing.served(item):
                any(self.prefer(item, name) for name in reversed(shards))
        return len(shards) >= item.replicas and packing.served(item)

    def prefer(self, item: Item, first: str) -> bool:
        """Put one of an item's shards first, unless a shard would then get more traffic than it can take."""
        packing = self._packing
        before = packing.placed[item.model]
        packing.assign(item, (first, *(name for name in before if name != first)))
        if packing.served(item):
            return True
        packing.assign(item, before)
        return False

    def next_portion(self, item: Item, bin_: Bin, shards: tuple[str, ...]) -> int:
        """Return the traffic of an item that its next shard after `shards` would get."""
        packing = self._packing
        left = item.traffic
        for name in shards:
            left -= packing.portion(packing.bins[name], left, last=False)
        return packing.portion(bin_, left, last=len(shards) + 1 >= item.replicas)

    def _best(self, item: Item, shards: tuple[str, ...], without: str | None) -> Bin | None:
        packing = self._packing
        current = self._current.get(item.model, NOWHERE)
        best: Bin | None = None
        best_key: Key = ()
        for name, bin_ in packing.bins.items():
            if name in shards or name == without:
                continue
            added = packing.added_mb(item, bin_)
            if bin_.memory_limit is not None and bin_.memory + added > bin_.memory_limit:
                continue
            portion = self.next_portion(item, bin_, shards) if item.traffic else 0
            if portion and bin_.traffic_limit is not None and bin_.traffic + portion > bin_.traffic_limit:
                continue
            if packing.strangers(item, bin_):
                continue
            key = (name not in current, self._enters(item, bin_), *self._cost(bin_, added, portion), name)
            if best is None or key < best_key:
                best, best_key = bin_, key
        return best

    def _cost(self, bin_: Bin, added: int, portion: int) -> Key:
        memory, traffic = self._memory_scale[bin_.name], self._traffic_scale[bin_.name]
        if self._tight:
            return added, -bin_.memory / memory, -bin_.traffic / traffic
        grown = added / memory * (2 * bin_.memory + added) / memory
        grown += portion / traffic * (2 * bin_.traffic + portion) / traffic
        return grown, bin_.first, len(bin_.items)

    def _enters(self, item: Item, bin_: Bin) -> bool:
        """Return whether an item would take a shard from others, beyond its tenant's quota."""
        tenant = item.tenant
        if tenant not in self._packing.exclusive or tenant in bin_.tenants:
            return False
        entered = sum(tenant in each.tenants for each in self._packing.bins.values())
        return entered >= self._quotas[tenant]

    def _shards_by_tenant(self, memory: int, traffic: int, count: int) -> dict[str | None, int]:
        memory_of: Counter[str | None] = Counter()
        traffic_of: Counter[str | None] = Counter()
        for item in self._packing.items.values():
            memory_of[item.tenant] += item.size_mb * item.replicas
            traffic_of[item.tenant] += item.traffic
        return {
            tenant: max(1, int(count * max(memory_of[tenant] / max(1, memory), traffic_of[tenant] / max(1, traffic))))
            for tenant in memory_of
        }

    def _least_loaded_first(self, item: Item, shards: tuple[str, ...]) -> None:
        """Order the shards of a newly placed item by their load without it, if they can take its traffic in that order."""
        packing, bins = self._packing, self._packing.bins
        packing.assign(item, NOWHERE)
        order = sorted(
            shards,
            key=lambda name: (
                bins[name].traffic / self._traffic_scale[name],
                bins[name].first,
                bins[name].memory / self._memory_scale[name],
                name,
            ),
        )
        packing.assign(item, tuple(order))
        if not packing.served(item):
            packing.assign(item, shards)
