"""Places every model: packs closures into shards, moves as little as it can, and explains each choice."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum, auto

from tidegate.placement.choosing import Chooser
from tidegate.placement.model import (
    PlacementDecision,
    PlacementItem,
    PlacementPlan,
    ShardCapacity,
    ShardPlan,
    ShardUse,
)
from tidegate.placement.moves import find_moves
from tidegate.placement.packing import NOWHERE, Item, Packing, per_s
from tidegate.placement.problems import find_problems, impossible
from tidegate.placement.repair import make_room, relieve

MOST_CLEARINGS = 50
"""For at most so many models others are moved, so that a fleet that is far too small is reported soon."""

Placement = Mapping[str, tuple[str, ...]]


class Strategy(Enum):
    """How to place everything. Later ones move more and fit more."""

    STAY = auto()
    """Keep every model that may stay, and place the others beside it."""
    REPACK = auto()
    """Place all models again, largest first, each where it was if it fits there."""
    TIGHT = auto()
    """Fill one shard after the other."""
    LEAVE = auto()
    """As `STAY`, but move nothing to make room: it would not help if no other strategy fits everything."""


STRATEGIES = (Strategy.STAY, Strategy.REPACK, Strategy.TIGHT)
STRATEGIES_FROM_NOTHING = (Strategy.STAY, Strategy.TIGHT)


def plan_placement(
    items: Iterable[PlacementItem],
    shards: Iterable[ShardCapacity],
    current: Mapping[str, Sequence[str]] | None = None,
    apart: Collection[tuple[str, str]] = (),
) -> PlacementPlan:
    """Place every item within the memory and traffic of the shards; pins stay, and tenants that are kept apart share no shard.

    What `current` places stays wherever it may, in its order, and nothing moves only to balance shards: planning again from a
    plan without problems changes nothing, and a new model moves others only if it fits nowhere. A model that the empty fleet
    could not take is left out, so that it alone is reported, and nothing moves to make room if not everything fits. The same
    input, in any order, gives the same plan.

    Traffic goes to a model's first shard, as dispatch sends it, and to the next one only what the first cannot take. The
    others are failover, which takes memory and no traffic.

    Args:
        current: the shards of each model now, preferred first.
        apart: pairs of tenants that may not share a shard; `EVERYONE` means all others.

    Raises:
        ValueError: two items of one model, two sizes of one part, or an unknown pin.
    """
    given, fleet = list(items), list(shards)
    known = {shard.name for shard in fleet}
    for each in given:
        if unknown := set(each.pins) - known:
            raise ValueError(f"{each.model!r} is pinned to the unknown shard {min(unknown)!r}")
    now: Placement = {model: tuple(dict.fromkeys(names)) for model, names in (current or {}).items()}
    best: _Attempt | None = None
    for strategy in STRATEGIES if now else STRATEGIES_FROM_NOTHING:
        attempt = _Attempt(Packing(given, fleet, apart), now)
        attempt.run(strategy)
        if best is None or attempt.missing < best.missing:
            best = attempt
        if not best.missing:
            break
    assert best is not None
    if best.missing and now:
        best = _Attempt(Packing(given, fleet, apart), now)
        best.run(Strategy.LEAVE)
    gone = {name for names in now.values() for name in names} - known
    before = Packing(given, [*fleet, *map(ShardCapacity, gone)], ())
    for model, item in before.items.items():
        before.assign(item, now.get(model, NOWHERE))
    return best.plan(before)


class _Attempt:
    """An attempt to place everything. `missing` counts the shards that models lack."""

    def __init__(self, packing: Packing, current: Placement) -> None:
        self.missing = 0
        self._packing = packing
        self._current = current
        self._reasons: dict[str, str] = {}
        self._impossible = {
            model for model, item in packing.items.items() if not item.pins and impossible(packing, item) is not None
        }

    def run(self, strategy: Strategy) -> None:
        packing = self._packing
        current = self._current if strategy is Strategy.REPACK else None
        chooser = Chooser(packing, tight=strategy is Strategy.TIGHT, current=current)
        free = [item for model, item in packing.items.items() if not item.pins and model not in self._impossible]
        for item in packing.items.values():
            packing.assign(item, item.pins)
        for item in free:
            kept = self._kept(item)
            packing.assign(item, kept if strategy in (Strategy.STAY, Strategy.LEAVE) else NOWHERE)
        relieve(packing, chooser, self._note)
        failed = []
        for item in chooser.order([item for item in free if len(packing.placed[item.model]) < item.replicas]):
            before = packing.placed[item.model]
            if not chooser.complete(item):
                failed.append(item)
            self._explain(item, before)
        for item in failed[: MOST_CLEARINGS if strategy is not Strategy.LEAVE else 0]:
            before = packing.placed[item.model]
            while len(packing.placed[item.model]) < item.replicas and make_room(packing, chooser, item, self._note):
                pass
            self._explain(item, before)
        for item in failed:
            self._settle(item)
        self.missing = sum(
            max(0, item.replicas - len(packing.placed[item.model]))
            for model, item in packing.items.items()
            if not item.pins and model not in self._impossible
        )

    def _settle(self, item: Item) -> None:
        """Accept fewer shards for a model whose number the planner chose, if they take all of its traffic."""
        packing = self._packing
        on = packing.placed[item.model]
        if item.hot and on and len(on) < item.replicas:
            fewer = packing.resize(item, len(on))
            if not packing.served(fewer):
                packing.resize(fewer, item.replicas)

    def plan(self, before: Packing) -> PlacementPlan:
        packing = self._packing
        nothing = ShardUse()
        shards = []
        for name, bin_ in before.bins.items():
            after = packing.bins.get(name)
            capacity = ShardCapacity(name, bin_.memory_limit, per_s(bin_.traffic_limit))
            shards.append(ShardPlan(capacity, bin_.use(), nothing if after is None else after.use()))
        decisions = tuple(
            PlacementDecision(model, shards, self._reason(model, shards)) for model, shards in packing.placed.items()
        )
        moves = find_moves(packing, before, self._current, {each.model: each.reason for each in decisions})
        placement = {model: shards for model, shards in packing.placed.items() if shards}
        return PlacementPlan(
            placement, decisions, tuple(moves), tuple(shards), tuple(find_problems(packing, self._current))
        )

    def _kept(self, item: Item) -> tuple[str, ...]:
        was = self._current.get(item.model, NOWHERE)
        gone = [name for name in was if name not in self._packing.bins]
        if gone:
            self._note(item, f"there is no shard {', '.join(gone)} any more")
        kept = tuple(name for name in was if name not in gone)
        if len(kept) > item.replicas:
            self._note(item, f"it asks for {item.replicas} of {len(kept)} shards")
        return kept[: item.replicas]

    def _note(self, item: Item, why: str) -> None:
        self._reasons.setdefault(item.model, why)

    def _explain(self, item: Item, before: tuple[str, ...]) -> None:
        packing = self._packing
        added = [name for name in packing.placed[item.model] if name not in before]
        if not added or self._current.get(item.model, before) != before:
            return
        added_mb, on = [], len(packing.placed[item.model])
        for name in added:
            own = packing.freed_mb(item, packing.bins[name])
            shared = item.size_mb - own
            added_mb.append(f"adds {own} MB to {name}" + (f" ({shared} MB of its steps are there)" if shared else ""))
        self._note(item, ", ".join(added_mb) + (f"; on {on} shards for its traffic" if item.hot and on > 1 else ""))

    def _reason(self, model: str, shards: tuple[str, ...]) -> str:
        if self._packing.items[model].pins:
            return "pinned"
        if shards == self._current.get(model):
            return "stays"
        if not shards:
            return "fits nowhere"
        return self._reasons.get(model, "packed again, since not all would fit otherwise")
