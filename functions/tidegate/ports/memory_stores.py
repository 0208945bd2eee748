"""The stores in memory: pushed models, bundles with their pointer, and the registry, with whatever should go wrong.

They keep the guarantees of the real ones. Every call gives way to other tasks once, so that two writers do meet, and the
same calls always give the same history.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tidegate.errors import BundleError, ModelConfigError, StoreError
from tidegate.ports.model_units import UnitFile, check_unchanged, read_units
from tidegate.ports.protocols import Endpoint, ModelLoad
from tidegate.ports.store_rules import HISTORY_ENTRIES, SILENCE_S, by_address, check_flip, moved, pointer_after
from tidegate.ports.stores import (
    Claim,
    EndpointListing,
    EndpointState,
    GatewayReport,
    LiveEntry,
    ModelFile,
    Pointer,
    PushOutcome,
    PushProgress,
    RefusedEndpoint,
    RegisteredEndpoint,
)
from tidegate.rules.bundle import revision_of


@dataclass(slots=True)
class StoreFaults:
    """What goes wrong, from the next call on. Methods go by name; `*` is every method.

    Attributes:
        failing: methods that do nothing and raise `StoreError`, with the reason.
        lost: methods that do their work and then raise `StoreError`, as when the answer was lost.
        held: methods that wait until the event is set, and then go their way.
        damaged: revisions whose bundle and assignment, and `model/path`s of model files, that come back damaged.
    """

    failing: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def around(self, method: str) -> AsyncIterator[None]:
        """Let happen to a call of `method` what should."""
        await asyncio.sleep(0)
        for name in (method, "*"):
            if name in self.held:
                await self.held[name].wait()
            if name in self.failing:
                raise StoreError(f"{method}: {self.failing[name]}")
        yield
        for name in (method, "*"):
            if name in self.lost:
                raise StoreError(f"{method}: {self.lost[name]}")


class MemoryModelStore:
    """A `ModelStore` in memory.

    Attributes:
        faults: what goes wrong.
        units: the files of every pushed unit by model and version (None: of no version); change them as nobody should.
        contents: the bytes of every file by model and path.
    """

    def __init__(self, faults: StoreFaults | None = None) -> None:
        self.faults = StoreFaults() if faults is None else faults
        self.units: dict[tuple[str, int | None], tuple[ModelFile, ...]] = {}
        self.contents: dict[tuple[str, str], bytes] = {}
        self._samples: dict[str, dict[str, bytes]] = {}

    async def models(self) -> Mapping[str, Sequence[int]]:
        """The models of which at least one version is there, sorted by name, with their versions, ascending."""
        async with self.faults.around("models"):
            found: dict[str, list[int]] = {}
            for model, version in sorted((model, version) for model, version in self.units if version is not None):
                found.setdefault(model, []).append(version)
            return found

    async def versions(self, model: str) -> Sequence[int]:
        """The versions of a model that are there whole, ascending."""
        async with self.faults.around("versions"):
            return sorted(version for name, version in self.units if name == model and version is not None)

    async def files(self, model: str, version: int | None) -> Sequence[ModelFile]:
        """The files of a version (None: of what belongs to no version), sorted by path."""
        async with self.faults.around("files"):
            return self.units.get((model, version), ())

    async def read(self, model: str, path: str) -> bytes | None:
        """The content of one file of a model; None where there is none.

        Raises:
            StoreError: it is damaged.
        """
        async with self.faults.around("read"):
            if f"{model}/{path}" in self.faults.damaged:
                raise StoreError(f"{model}/{path} is damaged: its bytes are not those that were pushed; push it again")
            return self.contents.get((model, path))

    async def push(self, model: str, folder: Path, progress: PushProgress) -> PushOutcome:
        """Push a model's folder: whatever of it is not there yet.

        Raises:
            ImmutableError: a config or a version that is there has other files; nothing was changed.
            ModelConfigError: the folder cannot be pushed as it stands.
        """
        async with self.faults.around("push"):
            pushed = read_units(model, folder)
            for version, files in pushed.units.items():
                if (model, version) in self.units:
                    check_unchanged(model, version, self.units[model, version], tuple(each.file for each in files))
            fresh = {version: files for version, files in pushed.units.items() if (model, version) not in self.units}
            samples = {name: each.read(model) for name, each in (pushed.samples or {}).items()}
            contents = {each.file.path: each.read(model) for files in fresh.values() for each in files}
            for version, files in fresh.items():
                self.units[model, version] = tuple(each.file for each in files)
            self.contents.update({(model, path): data for path, data in contents.items()})
            sent = self._send_samples(model, pushed.samples, samples)
            sent += [each.file for files in fresh.values() for each in files]
            total, done = sum(file.size_bytes for file in sent), 0
            for file in sent:
                done += file.size_bytes
                progress(file.path, done, total)
            versions = tuple(version for version in fresh if version is not None)
            return PushOutcome(model, versions, len(sent), total)

    async def unpushed(self, folders: Mapping[str, Path]) -> Sequence[str]:
        """Those of some models whose push may have something to do, or be refused."""
        async with self.faults.around("unpushed"):
            return [model for model, folder in folders.items() if not self._has(model, folder)]

    async def samples(self, model: str) -> Mapping[str, bytes]:
        """The golden requests of a model as JSON by file name."""
        async with self.faults.around("samples"):
            return dict(self._samples.get(model, {}))

    def _has(self, model: str, folder: Path) -> bool:
        try:
            pushed = read_units(model, folder)
            samples = {name: each.read(model) for name, each in (pushed.samples or {}).items()}
        except ModelConfigError:
            return False
        if pushed.samples is not None and samples != self._samples.get(model, {}):
            return False
        return all(
            self.units.get((model, version)) == tuple(each.file for each in files)
            for version, files in pushed.units.items()
        )

    def _send_samples(
        self, model: str, wanted: Mapping[str, UnitFile] | None, contents: dict[str, bytes]
    ) -> list[ModelFile]:
        if wanted is None:
            return []
        before = self._samples.get(model, {})
        self._samples[model] = contents
        return [wanted[name].file for name, data in contents.items() if before.get(name) != data]


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
            self._pointer = pointer_after(entry, expected, str(entry.sequence))
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
            self._pointer = replace(pointer, tag=f"{pointer.live.sequence} restored")
            return self._pointer

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
