"""Desired state: what every shard must hold, as a function of the stores, for any process at any time."""

from __future__ import annotations

import contextlib
import itertools
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tidegate.control.claimant import has_ended
from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.plans import NOTHING, Plan, merge, same_but_versions
from tidegate.control.remains import Remains, look_for
from tidegate.errors import BundleError, DamagedError, StoreError
from tidegate.ports import Claim, ClaimStage, GatewayReport, Pointer
from tidegate.rules import Engine, load_bundle
from tidegate.rules.bundle import Bundle, short_revision, unpack

_Merged = tuple[Mapping[str, Plan], Mapping[str, Plan], tuple[str, ...]]

NOTHING_REMAINS = Remains()
PUBLISH_AGAIN = "nothing is unloaded meanwhile; publish its rules again, which stores what is missing"
CACHED_REVISIONS = 64
PAST_REVISIONS = 20
REMEMBERED_STEPS = 1 << 16
CLEAR_AFTER_S = 60.0
"""How long after a claim expired, or a damaged one was written, a reconcile deletes it."""


class Reason(StrEnum):
    LIVE = "live"
    CLAIMED = "claimed"
    """A publisher claims it and has proved it."""
    TRYING = "trying"
    """A publisher claims it, tries it, and loads it alone."""
    ROLLBACK = "rollback"
    """It can be rolled back to."""
    DRAINING = "draining"
    """It was live a moment ago."""
    SERVED = "served"
    """A gateway still serves it."""

    @property
    def is_claim(self) -> bool:
        return self in (Reason.CLAIMED, Reason.TRYING)


@dataclass(frozen=True, slots=True)
class Held:
    """A revision whose models must stay loaded; `plans` by shard are None if its assignment cannot be read."""

    revision: str
    reason: Reason
    plans: Mapping[str, Plan] | None


@dataclass(frozen=True, slots=True)
class Desired:
    """The models that the fleet must hold.

    Attributes:
        held: the revisions whose models must stay, the live one first.
        plans: what each shard may hold: nothing of it is unloaded.
        needed: what each shard must hold, without models that are only being tried: their publisher alone loads those.
        problems: texts about parts that could not be read, or cannot be loaded together with the rest.
        remains: evidence of what was live, if there is no pointer.
    """

    pointer: Pointer | None
    claims: tuple[Claim, ...]
    held: tuple[Held, ...]
    plans: Mapping[str, Plan]
    needed: Mapping[str, Plan]
    problems: tuple[str, ...] = ()
    remains: Remains = NOTHING_REMAINS
    gateways: tuple[GatewayReport, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether everything could be read, so that what is not here may be unloaded. Without a pointer nothing may: it
        is unknown whether nothing was ever published, or the pointer was lost. What a damaged claim needs is unknown, too."""
        unknown = self.pointer is None or any(claim.damaged for claim in self.claims)
        return not unknown and all(each.plans is not None for each in self.held)

    @property
    def serves(self) -> bool:
        """Whether a revision is live, or may be."""
        return self.pointer is not None or self.remains.possible

    @property
    def known(self) -> Pointer | None:
        """The pointer, or if it is lost, the last known one. None if nothing shows that anything was ever published."""
        return self.pointer or self.remains.pointer

    @property
    def live(self) -> Mapping[str, Plan]:
        """The plans of the live revision alone, by shard."""
        if self.held and self.held[0].reason is Reason.LIVE and self.held[0].plans is not None:
            return self.held[0].plans
        return {}

    @property
    def published(self) -> Iterator[Plan]:
        """The plans of the revisions that are or were live, the live one's first; these plans never change."""
        for each in self.held:
            if not each.reason.is_claim:
                yield from (each.plans or {}).values()

    @property
    def claimed(self) -> Iterator[Plan]:
        for each in self.held:
            if each.reason.is_claim:
                yield from (each.plans or {}).values()

    def plan(self, shard: str) -> Plan:
        """Return what an endpoint of a shard may hold."""
        return self.plans.get(shard, NOTHING)

    def needs(self, shard: str) -> Plan:
        """Return what an endpoint of a shard must hold."""
        return self.needed.get(shard, NOTHING)


class StateReader:
    """Reads desired state. A process fetches each bundle once, and each assignment of a revision that was live, as neither
    ever changes.

    `ended` has the ids of claims that this process has released, in case the store did not answer.
    """

    def __init__(self, ports: ControlPorts, config: ControlConfig) -> None:
        self._ports = ports
        self._config = config
        self._pointer: Pointer | None = None
        self._last: Pointer | None = None
        self._damage: str | None = None
        self._assignments: OrderedDict[str, Mapping[str, Plan]] = OrderedDict()
        self._steps: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._bundles: OrderedDict[str, Bundle] = OrderedDict()
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self.ended: set[str] = set()
        self._reports: tuple[float, Sequence[GatewayReport]] | None = None
        self._merged: tuple[tuple[tuple[str, bool, Mapping[str, Plan]], ...], _Merged] | None = None

    async def pointer(self) -> Pointer | None:
        """Return the current pointer; None if there is none, or it cannot be read: see `remains`."""
        try:
            self._pointer, self._damage = await self._ports.bundles.pointer(self._pointer), None
        except DamagedError as error:
            self._pointer, self._damage = None, str(error)
        self._last = self._pointer or self._last
        return self._pointer

    async def remains(self) -> Remains:
        """Return the other evidence of what was live, after `pointer` returned None."""
        gateways = await self._ports.registry.gateways()
        return await look_for(self._ports.bundles, self._last, gateways, self._damage)

    @property
    def known(self) -> Pointer | None:
        return self._last

    async def claims(self) -> tuple[Claim, ...]:
        """Return the claims that count: not expired, by whatever clock they were written, and not of a process that has
        ended."""
        return tuple(claim for claim in await self._ports.bundles.claims() if self.counts(claim))

    def counts(self, claim: Claim) -> bool:
        """Return whether a claim is still valid. A damaged one is, until it would have expired."""
        expires_at = claim.expires_at + (self._config.claim_ttl_s if claim.damaged else 0.0)
        expired = expires_at + self._config.skew_s <= self._ports.clock()
        return not expired and claim.id not in self.ended and not has_ended(claim.id)

    async def read(self, reports_age_s: float = 0.0) -> Desired:
        """Read what the fleet must hold now. Where the reports of gateways were read less than `reports_age_s` ago, they are not
        read again.

        Claims are read first and the pointer after them: a publisher releases its claim only after the flip, so a reader
        that does not see its claim any more sees what it made live.
        """
        every = await self._ports.bundles.claims()
        claims = tuple(claim for claim in every if self.counts(claim))
        gateways = await self._gateways(reports_age_s)
        pointer = await self.pointer()
        remains = NOTHING_REMAINS if pointer is not None else await self.remains()
        problems = [f"{claim.damaged}; {self._validity(claim)}" for claim in every if claim.damaged]
        problems += [remains.problem] if remains.problem else []
        held = []
        for revision, reason in self._held(pointer or remains.pointer, claims, gateways):
            try:
                held.append(Held(revision, reason, await self.assignment(revision)))
            except BundleError as error:
                held.append(Held(revision, reason, None))
                problems.append(f"revision {short_revision(revision)} ({reason}): {error}; {PUBLISH_AGAIN}")
        plans, needed, conflicts = self._merge(held)
        known = (*problems, *conflicts)
        return Desired(pointer, claims, tuple(held), plans, needed, known, remains, tuple(gateways))

    async def _gateways(self, age_s: float) -> Sequence[GatewayReport]:
        now = self._ports.clock()
        if self._reports is None or not 0.0 <= now - self._reports[0] < age_s:
            self._reports = (now, await self._ports.registry.gateways())
        return self._reports[1]

    async def live(self, shard: str) -> Plan:
        """Return what an endpoint of a shard must hold for the live revision alone.

        While there is a pointer, neither claims nor gateways are read: every server of a fleet asks this every few seconds, and
        would list every gateway each time.
        """
        pointer = await self.pointer()
        if pointer is None:
            return (await self.read()).live.get(shard, NOTHING)
        try:
            return (await self.assignment(pointer.live.revision)).get(shard, NOTHING)
        except BundleError:
            return NOTHING

    def _validity(self, claim: Claim) -> str:
        if self.counts(claim):
            return f"it counts for {self._config.claim_ttl_s + self._config.skew_s:g} s after it was written"
        return f"it does not count any more, and a reconcile deletes it {CLEAR_AFTER_S:g} s after it was written"

    async def assignment(self, revision: str) -> Mapping[str, Plan]:
        """Return the plans of one revision by shard. Raises `BundleError`: they are missing, or damaged."""
        if revision in self._assignments:
            return self._assignments[revision]
        # Before the assignment: that of a revision that was not live yet may be replaced.
        published = self._pointer is not None and any(each.revision == revision for each in self._pointer.entries)
        plans = await self._ports.bundles.assignment(revision)
        self._steps.update({load.model: load.steps for plan in plans.values() for load in plan if load.steps})
        _bound(self._steps, REMEMBERED_STEPS)
        if published:
            self._assignments[revision] = plans
            _bound(self._assignments)
        return plans

    async def bundle(self, revision: str) -> Bundle:
        """Return the bundle of one revision, unpacked. Raises `BundleError`: it is missing, or damaged."""
        if revision not in self._bundles:
            self._bundles[revision] = unpack(await self._ports.bundles.bundle(revision))
            _bound(self._bundles)
        return self._bundles[revision]

    async def engine(self, revision: str) -> Engine:
        """Return the rules of one revision. Raises `BundleError`: they are missing, or damaged."""
        if revision not in self._engines:
            self._engines[revision] = load_bundle(await self._ports.bundles.bundle(revision))
            _bound(self._engines)
        return self._engines[revision]

    async def past_steps(self) -> Mapping[str, tuple[str, ...]]:
        """Return the steps of the ensembles of the revisions that were live last and that can be read."""
        for entry in () if self._pointer is None else self._pointer.entries[:PAST_REVISIONS]:
            with contextlib.suppress(BundleError, StoreError):
                await self.assignment(entry.revision)
        return dict(self._steps)

    def _held(
        self, pointer: Pointer | None, claims: Iterable[Claim], gateways: Iterable[GatewayReport]
    ) -> Iterator[tuple[str, Reason]]:
        """Return the revisions whose models must stay, each once, with the first reason that applies. Another reason
        beside `trying` means that the revision was proved before."""
        found: dict[str, Reason] = {}
        for revision, reason in self._reasons(pointer, claims, gateways):
            if found.setdefault(revision, reason) is Reason.TRYING:
                found[revision] = reason
        return iter(found.items())

    def _reasons(
        self, pointer: Pointer | None, claims: Iterable[Claim], gateways: Iterable[GatewayReport]
    ) -> Iterator[tuple[str, Reason]]:
        entries = () if pointer is None else pointer.entries
        if entries:
            yield entries[0].revision, Reason.LIVE
        for claim in claims:
            if claim.revision is not None:
                yield claim.revision, Reason.CLAIMED if claim.stage is ClaimStage.PROVED else Reason.TRYING
        for revision in rollback_revisions(pointer, self._config.keep_revisions):
            yield revision, Reason.ROLLBACK
        now = self._ports.clock()
        for after, entry in itertools.pairwise(entries):
            if after.at + self._config.drain_s > now:
                yield entry.revision, Reason.DRAINING
        published = {entry.revision for entry in entries}
        for gateway in gateways:
            # If it is unknown what was published, the revisions that gateways serve were.
            if not entries or gateway.revision in published:
                yield gateway.revision, Reason.SERVED

    def _merge(self, held: list[Held]) -> _Merged:
        readable = [
            (each.revision, each.reason is Reason.TRYING, each.plans) for each in held if each.plans is not None
        ]
        # With the plans: those of a revision that was not live yet may have been replaced.
        key = tuple(readable)
        if self._merged is None or self._merged[0] != key:
            plans: dict[str, Plan] = {}
            needed: dict[str, Plan] = {}
            problems: list[str] = []
            for shard in sorted({shard for _, _, each in readable for shard in each}):
                plans[shard], conflicts = merge(each.get(shard, NOTHING) for _, _, each in readable)
                proved, _ = merge(each.get(shard, NOTHING) for _, tried, each in readable if not tried)
                whole = {load.model: load for load in plans[shard]}
                # A config that is being tried in the place of another is loaded by its publisher alone, as all of it is.
                needed[shard] = tuple(load for load in proved if same_but_versions(whole[load.model], load))
                problems += [
                    f"shard {shard!r}: two revisions need {model!r} with different steps, and it is loaded for one: the "
                    "live one, else the newer"
                    for model in conflicts
                ]
            self._merged = (key, (plans, needed, tuple(problems)))
        return self._merged[1]


def rollback_revisions(pointer: Pointer | None, count: int) -> tuple[str, ...]:
    """Return the last `count` revisions that were live before and are not now, each once, newest first. Those that are
    marked bad do not count: an urgent rollback does not go to them, and their models may be what is bad."""
    if pointer is None:
        return ()
    before = dict.fromkeys(entry.revision for entry in pointer.entries)
    before.pop(pointer.live.revision)
    return tuple(revision for revision in before if pointer.mark(revision) is None)[:count]


def _bound(cache: OrderedDict[str, Any], most: int = CACHED_REVISIONS) -> None:
    while len(cache) > most:
        cache.popitem(last=False)
