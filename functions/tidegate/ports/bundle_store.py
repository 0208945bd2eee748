"""The Protocols of bundles, their assignments, the claims, and the pointer to the live revision."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Protocol

from tidegate.ports.models import ModelLoad


def iso_time(seconds: float) -> str:
    """Return a time in Unix seconds in ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def as_text(written: str) -> str:
    """Replace lone surrogates, which a command line in another encoding than UTF-8 has and which cannot be stored."""
    return written.encode("utf-8", "replace").decode()


class FlipAction(StrEnum):
    """The change that made a revision live."""

    PUBLISH = "publish"
    ROLLBACK = "rollback"
    RECOVER = "recover"
    """A person chose what is live after the pointer was lost."""
    PAUSE = "pause"
    """The same revision stays live, and no directory is followed any more."""


@dataclass(frozen=True, slots=True)
class LiveEntry:
    """One flip of the pointer.

    Attributes:
        revision: the revision that became live.
        sequence: the number of the flip, from 1.
        at: when, in Unix seconds.
        action: a `FlipAction`, or one that a newer version wrote.
        marked_bad: the revision that the flip replaced, if it marked that bad.
        cleared: whether `revision` was marked bad until then.
        follows: the directory that is followed (see `tidegate follow`).
    """

    revision: str
    sequence: int
    by: str
    at: float
    why: str = ""
    action: str = FlipAction.PUBLISH
    marked_bad: str | None = None
    cleared: bool = False
    follows: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", as_text(self.by))
        object.__setattr__(self, "why", as_text(self.why))

    @property
    def when(self) -> str:
        return iso_time(self.at)


@dataclass(frozen=True, slots=True)
class BadMark:
    """A revision that was rolled back and does not go live again by itself; `at` is in Unix seconds."""

    revision: str
    by: str
    at: float
    why: str = ""

    @property
    def when(self) -> str:
        return iso_time(self.at)


@dataclass(frozen=True, slots=True)
class Pointer:
    """The pointer to the live revision, as read.

    Attributes:
        entries: the last flips, newest first, at least one; the first is live.
        tag: the ETag that a flip must present.
        bad: the revisions that are marked bad, the last marked first; never the live one.
        age_s: how old this was when it was read, in seconds: more than 0 only from a cache.
    """

    entries: tuple[LiveEntry, ...]
    tag: str
    bad: tuple[BadMark, ...] = ()
    age_s: float = field(default=0.0, compare=False)

    @property
    def live(self) -> LiveEntry:
        return self.entries[0]

    @property
    def arrival(self) -> LiveEntry:
        """The flip since which the live revision has been live without interruption."""
        same = itertools.takewhile(lambda entry: entry.revision == self.live.revision, self.entries)
        return tuple(same)[-1]

    def mark(self, revision: str) -> BadMark | None:
        return next((mark for mark in self.bad if mark.revision == revision), None)


class ClaimStage(StrEnum):
    """Progress of a publisher with the models of its revision."""

    TRYING = "trying"
    """They may still hang or end a server: only the publisher loads them, and no process unloads them."""
    PROVED = "proved"
    """Every server that was ready holds them: whatever fills or repairs a server loads them too."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim on the fleet until `expires_at` (Unix seconds).

    A publisher's has the `revision` whose models stay loaded meanwhile, and `stage` says who loads them. One without means
    that somebody repairs the fleet. Of one that cannot be decoded, `damaged` says what is wrong; its owner is unknown, and
    `expires_at` is when it was written.
    """

    id: str
    revision: str | None
    by: str
    expires_at: float
    stage: ClaimStage = ClaimStage.TRYING
    damaged: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", as_text(self.by))

    @property
    def publishes(self) -> bool:
        return self.revision is not None or self.damaged is not None


class BundleSource(Protocol):
    """The part of the bundle store that a gateway reads. Every method may raise `StoreError`: no answer, or a refusal."""

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        """Return the pointer (with the tag of `known` while that is current), or None: nothing was ever published, or it was lost."""

    async def bundle(self, revision: str) -> bytes:
        """Return a bundle. Raises `BundleError`: it is missing, or its digest is another."""


class BundleStore(BundleSource, Protocol):
    """Immutable bundles with their assignments, and the pointer to the live one."""

    async def put_bundle(self, data: bytes) -> str:
        """Store a bundle, if it is not there yet, and return its revision."""

    async def put_assignment(self, revision: str, plans: Mapping[str, Sequence[ModelLoad]]) -> None:
        """Store, once, what each shard must hold for a revision.

        Raises:
            StoreError: another assignment of the revision is there.
        """

    async def replace_assignment(
        self, revision: str, before: Mapping[str, Sequence[ModelLoad]], plans: Mapping[str, Sequence[ModelLoad]]
    ) -> None:
        """Replace the assignment `before` of a revision that was never live, since it needs a draft (see `ModelStore`).

        Raises:
            StoreError: the stored assignment is not `before`.
        """

    async def assignment(self, revision: str) -> Mapping[str, tuple[ModelLoad, ...]]:
        """Return what each shard must hold for a revision.

        Raises:
            BundleError: the assignment is missing or damaged.
        """

    async def flip(self, entry: LiveEntry, expected: Pointer | None) -> Pointer:
        """Make a revision live, and change the marks of bad revisions, if the pointer is still `expected` (None: missing).

        Raises:
            ConflictError: the pointer has moved; the message names who moved it.
            ValueError: the entry cannot follow `expected`: see `store_rules.check_flip`.
        """

    async def flips(self, *, all_traces: bool = False) -> Sequence[LiveEntry]:
        """Return the last flips of the history that can be decoded, oldest first; with `all_traces` also those in older versions
        of the pointer, where the store keeps any and lets the caller read them.

        Raises:
            StoreError: none of the flips can be decoded (without `all_traces`).
        """

    async def restore(self, pointer: Pointer) -> Pointer:
        """Write the pointer if it is missing or damaged.

        Raises:
            ConflictError: there is a sound one; the message names who moved it last.
        """

    async def record(self, pointer: Pointer) -> None:
        """Add the flips of a pointer to the history, those of others included.

        Raises:
            StoreError: the history has another flip of the same number.
        """

    async def claim(self, claim: Claim) -> None:
        """Write or renew a claim."""

    async def release(self, claim_id: str) -> None:
        """End a claim, if it is there."""

    async def claims(self) -> Sequence[Claim]:
        """Return every claim, including expired and damaged ones."""
