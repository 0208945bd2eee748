"""Claims: how publishers and repairers avoid conflicts, with only a store that lists what was written.

A process that changes what is loaded first writes a claim, and only then reads what the fleet must hold. So of two of them at
least one sees the other:

- Of two *publishers* one goes on and the other waits: whoever sees another publisher takes its own claim back, unless its
  own is the older; the older waits for the other to do so. A publisher that waits in vain says whom it waited for.
- A *repairer* (its claim names no revision) that sees a publisher leaves alone what that needs. One that a publisher
  sees may not know of it, so the publisher trusts nothing that it finds loaded until that repairer has ended.

A claim that is not renewed expires, so a process that dies holds up others for `claim_ttl_s` at most, and not at all where
its end is certain: see `claimant`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace

from tidegate.control.base import refuse_moved
from tidegate.control.claimant import has_ended, origin
from tidegate.control.config import ControlConfig
from tidegate.control.desired import CLEAR_AFTER_S
from tidegate.control.endpoints import POLL_S
from tidegate.control.plane import ControlPlane
from tidegate.control.plans import units_of
from tidegate.control.steps import Note
from tidegate.errors import BundleError, ConflictError, StoreError
from tidegate.ports import BundleStore, Claim, ClaimStage, Pointer, Unit
from tidegate.rules.bundle import short_revision
from tidegate.tasks import wait_at_most

RENEWALS_PER_TTL = 4


class HeldClaim:
    """A claim that is renewed while it is held.

    Attributes:
        writing: held by the task that writes it.
        unaware: the ids of repairers that may not know of it.
    """

    def __init__(self, plane: ControlPlane, revision: str | None, by: str) -> None:
        self._plane = plane
        # The time comes first, so that ids order by age.
        identity = f"{int(plane.ports.clock() * 1000):014d}-{origin()}-{secrets.token_hex(4)}"
        self.claim = Claim(identity, revision, by, 0.0)
        self.writing = asyncio.Lock()
        self.unaware: frozenset[str] = frozenset()
        self._written = False
        self._lapsed = False

    @property
    def valid(self) -> bool:
        """Whether the claim was valid without a gap, by everybody's clock, and stays so for a while."""
        return not (self._lapsed or self._is_over)

    @property
    def _is_over(self) -> bool:
        return self.claim.expires_at - self._every_s <= self._plane.ports.clock()

    @property
    def _every_s(self) -> float:
        return self._plane.config.claim_ttl_s / RENEWALS_PER_TTL

    async def renew(self) -> None:
        """Write the claim with its whole time to live."""
        async with self.writing:
            await self._write(self.claim.stage)

    async def prove(self) -> None:
        """Mark the claim as proved, so that processes that fill or repair a server load its models too."""
        async with self.writing:
            await self._write(ClaimStage.PROVED)

    async def _write(self, stage: ClaimStage) -> None:
        """Write the claim. The caller holds the lock."""
        self._lapsed = self._lapsed or (self._written and self._is_over)
        self._written = True
        expires_at = self._plane.ports.clock() + self._plane.config.claim_ttl_s
        renewed = replace(self.claim, stage=stage, expires_at=expires_at)
        await self._plane.ports.bundles.claim(renewed)
        self.claim = renewed

    async def be_alone(self, base: Pointer | None, note: Note) -> None:
        """Write the claim, and wait until no other publisher is at work. A publisher whose claim has lapsed calls it again.

        Raises:
            ConflictError: the pointer has moved from `base`, or another publisher has not ended in `claim_wait_s`.
        """
        clock, wait_s = self._plane.ports.clock, self._plane.config.claim_wait_s
        deadline = clock() + wait_s
        while True:
            await self.renew()
            self._lapsed = False
            others = await self._others()
            rivals = [claim for claim in others if claim.publishes]
            if not rivals:
                self.unaware = frozenset(claim.id for claim in others)
                return
            if any(rival.id < self.claim.id for rival in rivals):
                await self._take_back()
            note(f"waiting for {_names(rivals)} to end")
            while rivals:
                if clock() > deadline:
                    raise ConflictError(
                        f"{_names(rivals)} has not ended in {wait_s:g} s; wait for it or stop it, then publish again"
                    )
                await asyncio.sleep(POLL_S)
                refuse_moved(await self._plane.reader.pointer(), base)
                rivals = [claim for claim in await self._others() if claim.publishes]

    async def wait_for_unaware(self, note: Note) -> None:
        """Wait until every repairer that may not know of this claim has ended."""
        noted = False
        while self.unaware:
            left = [claim for claim in await self._others() if claim.id in self.unaware]
            self.unaware = frozenset(claim.id for claim in left)
            if left:
                if not noted:
                    note(f"waiting for {_names(left)} to end")
                noted = True
                await asyncio.sleep(POLL_S)

    @contextlib.asynccontextmanager
    async def renewed(self) -> AsyncIterator[None]:
        """Renew the claim during the block, and release it at the end."""
        ended = asyncio.Event()
        heartbeat = asyncio.create_task(self._heartbeat(ended))
        try:
            yield
        finally:
            self._plane.reader.ended.add(self.claim.id)
            # Not cancelled: a renewal that is under way would outlive the release.
            ended.set()
            await heartbeat
            if self._written:
                with contextlib.suppress(StoreError):
                    await self._take_back()

    async def _heartbeat(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            await wait_at_most(ended, self._every_s)
            # A lapsed claim is detected where it matters; until then the next renewal may succeed.
            with contextlib.suppress(StoreError):
                async with self.writing:
                    # Only under the lock is it certain that it is not being taken back.
                    if self._written and not ended.is_set():
                        await self._write(self.claim.stage)

    async def _take_back(self) -> None:
        async with self.writing:
            self._written = False
            self.claim = replace(self.claim, expires_at=0.0)
            await self._plane.ports.bundles.release(self.claim.id)

    async def _others(self) -> list[Claim]:
        return [claim for claim in await self._plane.reader.claims() if claim.id != self.claim.id]


@contextlib.asynccontextmanager
async def publishing(
    plane: ControlPlane, revision: str, by: str, base: Pointer | None, note: Note
) -> AsyncIterator[HeldClaim]:
    """Claim the models of a revision whose assignment is stored, alone among publishers, for as long as the block runs.

    Raises:
        ConflictError: the pointer has moved from `base`, or another publisher has not ended in `claim_wait_s`.
    """
    held = HeldClaim(plane, revision, by)
    async with held.renewed():
        await held.be_alone(base, note)
        yield held


@contextlib.asynccontextmanager
async def repairing(plane: ControlPlane, by: str) -> AsyncIterator[None]:
    """Mark this process as one that changes what is loaded, for as long as the block runs."""
    held = HeldClaim(plane, None, by)
    async with held.renewed():
        await held.renew()
        yield


async def publishers(plane: ControlPlane) -> frozenset[str]:
    return frozenset(claim.id for claim in await plane.reader.claims() if claim.publishes)


async def clear_claims(plane: ControlPlane) -> None:
    """Release the claims of processes that ended a while ago."""
    for claim in await plane.ports.bundles.claims():
        if not plane.reader.counts(claim) and claim.expires_at + CLEAR_AFTER_S < plane.ports.clock():
            await plane.ports.bundles.release(claim.id)


async def claimed_units(bundles: BundleStore, now: float | None = None) -> frozenset[Unit]:
    """Return what the revisions need that publishers claim now, so that no draft of it is replaced or withdrawn. It spares
    others a publish that fails; what goes live is safe without it: see `ModelStore.seal`.

    Raises:
        ConflictError: what a publisher needs cannot be read.
    """
    now = time.time() if now is None else now
    needed: frozenset[Unit] = frozenset()
    for claim in await bundles.claims():
        if claim.revision is None or has_ended(claim.id) or claim.expires_at + ControlConfig().skew_s <= now:
            continue
        try:
            needed |= units_of((await bundles.assignment(claim.revision)).values())
        except BundleError as error:
            raise ConflictError(
                f"{claim.by} publishes revision {short_revision(claim.revision)}, and what that needs cannot be read: {error}; wait "
                "for that publish to end"
            ) from error
    return needed


def _names(claims: list[Claim]) -> str:
    return " and ".join(
        f"somebody whose claim {claim.id} is damaged"
        if claim.damaged
        else f"{claim.by} (publishing {short_revision(claim.revision)})"
        if claim.revision
        else f"{claim.by} (repairing the fleet)"
        for claim in claims
    )
