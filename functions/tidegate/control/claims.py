"""Claims: how publishers and repairers keep out of each other's way, with nothing but a store that lists what was written.

Everybody who changes what is loaded first writes a claim, and only then reads what the fleet must hold. So of two of
them at least one sees the other:

- Of two *publishers* one goes on and the other waits: whoever sees another publisher takes its own claim back, unless its
  own is the older; the older waits for the other to do so. A publisher that waits in vain says whom it waited for.
- A *repairer* (its claim names no revision) that sees a publisher leaves alone what that needs. One that a publisher
  sees may not know of it, so the publisher believes nothing that it finds loaded until that repairer has ended.

A claim that is not renewed expires, so whoever dies holds up others for `claim_ttl_s` at the most, and not at all where
its death can be told: see `claimant`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from tidegate.control.claimant import origin
from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.desired import CLEAR_AFTER_S, StateReader
from tidegate.control.remains import GONE
from tidegate.errors import ConflictError, StoreError
from tidegate.ports import Claim, ClaimStage, Pointer

POLL_S = 0.25
RENEWALS_PER_TTL = 4

Note = Callable[[str], None]
"""Takes a line that says what is being waited for."""


@dataclass(slots=True)
class HeldClaim:
    """A claim that is renewed while it is held.

    `strangers` are the ids of repairers that may not know of it. `lapsed`: others may have taken it for ended meanwhile,
    since it was renewed too late.
    """

    claim: Claim
    strangers: frozenset[str] = frozenset()
    written: bool = False
    lapsed: bool = False
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class Claims:
    """The claims of one process."""

    def __init__(self, ports: ControlPorts, config: ControlConfig, reader: StateReader) -> None:
        self._ports = ports
        self._config = config
        self._reader = reader

    @contextlib.asynccontextmanager
    async def publishing(self, revision: str, by: str, base: Pointer | None, note: Note) -> AsyncIterator[HeldClaim]:
        """Claim the models of a revision, alone among publishers, for as long as the block.

        Args:
            revision: the revision, whose assignment is stored.
            by: who publishes, for others to read.
            base: the pointer that the publisher will replace.
            note: takes what is waited for.

        Raises:
            ConflictError: the pointer has moved, or another publisher has not ended in `claim_wait_s`.
            StoreError: the store did not answer.
        """
        async with self._kept(revision, by) as held:
            await self.alone(held, base, note)
            yield held

    @contextlib.asynccontextmanager
    async def repairing(self, by: str) -> AsyncIterator[HeldClaim]:
        """Mark this process as one that changes what is loaded, for as long as the block.

        Raises:
            StoreError: the store did not answer.
        """
        async with self._kept("", by) as held:
            await self.renew(held)
            yield held

    async def renew(self, held: HeldClaim, stage: ClaimStage | None = None) -> None:
        """Write the claim, with its whole time to live and, where one is given, another stage. Raises `StoreError`."""
        async with held.writing:
            await self._write(held, stage or held.claim.stage)

    async def _write(self, held: HeldClaim, stage: ClaimStage) -> None:
        """Write the claim; only for who holds its lock."""
        held.lapsed = held.lapsed or (held.written and self._is_over(held))
        held.written = True
        renewed = replace(held.claim, stage=stage, expires_at=self._ports.clock() + self._config.claim_ttl_s)
        await self._ports.bundles.claim(renewed)
        held.claim = renewed

    async def prove(self, held: HeldClaim) -> None:
        """Say that whoever fills or repairs a server may load the models of the claim too. Raises `StoreError`."""
        await self.renew(held, ClaimStage.PROVED)

    def valid(self, held: HeldClaim) -> bool:
        """Whether everybody has seen the claim all the time, whatever their clock, and will for a while."""
        return not (held.lapsed or self._is_over(held))

    async def alone(self, held: HeldClaim, base: Pointer | None, note: Note) -> None:
        """Write the claim and see that no other publisher is at work: see `publishing`, which calls it. A publisher whose
        claim has lapsed calls it again."""
        deadline = self._ports.clock() + self._config.claim_wait_s
        while True:
            await self.renew(held)
            held.lapsed = False
            there = await self._others(held)
            rivals = [claim for claim in there if claim.publishes]
            if not rivals:
                held.strangers = frozenset(claim.id for claim in there)
                return
            if any(rival.id < held.claim.id for rival in rivals):
                await self._take_back(held)
            note(f"waiting for {_names(rivals)} to end")
            while rivals:
                if self._ports.clock() > deadline:
                    raise ConflictError(
                        f"{_names(rivals)} has not ended in {self._config.claim_wait_s:g} s; wait for it or stop it, then "
                        "publish again"
                    )
                await asyncio.sleep(POLL_S)
                check_base(await self._reader.pointer(), base)
                rivals = [claim for claim in await self._others(held) if claim.publishes]

    async def strangers_gone(self, held: HeldClaim, note: Note) -> None:
        """Wait until every repairer that may not know of this claim has ended. Raises `StoreError`."""
        told = False
        while held.strangers:
            there = [claim for claim in await self._others(held) if claim.id in held.strangers]
            held.strangers = frozenset(claim.id for claim in there)
            if there:
                if not told:
                    note(f"waiting for {_names(there)} to end")
                told = True
                await asyncio.sleep(POLL_S)

    async def publishers(self) -> frozenset[str]:
        """The ids of the publishers' claims. Raises `StoreError`."""
        return frozenset(claim.id for claim in await self._reader.claims() if claim.publishes)

    async def clear(self) -> None:
        """Release what claims are left of processes that ended a while ago. Raises `StoreError`."""
        for claim in await self._ports.bundles.claims():
            if not self._reader.counts(claim) and claim.expires_at + CLEAR_AFTER_S < self._ports.clock():
                await self._ports.bundles.release(claim.id)

    @contextlib.asynccontextmanager
    async def _kept(self, revision: str, by: str) -> AsyncIterator[HeldClaim]:
        # The time stands first, so that ids order by age.
        identity = f"{int(self._ports.clock() * 1000):014d}-{origin()}-{secrets.token_hex(4)}"
        held = HeldClaim(Claim(identity, revision, by, 0.0))
        ended = asyncio.Event()
        heartbeat = asyncio.create_task(self._heartbeat(held, ended))
        try:
            yield held
        finally:
            self._reader.ended.add(identity)
            # Not cancelled: a renewal that is under way would outlive the release.
            ended.set()
            await heartbeat
            if held.written:
                with contextlib.suppress(StoreError):
                    await self._take_back(held)

    async def _heartbeat(self, held: HeldClaim, ended: asyncio.Event) -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), self._config.claim_ttl_s / RENEWALS_PER_TTL)
            # A claim that has lapsed is found out where it matters; until then the next renewal may well succeed.
            with contextlib.suppress(StoreError):
                async with held.writing:
                    # Only here is it certain that it is not being taken back.
                    if held.written and not ended.is_set():
                        await self._write(held, held.claim.stage)

    def _is_over(self, held: HeldClaim) -> bool:
        return held.claim.expires_at - self._config.claim_ttl_s / RENEWALS_PER_TTL <= self._ports.clock()

    async def _take_back(self, held: HeldClaim) -> None:
        async with held.writing:
            held.written = False
            held.claim = replace(held.claim, expires_at=0.0)
            await self._ports.bundles.release(held.claim.id)

    async def _others(self, held: HeldClaim) -> list[Claim]:
        return [claim for claim in await self._reader.claims() if claim.id != held.claim.id]


def check_base(pointer: Pointer | None, base: Pointer | None) -> None:
    """Refuse to go on where the pointer is not the one that was read first.

    Raises:
        ConflictError: it has moved, and the message says who moved it, or it is gone.
    """
    if pointer is None and base is not None:
        raise ConflictError(GONE)
    if pointer is not None and (base is None or pointer.tag != base.tag):
        live = pointer.live
        raise ConflictError(
            f"{live.by} made revision {live.revision[:12]} live meanwhile ({live.action}); look at what changed, then "
            "publish again on top of it"
        )


def _names(claims: list[Claim]) -> str:
    return " and ".join(
        f"somebody whose claim {claim.id} is damaged"
        if claim.damaged
        else f"{claim.by} (publishing {claim.revision[:12]})"
        if claim.revision
        else f"{claim.by} (repairing the fleet)"
        for claim in claims
    )
