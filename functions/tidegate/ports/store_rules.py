"""What every implementation of the stores holds to."""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.errors import ConflictError, StoreError
from tidegate.ports.bundle_store import BadMark, LiveEntry, Pointer
from tidegate.ports.registry import RegisteredEndpoint

POINTER_ENTRIES = 50
"""How many flips the pointer itself remembers, newest first."""

HISTORY_ENTRIES = 200
"""How many flips of the history are read where the pointer is lost: enough for all that it remembers, marks included."""

BAD_MARKS = 100
"""How many bad revisions the pointer remembers. At least `POINTER_ENTRIES`: a flip marks one at most, so that no
revision of `entries` has lost its mark."""

SILENCE_S = 30.0
"""How long after its last sign of life an endpoint or a gateway is forgotten, in seconds."""


def by_address(entry: RegisteredEndpoint) -> tuple[str, str, int]:
    """The order in which a registry lists endpoints."""
    return entry.endpoint.shard, entry.endpoint.host, entry.endpoint.port


def check_flip(entry: LiveEntry, expected: Pointer | None) -> None:
    """Refuse an entry that cannot follow the pointer that it is to replace.

    Raises:
        ValueError: its `sequence` is not one more than that of `expected` (1 without), its revision is marked bad and it
            does not clear the mark (or the other way round), or it marks another revision than the one that it replaces.
    """
    following = 1 if expected is None else expected.live.sequence + 1
    if entry.sequence != following:
        raise ValueError(f"flip {entry.sequence} cannot follow; it must be {following}")
    is_bad = expected is not None and expected.mark(entry.revision) is not None
    if is_bad != entry.cleared:
        raise ValueError(f"revision {entry.revision[:12]} is {'' if is_bad else 'not '}marked bad")
    replaced = "" if expected is None or expected.live.revision == entry.revision else expected.live.revision
    if entry.marked_bad not in ("", replaced):
        raise ValueError(f"revision {entry.marked_bad[:12]} is not replaced by the flip, which cannot mark it bad")


def replaced_assignment(revision: str) -> StoreError:
    """The error for an assignment that somebody else has replaced."""
    return StoreError(f"the assignment of revision {revision[:12]} was replaced by somebody else; publish again")


def moved(live: LiveEntry) -> ConflictError:
    """The error for a flip that came second."""
    return ConflictError(
        f"revision {live.revision[:12]} was made live meanwhile by {live.by} ({live.action}, flip {live.sequence}); "
        "look at it, then publish again on top of it"
    )


def pointer_after(entry: LiveEntry, expected: Pointer | None, tag: str = "") -> Pointer:
    """The pointer after a flip of `expected` (None: there was none)."""
    entries = (entry, *(() if expected is None else expected.entries))[:POINTER_ENTRIES]
    fresh = (BadMark(entry.marked_bad, entry.by, entry.at, entry.why),) if entry.marked_bad else ()
    marks = (*fresh, *(() if expected is None else expected.bad))
    bad = {mark.revision: mark for mark in reversed(marks) if mark.revision != entry.revision}
    return Pointer(entries, tag, tuple(reversed(bad.values()))[:BAD_MARKS])


def pointer_of(history: Iterable[LiveEntry]) -> Pointer | None:
    """The pointer that flips lead to, oldest first, with an empty tag; None where there are none."""
    pointer = None
    for entry in history:
        pointer = pointer_after(entry, pointer)
    return pointer
