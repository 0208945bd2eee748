"""The Protocols of what outlives a process: pushed models, bundles with their pointer, and the registry."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from tidegate.ports.protocols import Endpoint, ModelLoad, ModelRepository


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a pushed model: `path` relative to the model's folder, `sha256` in hexadecimal, `size_bytes`."""

    path: str
    sha256: str
    size_bytes: int


Unit = tuple[str, int | None]
"""What is pushed, replaced and withdrawn as a whole: a version of a model, or (None) what belongs to no version of it."""


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """What a push did: the versions that it added, and the files and bytes that it sent; nothing where all was there.

    `replaced` are the versions (None: the config) that had been pushed with other files and were never live.
    """

    model: str
    versions: tuple[int, ...] = ()
    files: int = 0
    size_bytes: int = 0
    replaced: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class PushPlan:
    """What a push would do: the versions that it would add and the files that it would send, sorted by path.

    `is_done` says that nothing is left to do; `replaced` are the drafts that have other files, None for the config.
    """

    model: str
    versions: tuple[int, ...]
    files: tuple[ModelFile, ...]
    is_done: bool
    replaced: tuple[int | None, ...] = ()

    @property
    def size_bytes(self) -> int:
        """How much would be sent."""
        return sum(file.size_bytes for file in self.files)


PushProgress = Callable[[str, int, int], None]
"""Is told the path of the file that was sent, the bytes sent so far, and how many there are to send."""


class ModelStore(Protocol):
    """The pushed models: files that every shard can load.

    What belongs to no version (the config, label files) is one unit, each version is another. A unit is there only once
    all its files are. Until a publish has sealed it, which it does before it makes it live, a unit is a *draft*: another
    push may replace it, and it may be withdrawn. A sealed unit never changes, and neither does one of which it is not
    known that it is a draft.
    """

    async def models(self) -> Mapping[str, Sequence[int]]:
        """The models of which at least one version is there, sorted by name, with their versions, ascending."""
        ...

    async def versions(self, model: str) -> Sequence[int]:
        """The versions of a model that are there whole, ascending; empty for an unknown model."""
        ...

    async def files(self, model: str, version: int | None) -> Sequence[ModelFile]:
        """The files of a version (None: of what belongs to no version), sorted by path; empty where it is not there."""
        ...

    async def read(self, model: str, path: str) -> bytes | None:
        """The content of one file of a model; None where there is none."""
        ...

    async def push(self, model: str, folder: Path, progress: PushProgress, held: Collection[Unit] = ()) -> PushOutcome:
        """Push a model's folder: whatever of it is not there yet. After an interrupted push, files that are there whole
        are not sent again. Drafts with other files are replaced, unless they are `held`.

        Raises:
            ImmutableError: a config or a version that is there, and no draft, has other files; nothing was changed.
            ConflictError: a draft that is held has other files, or another push of the model began meanwhile.
            ModelConfigError: the folder cannot be pushed as it stands, such as for a link that leads out of it.
        """
        ...

    async def push_all(
        self, folders: Mapping[str, Path], progress: Callable[[str], PushProgress], held: Collection[Unit] = ()
    ) -> Sequence[PushOutcome]:
        """Push the folders of several models: see `push`. Where one is refused, nothing of any is sent.

        `progress` gives the callback of each model.
        """
        ...

    async def plan(self, model: str, folder: Path, held: Collection[Unit] = ()) -> PushPlan:
        """What `push` would do now; nothing is changed. Raises what `push` would find before it begins."""
        ...

    async def unpushed(self, folders: Mapping[str, Path]) -> Sequence[str]:
        """Those of some models whose push may have something to do, or be refused. What is left out is there, file by
        file as in its folder. For hundreds of models this costs a few calls of the store."""
        ...

    async def samples(self, model: str) -> Mapping[str, bytes]:
        """The golden requests of a model as JSON by file name; they are not served, and may change at any time."""
        ...

    def forget_drafts(self) -> None:
        """Read drafts from the store again, where this object has kept what it read of them."""
        ...

    async def pin(self, units: Iterable[Unit]) -> Mapping[Unit, str]:
        """The drafts among some units, each with a tag of the files that `files` and `read` gave of it. A tag is never
        the same for other files.

        Raises:
            ConflictError: a unit is not there (any more).
        """
        ...

    async def seal(self, pins: Mapping[Unit, str]) -> None:
        """Make drafts immutable that are still as they were pinned, before a revision that needs them becomes live.

        Raises:
            ConflictError: one was replaced or withdrawn since. Others may have been sealed.
            StoreError: a file of one is damaged.
        """
        ...

    async def withdraw(
        self, model: str, version: int | None = None, *, held: Collection[Unit] = (), dry_run: bool = False
    ) -> Sequence[int | None]:
        """Remove drafts: one version of a model, or (None) all of it with its golden requests.

        Returns:
            What was removed, or would be: versions, and None for what belongs to no version. A push that was
            interrupted counts as well.

        Raises:
            ImmutableError: something of it is no draft; nothing was changed.
            ConflictError: something of it is held, or a push of it is under way.
        """
        ...


@dataclass(frozen=True, slots=True)
class LiveEntry:
    """One flip of the pointer.

    Attributes:
        revision: the revision that became live.
        sequence: the number of the flip, from 1.
        by: who flipped it.
        at: when, in Unix seconds.
        why: why, in words.
        action: `publish`, `rollback`, `recover` (the pointer was lost, and a person chose what is live), or `pause` (the same
            revision stays live, and no directory is followed).
        marked_bad: the revision that the flip replaced, where it marked that bad; else empty.
        cleared: whether `revision` was marked bad until then.
        follows: the directory that was published because it is followed (see `tidegate follow`); else empty.
    """

    revision: str
    sequence: int
    by: str
    at: float
    why: str = ""
    action: str = "publish"
    marked_bad: str = ""
    cleared: bool = False
    follows: str = ""


@dataclass(frozen=True, slots=True)
class BadMark:
    """A revision that was rolled back and must not go live again by itself: who marked it, when (Unix seconds) and why."""

    revision: str
    by: str
    at: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Pointer:
    """The pointer to the live revision, as read.

    Attributes:
        entries: the flips, newest first: at least one, the first is live. Older ones may have been dropped.
        tag: what a flip must present.
        bad: the revisions that are marked bad, the last marked first. The live one never is.
    """

    entries: tuple[LiveEntry, ...]
    tag: str
    bad: tuple[BadMark, ...] = ()

    @property
    def live(self) -> LiveEntry:
        """The entry that is live."""
        return self.entries[0]

    @property
    def arrival(self) -> LiveEntry:
        """The flip since which the live revision has been live without a break."""
        same = itertools.takewhile(lambda entry: entry.revision == self.live.revision, self.entries)
        return tuple(same)[-1]

    def mark(self, revision: str) -> BadMark | None:
        """The mark of a revision; None where it is not marked bad."""
        return next((mark for mark in self.bad if mark.revision == revision), None)


class ClaimStage(StrEnum):
    """How far a publisher has come with the models of its revision.

    `trying`: they may still hang or end a server, so the publisher alone loads them, and nobody unloads them. `proved`:
    every server that was ready holds them, and whoever fills or repairs a server loads them too.
    """

    TRYING = "trying"
    PROVED = "proved"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim on the fleet until `expires_at` (Unix seconds).

    With a `revision` it is a publisher's: the models of the revision stay loaded while it works, and `stage` says who
    loads them. Without one (empty) it is the mark of someone who repairs the fleet: what is loaded may change until it is
    gone. One that cannot be decoded says in `damaged` what is wrong; whose it is nobody knows, and `expires_at` is when it
    was written.
    """

    id: str
    revision: str
    by: str
    expires_at: float
    stage: ClaimStage = ClaimStage.TRYING
    damaged: str = ""

    @property
    def publishes(self) -> bool:
        """Whether it is a publisher's, as far as is known."""
        return bool(self.revision or self.damaged)


class BundleSource(Protocol):
    """What a gateway needs of the bundle store. Every method may raise `StoreError`: the store did not answer."""

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        """The pointer; None where there is none: nothing was ever published, or it was lost. `known` itself where it is still
        that."""
        ...

    async def bundle(self, revision: str) -> bytes:
        """The bytes of a bundle, whose digest has been checked.

        Raises:
            BundleError: there is no such bundle, or its bytes are not those of the revision.
        """
        ...


class BundleStore(BundleSource, Protocol):
    """Immutable bundles with their assignments, and the one pointer that says which is live."""

    async def put_bundle(self, data: bytes) -> str:
        """Store a bundle; its revision. Storing what is there already changes nothing."""
        ...

    async def put_assignment(self, revision: str, plans: Mapping[str, Sequence[ModelLoad]]) -> None:
        """Store what each shard must hold for a revision. Like the bundle it never changes.

        Raises:
            StoreError: another assignment of the revision is there.
        """
        ...

    async def replace_assignment(
        self, revision: str, before: Mapping[str, Sequence[ModelLoad]], plans: Mapping[str, Sequence[ModelLoad]]
    ) -> None:
        """Store what each shard must hold for a revision in place of `before`. Only right for a revision that needs a draft
        (see `ModelStore`): so it was never live.

        Raises:
            StoreError: what is there is not `before`.
        """
        ...

    async def assignment(self, revision: str) -> Mapping[str, tuple[ModelLoad, ...]]:
        """What each shard must hold for a revision.

        Raises:
            BundleError: it is not there, or is damaged.
        """
        ...

    async def flip(self, entry: LiveEntry, expected: Pointer | None) -> Pointer:
        """Make a revision live, if the pointer is still `expected` (None: if there is none yet).

        `entry.sequence` counts on from that of `expected` (from 1). The marks of bad revisions change with the same write:
        see `LiveEntry.marked_bad` and `LiveEntry.cleared`.

        Raises:
            ConflictError: the pointer has moved; it names who moved it.
            ValueError: the entry cannot follow `expected`, such as one of a bad revision that does not clear the mark.
        """
        ...

    async def flips(self, *, all_traces: bool = False) -> Sequence[LiveEntry]:
        """The last flips that the history has, oldest first; those that cannot be decoded are left out. With `all_traces`
        also those that older versions of the pointer show, where the store keeps any and lets the caller read them.

        Raises:
            StoreError: the store did not answer, or, without `all_traces`, has flips of which none can be decoded.
        """
        ...

    async def restore(self, pointer: Pointer) -> Pointer:
        """Write a pointer where there is none, or in place of a damaged one.

        Raises:
            ConflictError: there is one; it names who moved it last.
        """
        ...

    async def record(self, pointer: Pointer) -> None:
        """Write the flips that the pointer remembers and the history does not have, those of others included.

        Raises:
            StoreError: another flip of the same number is in the history.
        """
        ...

    async def claim(self, claim: Claim) -> None:
        """Write or renew a claim."""
        ...

    async def release(self, claim_id: str) -> None:
        """End a claim; one that is not there is no error."""
        ...

    async def claims(self) -> Sequence[Claim]:
        """Every claim, those included that are expired or damaged."""
        ...


class EndpointState(StrEnum):
    """State of a registered endpoint: `loading` is not yet to be sent requests; `wedged`: a load on it never ended, so it
    must be replaced."""

    LOADING = "loading"
    READY = "ready"
    WEDGED = "wedged"


@dataclass(frozen=True, slots=True)
class RegisteredEndpoint:
    """A model server as the registry knows it.

    `grpc_port` and `metrics_port` are None where it has none. `seen_at` is its last sign of life in Unix seconds.
    """

    endpoint: Endpoint
    state: EndpointState
    seen_at: float
    grpc_port: int | None = None
    metrics_port: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class RefusedEndpoint:
    """An entry of the registry that is not trusted: it is malformed, or outside the networks that endpoints may be in.

    `address` is a text for people, not an `Endpoint`, so that nothing can be sent there. `note` says why it is refused, and
    `seen_at` is when (Unix seconds).
    """

    shard: str
    address: str
    seen_at: float
    note: str


@dataclass(frozen=True, slots=True)
class EndpointListing:
    """The endpoints of a registry, and the entries that it refuses, each sorted by shard and address."""

    endpoints: tuple[RegisteredEndpoint, ...]
    refused: tuple[RefusedEndpoint, ...]


RepositoryOf = Callable[[RegisteredEndpoint], ModelRepository]
"""Gives the model repository of an endpoint, whoever started its server."""


@dataclass(frozen=True, slots=True)
class GatewayReport:
    """A gateway as the registry knows it: the revision that it serves, and its last sign of life (Unix seconds)."""

    id: str
    revision: str
    seen_at: float


class GatewayReports(Protocol):
    """Is told which revision each gateway serves. The method may raise `StoreError`."""

    async def report(self, gateway: GatewayReport) -> None:
        """A gateway says which revision it serves."""
        ...


class Registry(GatewayReports, Protocol):
    """Knows which model servers and gateways there are. Every method may raise `StoreError`."""

    async def register(self, entry: RegisteredEndpoint) -> None:
        """Write or renew an endpoint. A server that renews itself does not take back `wedged` said by another."""
        ...

    async def deregister(self, endpoint: Endpoint) -> None:
        """Forget an endpoint."""
        ...

    async def mark_wedged(self, endpoint: Endpoint, note: str) -> None:
        """Say that a load on an endpoint never ended; whoever runs it replaces it."""
        ...

    async def endpoints(self, shard: str | None = None) -> Sequence[RegisteredEndpoint]:
        """Every trusted endpoint, or those of a shard, that gave a sign of life within the registry's own time-out, sorted by
        shard and address."""
        ...

    async def listing(self, shard: str | None = None) -> EndpointListing:
        """The same endpoints, and beside them the entries that are not trusted, to report them."""
        ...

    async def gateways(self) -> Sequence[GatewayReport]:
        """Every gateway that gave a sign of life within the registry's own time-out."""
        ...
