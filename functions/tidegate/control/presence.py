"""Presence: which shards of a revision have servers, and whether it may go live without those that have none.

A revision may go live without a shard where no server is ready as long as nothing is served worse than now: every decision
that its rules can make has its target, or one of its fallbacks, on a shard that has a server, except those of rules that
have none under the live revision either, and those of shards that may sleep (`scale_to_zero`), which fill themselves once
they wake. What such a shard would hold is loaded when its servers come.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator, Sequence
from functools import partial

from tidegate.control.change import AbsentShard, Change, some_names
from tidegate.control.endpoints import POLL_S, by_shard, each, loaded_on
from tidegate.control.plane import ControlPlane
from tidegate.control.steps import Note
from tidegate.errors import BundleError, EndpointError, StackError
from tidegate.ports import EndpointState, RegisteredEndpoint
from tidegate.rules import Engine


class Presence:
    """The servers of the shards that a change needs. `absent` has those without a server, as found last."""

    def __init__(self, plane: ControlPlane, change: Change) -> None:
        self._plane = plane
        self._change = change
        self._live = None if change.base is None else change.base.live.revision
        self.absent: tuple[str, ...] = ()
        self._given_up: set[str] = set()
        self._unserved: dict[frozenset[str], tuple[str, ...]] = {}

    async def groups(self, note: Note) -> dict[str, list[RegisteredEndpoint]]:
        """Return the ready servers of each shard that has any. Waits for shards that have none: as long as one of their
        servers that are starting makes progress, or for a short time where the live revision has none there either.

        Raises:
            StackError: a shard has none, and the revision cannot go live without it.
        """
        clock, wait_s = self._plane.ports.clock, self._plane.config.endpoint_wait_s
        began = clock()
        deadline, furthest, noted = began + wait_s, 0, False
        while True:
            entries = await by_shard(self._plane)
            self.absent = tuple(shard for shard in self._change.shards if shard not in entries)
            missing = [shard for shard in self.absent if shard not in self._given_up]
            if not missing:
                return {shard: entries[shard] for shard in self._change.shards if shard in entries}
            loading = await by_shard(self._plane, EndpointState.LOADING)
            loaded = await self._loaded_so_far([entry for shard in missing for entry in loading.get(shard, ())])
            if loaded > furthest:
                furthest, deadline = loaded, clock() + wait_s
            over = clock() > deadline
            if over or await self._is_given_up(missing, loading, clock() - began):
                unserved = await self._find_unserved(self.absent)
                if not unserved:
                    self._given_up.update(missing)
                    note(f"going on without shard {', '.join(missing)}, which has no server that is ready")
                    continue
                if over or self._change.is_urgent:
                    raise StackError(
                        f"shard {missing[0]!r} has no server that is ready, and nothing else would serve "
                        f"{some_names(unserved)}; start it (a new shard is deployed before rules use it), and see "
                        "`tidegate status`"
                    )
            if not noted:
                note(f"waiting for a server of {', '.join(missing)}")
            noted = True
            await asyncio.sleep(POLL_S)

    async def successor(
        self, lost: RegisteredEndpoint, others: Collection[RegisteredEndpoint]
    ) -> RegisteredEndpoint | None:
        """Wait for a server in place of one that was lost, beside the `others` of its shard. It may have the same address. Return
        None where none is ready in time."""
        clock = self._plane.ports.clock
        deadline = clock() + self._plane.config.endpoint_wait_s
        known = {entry.endpoint for entry in others} - {lost.endpoint}
        while clock() <= deadline:
            for entry in (await by_shard(self._plane)).get(lost.endpoint.shard, ()):
                if entry.endpoint not in known:
                    # What was lost may still be registered.
                    with contextlib.suppress(EndpointError):
                        await loaded_on(self._plane, entry)
                        return entry
            await asyncio.sleep(POLL_S)
        return None

    async def serves_no_worse(self, absent: Collection[str]) -> bool:
        """Return whether the revision serves as much as the live one where some shards serve nothing: shards that the live
        revision uses, too."""
        return await self._live_uses(absent) and not await self._find_unserved(absent)

    async def absences(self) -> tuple[AbsentShard, ...]:
        """Return the shards that were gone on without, with what is missing."""
        if not self.absent:
            return ()
        engine = await self._plane.reader.engine(self._change.revision)
        unserved = gaps(engine, self.absent)
        return tuple(
            AbsentShard(
                shard,
                tuple(target.name for target in engine.targets() if shard in target.shards),
                tuple(sorted({rule for rule, shards in _decided(engine) if rule in unserved and shard in shards})),
            )
            for shard in self.absent
        )

    async def may_sleep(self, shards: Collection[str]) -> bool:
        """Return whether all of some shards may have no server until one is asked for."""
        engine = await self._plane.reader.engine(self._change.revision)
        return all(_sleeps(engine, shard) for shard in shards)

    async def _find_unserved(self, absent: Collection[str]) -> tuple[str, ...]:
        """Return the rules, as `objective/rule`, that would be served worse than now where some shards serve nothing."""
        key = frozenset(absent)
        if key not in self._unserved:
            engine = await self._plane.reader.engine(self._change.revision)
            found = gaps(engine, {shard for shard in key if not _sleeps(engine, shard)})
            if found and self._live is not None:
                # What cannot be read serves nothing that could be compared.
                with contextlib.suppress(BundleError):
                    found -= gaps(await self._plane.reader.engine(self._live), key)
            self._unserved[key] = tuple(sorted(found))
        return self._unserved[key]

    async def _is_given_up(self, missing: Sequence[str], loading: Collection[str], waited_s: float) -> bool:
        """Return whether shards need not be waited for any longer: the live revision has no server there either."""
        if self._change.is_urgent:
            return await self._live_uses(missing)
        if waited_s < self._plane.config.absent_wait_s or any(shard in loading for shard in missing):
            return False
        return await self._live_uses([shard for shard in missing if not await self.may_sleep([shard])])

    async def _live_uses(self, shards: Collection[str]) -> bool:
        if not shards:
            return True
        try:
            plans = {} if self._live is None else await self._plane.reader.assignment(self._live)
        except BundleError:
            return False
        return all(plans.get(shard) for shard in shards)

    async def _loaded_so_far(self, entries: Sequence[RegisteredEndpoint]) -> int:
        """Return how many models servers that are starting have loaded: hundreds take minutes."""
        answers = await each(self._plane, entries, partial(loaded_on, self._plane))
        return sum(len(loaded) for loaded in answers if not isinstance(loaded, EndpointError))


def gaps(engine: Engine, absent: Collection[str]) -> set[str]:
    """Return the rules, as `objective/rule`, with a decision that nothing serves where some shards serve nothing."""
    return {rule for rule, shards in _decided(engine) if all(shard in absent for shard in shards)}


def _decided(engine: Engine) -> Iterator[tuple[str, set[str]]]:
    for name in engine.objectives:
        for decision in engine.decisions(name):
            targets = (decision.target, *decision.fallbacks)
            yield f"{name}/{decision.rule}", {shard for target in targets for shard in target.shards}


def _sleeps(engine: Engine, shard: str) -> bool:
    return shard in engine.fleet.shards and engine.fleet.shards[shard].scale_to_zero
