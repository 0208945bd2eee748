"""What every implementation of the stores holds to."""

from __future__ import annotations

from tidegate.errors import ConflictError
from tidegate.ports.stores import LiveEntry, Pointer, RegisteredEndpoint

POINTER_ENTRIES = 50
"""How many flips the pointer itself remembers, newest first."""

SILENCE_S = 30.0
"""How long after its last sign of life an endpoint or a gateway is forgotten, in seconds."""


def by_address(entry: RegisteredEndpoint) -> tuple[str, str, int]:
    """The order in which a registry lists endpoints."""
    return entry.endpoint.shard, entry.endpoint.host, entry.endpoint.port


def check_sequence(entry: LiveEntry, expected: Pointer | None) -> None:
    """Refuse an entry that does not count on from the pointer that it is to replace.

    Raises:
        ValueError: its `sequence` is not one more than that of `expected` (1 without).
    """
    following = 1 if expected is None else expected.live.sequence + 1
    if entry.sequence != following:
        raise ValueError(f"flip {entry.sequence} cannot follow; it must be {following}")


def moved(live: LiveEntry) -> ConflictError:
    """The error for a flip that came second."""
    return ConflictError(
        f"revision {live.revision[:12]} was made live meanwhile by {live.by} ({live.action}, flip {live.sequence}); "
        "look at it, then publish again on top of it"
    )


def entries_after(entry: LiveEntry, expected: Pointer | None) -> tuple[LiveEntry, ...]:
    """What the pointer remembers after a flip."""
    return (entry, *(() if expected is None else expected.entries))[:POINTER_ENTRIES]
