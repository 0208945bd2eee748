"""Follow a directory of rules: each change of it is published, until somebody else makes something live.

The pointer alone decides whether it is paused: each flip names the directory that it follows, if any. So a publish or a
rollback by hand, from any process, pauses following with the same write. It continues once a person publishes the directory
again.
"""

from __future__ import annotations

import contextlib
from enum import StrEnum
from typing import Any

from tidegate.control.config import ControlPorts
from tidegate.errors import ConflictError, FollowingPausedError, StoreError, TidegateError
from tidegate.ports import FlipAction, LiveEntry, Pointer
from tidegate.rules.bundle import revision_json, short_revision

PAUSE_ATTEMPTS = 5


class FollowMode(StrEnum):
    """The checks that a changed directory must pass before it goes live."""

    CHECKED = "checked"
    """The check, the cases and the check of the models, as `tidegate publish`."""
    UNCHECKED = "unchecked"
    """It compiles."""
    OFF = "off"
    """Nothing is followed."""


def pause_of(pointer: Pointer | None, directory: str | None) -> LiveEntry | None:
    """Return the flip that paused the following of a directory; None where it is not paused."""
    return None if pointer is None or pointer.live.follows == directory else pointer.live


def refuse_paused(pointer: Pointer | None, directory: str) -> None:
    """Refuse to publish a directory because it changed.

    Raises:
        FollowingPausedError: somebody else made something live since it was published last.
    """
    pause = pause_of(pointer, directory)
    if pause is not None:
        raise FollowingPausedError(f"following is paused {describe_pause(pause)}; `tidegate follow resume` goes on")


def describe_pause(pause: LiveEntry) -> str:
    why = f": {pause.why}" if pause.why else ""
    if pause.action == FlipAction.PAUSE:
        return f"since {pause.when}, because {pause.by} paused it{why}"
    return f"since {pause.when}, because {pause.by} made revision {short_revision(pause.revision)} live ({pause.action}{why})"


def pause_fields(pause: LiveEntry) -> dict[str, Any]:
    return {
        "at": pause.when,
        "by": pause.by,
        "action": pause.action,
        **revision_json(pause.revision),
        "why": pause.why,
    }


async def pause(ports: ControlPorts, *, by: str, why: str) -> tuple[LiveEntry, bool]:
    """Pause whatever directory is followed. Return the flip that paused it, and whether this call made it.

    Raises:
        TidegateError: nothing is live, so that nothing is followed.
        ConflictError: others move the pointer all the time.
    """
    for attempt in range(PAUSE_ATTEMPTS):
        pointer = await ports.bundles.pointer()
        if pointer is None:
            raise TidegateError("nothing is live, so no directory is followed; publish rules first")
        live = pointer.live
        if live.follows is None:
            return live, False
        entry = LiveEntry(live.revision, live.sequence + 1, by, ports.clock(), why, FlipAction.PAUSE)
        try:
            paused = await ports.bundles.flip(entry, pointer)
        except ConflictError:
            if attempt == PAUSE_ATTEMPTS - 1:
                raise
            continue
        with contextlib.suppress(StoreError):
            # The next flip writes it to the history.
            await ports.bundles.record(paused)
        return paused.live, True
    raise AssertionError
