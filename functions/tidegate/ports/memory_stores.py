"""The stores in memory: bundles with their pointer, and the registry, with whatever should go wrong.

They keep the guarantees of the real ones. Every call gives way to other tasks once, so that two writers do meet, and the
same calls always give the same history.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tidegate.errors import BundleError, StoreError
from tidegate.ports.bundle_store import Claim, LiveEntry, Pointer
from tidegate.ports.protocols import Endpoint, ModelLoad
from tidegate.ports.registry import EndpointListing, EndpointState, GatewayReport, RefusedEndpoint, RegisteredEndpoint
from tidegate.ports.store_faults import StoreFaults
from tidegate.ports.store_rules import (
    HISTORY_ENTRIES,
    SILENCE_S,
    by_address,
    check_flip,
    moved,
    pointer_after,
    replaced_assignment,
)
from tidegate.rules.bundle import revision_of


class MemoryBundleStore:
    """A `BundleStore` in memory.

    Attributes:
        faults: what goes wrong.
        bundles: the bundles by revision.
        history: every flip there ever was, oldest first.
    """

    def __init__(self, faults: StoreFaults | None = None) -> None:
        self.faults = StoreFaults() if faults is None else faults
        self.bundles: dict[str, bytes] = {}
        self.history: list[LiveEntry] = []
        self._assignments: dict[str, dict[str, tuple[ModelLoad, ...]]] = {}
        self._pointer: Pointer | None = None
        self._writes = 0
        self._claims: dict[str, Claim] = {}

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        """The pointer; None where there is none, and `known` itself where it is still that."""
        async with self.faults.around("pointer"):
            is_known = known is not None and self._pointer is not None and known.tag == self._pointer.tag
            return known if is_known else self._pointer

    async def bundle(self, revision: str) -> bytes:
        """The bytes of a bundle, whose digest has been checked.

        Raises:
            BundleError: there is no such bundle, or its bytes are not those of the revision.
        """
        async with self.faults.around("bundle"):
            if revision not in self.bundles:
                raise BundleError(f"there is no bundle of revision {revision[:12]}")
            if revision in self.faults.damaged or revision_of(self.bundles[revision]) != revision:
                raise BundleError(f"the bundle of revision {revision[:12]} is damaged: its digest is another")
            return self.bundles[revision]

    async def put_bundle(self, data: bytes) -> str:
        """Store a bundle; its revision. Storing what is there already changes nothing."""
        async with self.faults.around("put_bundle"):
            revision = revision_of(data)
            self.bundles[revision] = data
            return revision

    async def put_assignment(self, revision: str, plans: Mapping[str, Sequence[ModelLoad]]) -> None:
        """Store what each shard must hold for a revision.

        Raises:
            StoreError: another assignment of the revision is there.
        """
        async with self.faults.around("put_assignment"):
            frozen = {shard: tuple(plan) for shard, plan in plans.items()}
            if self._assignments.setdefault(revision, frozen) != frozen:
                raise StoreError(f"another assignment of revision {revision[:12]} is there, and never changes")

    async def replace_assignment(
        self, revision: str, before: Mapping[str, Sequence[ModelLoad]], plans: Mapping[str, Sequence[ModelLoad]]
    ) -> None:
        """Store what each shard must hold for a revision in place of `before`: see `BundleStore.replace_assignment`."""
        async with self.faults.around("replace_assignment"):
            if self._assignments.get(revision) != {shard: tuple(plan) for shard, plan in before.items()}:
                raise replaced_assignment(revision)
            self._assignments[revision] = {shard: tuple(plan) for shard, plan in plans.items()}

    async def assignment(self, revision: str) -> Mapping[str, tuple[ModelLoad, ...]]:
        """What each shard must hold for a revision.

        Raises:
            BundleError: it is not there, or is damaged.
        """
        async with self.faults.around("assignment"):
            if revision not in self._assignments:
                raise BundleError(f"there is no assignment of revision {revision[:12]}")
            if revision in self.faults.damaged:
                raise BundleError(f"the assignment of revision {revision[:12]} is damaged")
            return dict(self._assignments[revision])

    async def flip(self, entry: LiveEntry, expected: Pointer | None) -> Pointer:
        """Make a revision live, if the pointer is still `expected` (None: if there is none yet).

        Raises:
            ConflictError: the pointer has moved; it names who moved it.
            ValueError: the entry cannot follow `expected`.
        """
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
        """The last flips that the history has, oldest first."""
        async with self.faults.around("flips"):
            return self.history[-HISTORY_ENTRIES:]

    async def restore(self, pointer: Pointer) -> Pointer:
        """Write a pointer where there is none.

        Raises:
            ConflictError: there is one; it names who moved it last.
        """
        async with self.faults.around("restore"):
            if self._pointer is not None:
                raise moved(self._pointer.live)
            self._pointer = replace(pointer, tag=self._tag())
            return self._pointer

    def _tag(self) -> str:
        """Another tag for each write of the pointer."""
        self._writes += 1
        return str(self._writes)

    def lose_pointer(self) -> None:
        """Delete the pointer, as nobody should."""
        self._pointer = None

    async def record(self, pointer: Pointer) -> None:  # noqa: ARG002  # `flip` has written it
        """Write the flips that the pointer remembers and the history does not have."""
        async with self.faults.around("record"):
            return

    async def claim(self, claim: Claim) -> None:
        """Write or renew a claim."""
        async with self.faults.around("claim"):
            self._claims[claim.id] = claim

    async def release(self, claim_id: str) -> None:
        """End a claim; one that is not there is no error."""
        async with self.faults.around("release"):
            self._claims.pop(claim_id, None)

    async def claims(self) -> Sequence[Claim]:
        """Every claim, expired ones included."""
        async with self.faults.around("claims"):
            return [self._claims[key] for key in sorted(self._claims)]


class MemoryRegistry:
    """A `Registry` in memory; an entry without a sign of life for `timeout_s` by `clock` (Unix seconds) is forgotten.

    Attributes:
        faults: what goes wrong.
        refused: why endpoints are not trusted.
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
        self._endpoints: dict[Endpoint, RegisteredEndpoint] = {}
        self._gateways: dict[str, GatewayReport] = {}

    async def register(self, entry: RegisteredEndpoint) -> None:
        """Write or renew an endpoint. A server that renews itself does not take back `wedged` said by another."""
        async with self.faults.around("register"):
            known = self._endpoints.get(entry.endpoint)
            if known is not None and known.state is EndpointState.WEDGED and self._is_alive(known.seen_at):
                entry = replace(entry, state=EndpointState.WEDGED, note=known.note)
            self._endpoints[entry.endpoint] = entry

    async def deregister(self, endpoint: Endpoint) -> None:
        """Forget an endpoint."""
        async with self.faults.around("deregister"):
            self._endpoints.pop(endpoint, None)

    async def mark_wedged(self, endpoint: Endpoint, note: str) -> None:
        """Say that a load on an endpoint never ended; one that is not registered is left alone."""
        async with self.faults.around("mark_wedged"):
            if endpoint in self._endpoints:
                self._endpoints[endpoint] = replace(self._endpoints[endpoint], state=EndpointState.WEDGED, note=note)

    async def endpoints(self, shard: str | None = None) -> Sequence[RegisteredEndpoint]:
        """See `Registry.endpoints`."""
        return (await self.listing(shard)).endpoints

    async def listing(self, shard: str | None = None) -> EndpointListing:
        """See `Registry.listing`."""
        async with self.faults.around("endpoints"):
            alive = [entry for entry in self._endpoints.values() if self._is_alive(entry.seen_at)]
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
        """A gateway says which revision it serves."""
        async with self.faults.around("report"):
            self._gateways[gateway.id] = gateway

    async def gateways(self) -> Sequence[GatewayReport]:
        """Every gateway that gave a sign of life within the time-out, sorted by id."""
        async with self.faults.around("gateways"):
            alive = [gateway for gateway in self._gateways.values() if self._is_alive(gateway.seen_at)]
            return sorted(alive, key=lambda gateway: gateway.id)

    def _is_alive(self, seen_at: float) -> bool:
        return seen_at + self._timeout_s >= self._clock()
