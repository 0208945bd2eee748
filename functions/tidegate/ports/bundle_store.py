"""The Protocols of bundles, their assignments, the claims, and the pointer to the live revision."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from tidegate.ports.protocols import ModelLoad


def as_text(written: str) -> str:
    """What somebody wrote, with a question mark for each half of a character. A command line of another encoding than UTF-8
    has such halves, and nothing that has one can be stored."""
    return written.encode("utf-8", "replace").decode()


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

    def __post_init__(self) -> None:
        """Make texts of what a command line had that is none: see `as_text`."""
        object.__setattr__(self, "by", as_text(self.by))
        object.__setattr__(self, "why", as_text(self.why))


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

    def __post_init__(self) -> None:
        """Make a text of who it is: see `as_text`."""
        object.__setattr__(self, "by", as_text(self.by))

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
