"""Rules that every implementation of the stores follows."""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.errors import ConflictError, StoreError
from tidegate.ports.bundle_store import BadMark, LiveEntry, Pointer
from tidegate.ports.registry import RegisteredEndpoint
from tidegate.rules.bundle import short_revision

POINTER_ENTRIES = 50
"""The number of flips in the pointer itself, newest first."""

HISTORY_ENTRIES = 200
"""The number of flips of the history that restore a lost pointer completely, with its marks."""

BAD_MARKS = 100
"""The number of bad revisions in the pointer; at least `POINTER_ENTRIES`, so that no revision of `entries` loses its mark."""

SILENCE_S = 30.0
"""Time after its last sign of life after which an endpoint or a gateway is dropped, in seconds."""


def by_address(entry: RegisteredEndpoint) -> tuple[str, str, int]:
    """Sort key of the endpoints of a listing."""
    return entry.endpoint.shard, entry.endpoint.host, entry.endpoint.port


def check_flip(entry: LiveEntry, expected: Pointer | None) -> None:
    """Refuse an entry that cannot follow the pointer `expected`.

    Raises:
        ValueError: its `sequence` does not follow (from 1), `cleared` does not say whether its revision is marked bad, or it
            marks another revision than the one that it replaces.
    """
    following = 1 if expected is None else expected.live.sequence + 1
    if entry.sequence != following:
        raise ValueError(f"flip {entry.sequence} cannot follow; it must be {following}")
    is_bad = expected is not None and expected.mark(entry.revision) is not None
    if is_bad != entry.cleared:
        raise ValueError(f"revision {short_revision(entry.revision)} is {'' if is_bad else 'not '}marked bad")
    replaced = None if expected is None or expected.live.revision == entry.revision else expected.live.revision
    if entry.marked_bad is not None and entry.marked_bad != replaced:
        raise ValueError(
            f"revision {short_revision(entry.marked_bad)} is not replaced by the flip, which cannot mark it bad"
        )


def replaced_assignment(revision: str) -> StoreError:
    return StoreError(
        f"the assignment of revision {short_revision(revision)} was replaced by somebody else; publish again"
    )


def moved(live: LiveEntry) -> ConflictError:
    return ConflictError(
        f"{live.by} made revision {short_revision(live.revision)} live meanwhile ({live.action}); look at what changed, then publish "
        "again on top of it"
    )


def pointer_after(entry: LiveEntry, expected: Pointer | None, tag: str = "") -> Pointer:
    entries = (entry, *(() if expected is None else expected.entries))[:POINTER_ENTRIES]
    fresh = (BadMark(entry.marked_bad, entry.by, entry.at, entry.why),) if entry.marked_bad is not None else ()
    marks = (*fresh, *(() if expected is None else expected.bad))
    bad = {mark.revision: mark for mark in reversed(marks) if mark.revision != entry.revision}
    return Pointer(entries, tag, tuple(reversed(bad.values()))[:BAD_MARKS])


def pointer_of(history: Iterable[LiveEntry]) -> Pointer | None:
    """Return the pointer that these flips, oldest first, lead to, with an empty tag."""
    pointer = None
    for entry in history:
        pointer = pointer_after(entry, pointer)
    return pointer
