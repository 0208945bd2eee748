"""The stores in memory: bundles with their pointer, and the registry, with whatever should go wrong.

Every call yields to other tasks once, so that two writers do meet, and the same calls always give the same history.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tidegate.errors import BundleError, StoreError
from tidegate.ports.bundle_store import Claim, LiveEntry, Pointer
from tidegate.ports.models import ModelLoad
from tidegate.ports.registry import EndpointListing, EndpointState, GatewayReport, RefusedEndpoint, RegisteredEndpoint
from tidegate.ports.requests import Endpoint
from tidegate.ports.store_rules import (
    HISTORY_ENTRIES,
    SILENCE_S,
    by_address,
    check_flip,
    moved,
    pointer_after,
    replaced_assignment,
)
from tidegate.rules.bundle import revision_of, short_revision
from tidegate.testing.faults import StoreFaults


class MemoryBundleStore:
    """A `BundleStore` in memory.

    Attributes:
        faults: what goes wrong.
        bundles: the bundles by revision.
        assignments: what each shard must hold, by revision.
        history: every flip there ever was, oldest first.
    """

    def __init__(self, faults: StoreFaults | None = None) -> None:
        self.faults = StoreFaults() if faults is None else faults
        self.bundles: dict[str, bytes] = {}
        self.history: list[LiveEntry] = []
        self.assignments: dict[str, dict[str, tuple[ModelLoad, ...]]] = {}
        self._pointer: Pointer | None = None
        self._writes = 0
        self._claims: dict[str, Claim] = {}

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        async with self.faults.around("pointer"):
            is_known = known is not None and self._pointer is not None and known.tag == self._pointer.tag
            return known if is_known else self._pointer

    async def bundle(self, revision: str) -> bytes:
        async with self.faults.around("bundle"):
            if revision not in self.bundles:
                raise BundleError(f"there is no bundle of revision {short_revision(revision)}")
            if revision in self.faults.damaged or revision_of(self.bundles[revision]) != revision:
                raise BundleError(
                    f"the bundle of revision {short_revision(revision)} is damaged: its digest is another"
                )
            return self.bundles[revision]

    async def put_bundle(self, data: bytes) -> str:
        async with self.faults.around("put_bundle"):
            revision = revision_of(data)
            self.bundles[revision] = data
            return revision

    async def put_assignment(self, revision: str, plans: Mapping[str, Sequence[ModelLoad]]) -> None:
        async with self.faults.around("put_assignment"):
            frozen = {shard: tuple(plan) for shard, plan in plans.items()}
            if self.assignments.setdefault(revision, frozen) != frozen:
                raise StoreError(
                    f"another assignment of revision {short_revision(revision)} is there, and never changes"
                )

    async def replace_assignment(
        self, revision: str, before: Mapping[str, Sequence[ModelLoad]], plans: Mapping[str, Sequence[ModelLoad]]
    ) -> None:
        async with self.faults.around("replace_assignment"):
            if self.assignments.get(revision) != {shard: tuple(plan) for shard, plan in before.items()}:
                raise replaced_assignment(revision)
            self.assignments[revision] = {shard: tuple(plan) for shard, plan in plans.items()}

    async def assignment(self, revision: str) -> Mapping[str, tuple[ModelLoad, ...]]:
        async with self.faults.around("assignment"):
            if revision not in self.assignments:
                raise BundleError(f"there is no assignment of revision {short_revision(revision)}")
            if revision in self.faults.damaged:
                raise BundleError(f"the assignment of revision {short_revision(revision)} is damaged")
            return dict(self.assignments[revision])

    async def flip(self, entry: LiveEntry, expected: Pointer | None) -> Pointer:
        async with self.faults.around("flip"):
            check_flip(entry, expected)
            tag = None if expected is None else expected.tag
            if self._pointer is not None and self._pointer.tag != tag:
                raise moved(self._pointer.live)
            if self._pointer is None and expected is not None:
                raise StoreError("the pointer is gone; see who removed it before anything is published")
            self._pointer = pointer_after(entry, expected, self._tag())
            self.history.append(entry)
            return self._pointer

    async def flips(self, *, all_traces: bool = False) -> Sequence[LiveEntry]:  # noqa: ARG002  # it keeps no versions
        async with self.faults.around("flips"):
            return self.history[-HISTORY_ENTRIES:]

    async def restore(self, pointer: Pointer) -> Pointer:
        async with self.faults.around("restore"):
            if self._pointer is not None:
                raise moved(self._pointer.live)
            self._pointer = replace(pointer, tag=self._tag())
            return self._pointer

    def _tag(self) -> str:
        self._writes += 1
        return str(self._writes)

    def lose_pointer(self) -> None:
        self._pointer = None

    async def record(self, pointer: Pointer) -> None:  # noqa: ARG002  # `flip` has written it
        async with self.faults.around("record"):
            return

    async def claim(self, claim: Claim) -> None:
        async with self.faults.around("claim"):
            self._claims[claim.id] = claim

    async def release(self, claim_id: str) -> None:
        async with self.faults.around("release"):
            self._claims.pop(claim_id, None)

    async def claims(self) -> Sequence[Claim]:
        async with self.faults.around("claims"):
            return [self._claims[key] for key in sorted(self._claims)]


class MemoryRegistry:
    """A `Registry` in memory; an entry without a sign of life for `timeout_s` by `clock` (Unix seconds) is forgotten.

    Attributes:
        faults: what goes wrong.
        refused: why endpoints are not trusted.
        entries: what was registered, also what has been silent for too long.
        reports: what gateways reported, by id.
    """

    def __init__(
        self,
        faults: StoreFaults | None = None,
        clock: Callable[[], float] = time.time,
        timeout_s: float = SILENCE_S,
    ) -> None:
        self.faults = StoreFaults() if faults is None else faults
        self.refused: dict[Endpoint, str] = {}
        self._clock = clock
        self._timeout_s = timeout_s
        self.entries: dict[Endpoint, RegisteredEndpoint] = {}
        self.reports: dict[str, GatewayReport] = {}

    async def register(self, entry: RegisteredEndpoint) -> None:
        async with self.faults.around("register"):
            known = self.entries.get(entry.endpoint)
            if known is not None and known.state is EndpointState.WEDGED and self._is_alive(known.seen_at):
                entry = replace(entry, state=EndpointState.WEDGED, note=known.note)
            self.entries[entry.endpoint] = entry

    async def deregister(self, endpoint: Endpoint) -> None:
        async with self.faults.around("deregister"):
            self.entries.pop(endpoint, None)

    async def mark_wedged(self, endpoint: Endpoint, note: str) -> None:
        async with self.faults.around("mark_wedged"):
            if endpoint in self.entries:
                self.entries[endpoint] = replace(self.entries[endpoint], state=EndpointState.WEDGED, note=note)

    async def endpoints(self, shard: str | None = None) -> Sequence[RegisteredEndpoint]:
        return (await self.listing(shard)).endpoints

    async def listing(self, shard: str | None = None) -> EndpointListing:
        async with self.faults.around("endpoints"):
            alive = [entry for entry in self.entries.values() if self._is_alive(entry.seen_at)]
            found = sorted((entry for entry in alive if shard in (None, entry.endpoint.shard)), key=by_address)
            return EndpointListing(
                tuple(entry for entry in found if entry.endpoint not in self.refused),
                tuple(
                    RefusedEndpoint(at.shard, f"{at.host}:{at.port}", self._clock(), self.refused[at])
                    for at in (entry.endpoint for entry in found)
                    if at in self.refused
                ),
            )

    async def report(self, gateway: GatewayReport) -> None:
        async with self.faults.around("report"):
            self.reports[gateway.id] = gateway

    async def gateways(self) -> Sequence[GatewayReport]:
        async with self.faults.around("gateways"):
            alive = [gateway for gateway in self.reports.values() if self._is_alive(gateway.seen_at)]
            return sorted(alive, key=lambda gateway: gateway.id)

    def _is_alive(self, seen_at: float) -> bool:
        return seen_at + self._timeout_s >= self._clock()
