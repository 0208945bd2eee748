"""Plans where every model is placed: packs closures into shards, moves as little as it can, and says why."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from tidegate.rules.placement.choosing import Chooser
from tidegate.rules.placement.model import (
    PlacementDecision,
    PlacementItem,
    PlacementPlan,
    ShardCapacity,
    ShardPlan,
    ShardUse,
)
from tidegate.rules.placement.moves import find_moves
from tidegate.rules.placement.packing import NOWHERE, Item, Packing, per_s
from tidegate.rules.placement.problems import find_problems, impossible
from tidegate.rules.placement.repair import make_room, relieve

MOST_CLEARINGS = 50
"""For how many models without room others are moved, so that a fleet that is far too small is reported soon."""

Placement = Mapping[str, tuple[str, ...]]

Way = Literal["stay", "repack", "tight", "leave"]
"""`stay` keeps what may stay, and places the rest beside it. `repack` places all again, largest first, each where it was
if it fits there then. `tight` fills one shard after the other. The later ones move more and fit more. Where none of them
fits everything, `leave` moves nothing to make room: it would be in vain."""

WAYS: tuple[Way, ...] = ("stay", "repack", "tight")
WAYS_FROM_NOTHING: tuple[Way, ...] = ("stay", "tight")


def plan_placement(
    items: Iterable[PlacementItem],
    shards: Iterable[ShardCapacity],
    current: Mapping[str, Sequence[str]] | None = None,
    apart: Collection[tuple[str, str]] = (),
) -> PlacementPlan:
    """Place every item.

    No shard holds more memory, or is sent more traffic, than it has; tenants that are kept apart share no shard; pins are
    kept as they are. What `current` places stays there wherever it may, in its order, and nothing is moved only to even
    shards out: planning again from a plan without problems changes nothing, and a new model moves others only where it
    fits nowhere. A model that the empty fleet could not take is left out, so that it is named and no other, and where
    not everything fits nothing moves to make room. The same input, in any order, gives the same plan.

    Traffic goes to a model's first shard, as dispatch sends it, and to the next one only what the first cannot take. The
    others are failover, which takes memory and no traffic.

    Args:
        items: the models to place, each with its closure.
        shards: the fleet.
        current: the shards of each model now, preferred first; None: nothing is placed yet.
        apart: pairs of tenants that may not share a shard; `EVERYONE` stands for all others.

    Raises:
        ValueError: the input contradicts itself: two items of one model, two sizes of one part, an unknown pin.
    """
    given, fleet = list(items), list(shards)
    known = {shard.name for shard in fleet}
    for each in given:
        if unknown := set(each.pins) - known:
            raise ValueError(f"{each.model!r} is pinned to the unknown shard {min(unknown)!r}")
    now: Placement = {model: tuple(dict.fromkeys(names)) for model, names in (current or {}).items()}
    best: _Attempt | None = None
    for way in WAYS if now else WAYS_FROM_NOTHING:
        attempt = _Attempt(Packing(given, fleet, apart), now)
        attempt.run(way)
        if best is None or attempt.missing < best.missing:
            best = attempt
        if not best.missing:
            break
    assert best is not None
    if best.missing and now:
        best = _Attempt(Packing(given, fleet, apart), now)
        best.run("leave")
    gone = {name for names in now.values() for name in names} - known
    before = Packing(given, [*fleet, *map(ShardCapacity, gone)], ())
    for model, item in before.items.items():
        before.assign(item, now.get(model, NOWHERE))
    return best.plan(before)


class _Attempt:
    """One way to place everything. `missing` counts the shards that models want and did not get."""

    def __init__(self, packing: Packing, current: Placement) -> None:
        self.missing = 0
        self._packing = packing
        self._current = current
        self._reasons: dict[str, str] = {}
        self._impossible = {
            model for model, item in packing.items.items() if not item.pins and impossible(packing, item) is not None
        }

    def run(self, way: Way) -> None:
        """Place everything in one of the ways."""
        packing = self._packing
        chooser = Chooser(packing, tight=way == "tight", current=self._current if way == "repack" else None)
        free = [item for model, item in packing.items.items() if not item.pins and model not in self._impossible]
        for item in packing.items.values():
            packing.assign(item, item.pins)
        for item in free:
            kept = self._kept(item)
            packing.assign(item, kept if way in ("stay", "leave") else NOWHERE)
        relieve(packing, chooser, self._note)
        failed = []
        for item in chooser.order([item for item in free if len(packing.placed[item.model]) < item.replicas]):
            before = packing.placed[item.model]
            if not chooser.complete(item):
                failed.append(item)
            self._explain(item, before)
        for item in failed[: MOST_CLEARINGS if way != "leave" else 0]:
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
        """Let a model have the shards that it got, where nobody asked for more and they take all of its traffic."""
        packing = self._packing
        on = packing.placed[item.model]
        if item.hot and on and len(on) < item.replicas:
            fewer = packing.resize(item, len(on))
            if not packing.served(fewer):
                packing.resize(fewer, item.replicas)

    def plan(self, before: Packing) -> PlacementPlan:
        """What came of it, beside what was before."""
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
        """Note why a model got the shards that it was not on before."""
        packing = self._packing
        added = [name for name in packing.placed[item.model] if name not in before]
        if not added or self._current.get(item.model, before) != before:
            return
        told, on = [], len(packing.placed[item.model])
        for name in added:
            own = packing.freed_mb(item, packing.bins[name])
            shared = item.size_mb - own
            told.append(f"adds {own} MB to {name}" + (f" ({shared} MB of its steps are there)" if shared else ""))
        self._note(item, ", ".join(told) + (f"; on {on} shards for its traffic" if item.hot and on > 1 else ""))

    def _reason(self, model: str, shards: tuple[str, ...]) -> str:
        if self._packing.items[model].pins:
            return "pinned"
        if shards == self._current.get(model):
            return "stays"
        if not shards:
            return "fits nowhere"
        return self._reasons.get(model, "packed again, since not all would fit otherwise")
