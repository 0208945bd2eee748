"""Presence: which shards of a revision have servers, and whether it may go live without those that have none.

A revision may go live without a shard where no server is ready as long as nothing is served worse than now: every decision
that its rules can make has its target, or one of its fallbacks, on a shard that has a server, except those of rules that
have none under the live revision either, and those of shards that may sleep (`scale_to_zero`), which fill themselves once
they wake. What such a shard would hold is loaded when its servers come.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.control.claims import Note
from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.desired import StateReader
from tidegate.control.endpoints import Endpoints
from tidegate.control.plans import Plan
from tidegate.errors import BundleError, StackError
from tidegate.ports import EndpointState, RegisteredEndpoint
from tidegate.rules import Engine

POLL_S = 0.25
SHOWN = 3


@dataclass(frozen=True, slots=True)
class AbsentShard:
    """A shard without a server that is ready, which a revision went live without: the targets that it does not serve until
    its servers come, and the rules (`objective/rule`) that have nothing else to serve them."""

    shard: str
    targets: tuple[str, ...]
    rules: tuple[str, ...]

    def __str__(self) -> str:
        unserved = f"; until then nothing serves {_some(self.rules)}" if self.rules else ""
        return (
            f"shard {self.shard!r} has no server that is ready; {_some(self.targets)} are loaded there once one comes"
            f"{unserved}; see `tidegate status`"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"shard": self.shard, "targets": list(self.targets), "rules": list(self.rules)}


class Presence:
    """The servers of the shards that a revision needs.

    Args:
        ports: the stores and servers.
        config: how long is waited.
        reader: reads rules and assignments.
        revision: the revision that is to become live.
        live: the one that is; None where there is none.
        plans: what each shard must hold for the revision.
        patient: whether to wait for shards that have no server under the live revision either. A rollback does not.
    """

    def __init__(
        self,
        ports: ControlPorts,
        config: ControlConfig,
        reader: StateReader,
        revision: str,
        live: str | None,
        plans: Mapping[str, Plan],
        *,
        patient: bool,
    ) -> None:
        self._ports = ports
        self._config = config
        self._reader = reader
        self._endpoints = Endpoints(ports, config)
        self._revision, self._live = revision, live
        self._shards = [shard for shard, plan in plans.items() if plan]
        self.patient = patient
        self._given_up: set[str] = set()
        self._unserved: dict[frozenset[str], tuple[str, ...]] = {}
        self.absent: tuple[str, ...] = ()

    async def groups(self, note: Note) -> dict[str, list[RegisteredEndpoint]]:
        """The ready servers of each shard that has any. Waits for shards that have none: as long as one of their servers
        that are starting gets further, or for a short time where the live revision has none there either.

        Raises:
            StackError: a shard has none, and the revision cannot go live without it.
            StoreError: a store did not answer.
        """
        began = self._ports.clock()
        deadline, furthest, told = began + self._config.endpoint_wait_s, 0, False
        while True:
            entries = await self._endpoints.by_shard()
            self.absent = tuple(shard for shard in self._shards if shard not in entries)
            missing = [shard for shard in self.absent if shard not in self._given_up]
            if not missing:
                return {shard: entries[shard] for shard in self._shards if shard in entries}
            loading = await self._endpoints.by_shard(EndpointState.LOADING)
            loaded = await self._loaded_so_far([entry for shard in missing for entry in loading.get(shard, ())])
            if loaded > furthest:
                furthest, deadline = loaded, self._ports.clock() + self._config.endpoint_wait_s
            over = self._ports.clock() > deadline
            if over or await self._is_given_up(missing, loading, self._ports.clock() - began):
                unserved = await self.unserved(self.absent)
                if not unserved:
                    self._given_up.update(missing)
                    note(f"going on without shard {', '.join(missing)}, which has no server that is ready")
                    continue
                if over or not self.patient:
                    raise StackError(_refusal(missing[0], unserved))
            if not told:
                note(f"waiting for a server of {', '.join(missing)}")
            told = True
            await asyncio.sleep(POLL_S)

    async def serves_no_worse(self, absent: Collection[str]) -> bool:
        """Whether the revision serves as much as the live one where some shards serve nothing: shards that the live
        revision uses, too. Raises `StoreError`."""
        return await self._live_uses(absent) and not await self.unserved(absent)

    async def unserved(self, absent: Collection[str]) -> tuple[str, ...]:
        """The rules, as `objective/rule`, that would be served worse than now where some shards serve nothing."""
        key = frozenset(absent)
        if key not in self._unserved:
            self._unserved[key] = await self._find_unserved(key)
        return self._unserved[key]

    async def _find_unserved(self, absent: frozenset[str]) -> tuple[str, ...]:
        engine = await self._reader.engine(self._revision)
        sleepers = {name for name, shard in engine.fleet.shards.items() if shard.scale_to_zero}
        found = gaps(engine, set(absent) - sleepers)
        if found and self._live is not None:
            # What cannot be read serves nothing that could be compared.
            with contextlib.suppress(BundleError):
                found -= gaps(await self._reader.engine(self._live), absent)
        return tuple(sorted(found))

    async def absences(self) -> tuple[AbsentShard, ...]:
        """The shards that were gone on without, with what is missing."""
        if not self.absent:
            return ()
        engine = await self._reader.engine(self._revision)
        unserved = gaps(engine, self.absent)
        return tuple(
            AbsentShard(
                shard,
                tuple(target.name for target in engine.targets() if shard in target.shards),
                tuple(sorted(unserved & using(engine, shard))),
            )
            for shard in self.absent
        )

    async def may_sleep(self, shards: Collection[str]) -> bool:
        """Whether all of some shards may have no server while nobody asks. Raises `StoreError`."""
        found = (await self._reader.engine(self._revision)).fleet.shards
        return all(shard in found and found[shard].scale_to_zero for shard in shards)

    async def _is_given_up(self, missing: Sequence[str], loading: Mapping[str, object], waited_s: float) -> bool:
        """Whether shards need not be waited for any longer: the live revision has no server there either."""
        if not self.patient:
            return await self._live_uses(missing)
        if waited_s < self._config.absent_wait_s or any(shard in loading for shard in missing):
            return False
        return await self._live_uses([each for each in missing if not await self.may_sleep([each])])

    async def _live_uses(self, shards: Collection[str]) -> bool:
        if not shards:
            return True
        try:
            plans = {} if self._live is None else await self._reader.assignment(self._live)
        except BundleError:
            return False
        return all(plans.get(shard) for shard in shards)

    async def _loaded_so_far(self, entries: Sequence[RegisteredEndpoint]) -> int:
        """How many models servers that are starting have loaded: hundreds take minutes."""
        answers = await self._endpoints.each(entries, self._endpoints.loaded)
        return sum(len(each) for each in answers if not isinstance(each, BaseException))


def gaps(engine: Engine, absent: Collection[str]) -> set[str]:
    """The rules, as `objective/rule`, with a decision that nothing serves where some shards serve nothing."""
    return {
        f"{name}/{decision.rule}"
        for name in engine.objectives
        for decision in engine.decisions(name)
        if all(shard in absent for target in (decision.target, *decision.fallbacks) for shard in target.shards)
    }


def using(engine: Engine, shard: str) -> set[str]:
    """The rules, as `objective/rule`, with a decision that a shard can serve."""
    return {
        f"{name}/{decision.rule}"
        for name in engine.objectives
        for decision in engine.decisions(name)
        if any(shard in target.shards for target in (decision.target, *decision.fallbacks))
    }


def _refusal(shard: str, unserved: Sequence[str]) -> str:
    return (
        f"shard {shard!r} has no server that is ready, and nothing else would serve {_some(unserved)}; start it (a new "
        "shard is deployed before rules use it), and see `tidegate status`"
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
