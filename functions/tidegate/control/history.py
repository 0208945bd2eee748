"""What was live when, as `tidegate history --json` and the console have it."""

from __future__ import annotations

from typing import Any

from tidegate.control.desired import rollback_revisions
from tidegate.ports import Pointer
from tidegate.ports.bundle_store import iso_time
from tidegate.rules.bundle import revision_json, rules_of

MOST = 50
"""The flips that a pointer has."""


def history(pointer: Pointer | None, keep_revisions: int, limit: int = MOST) -> list[dict[str, Any]]:
    """Return the last flips as plain JSON values, newest first, with what a rollback to each would need; see docs/json.md."""
    if pointer is None:
        return []
    kept = (pointer.live.revision, *rollback_revisions(pointer, keep_revisions))
    return [
        {
            "flip": entry.sequence,
            "at": entry.when,
            "action": entry.action,
            **revision_json(entry.revision),
            "by": entry.by,
            "why": entry.why,
            "live": entry == pointer.live,
            "bad": _mark(pointer, entry.revision),
            "marked_bad": entry.marked_bad and rules_of(entry.marked_bad),
            "cleared": entry.cleared,
            "follows": entry.follows,
            "loaded": entry.revision in kept,
        }
        for entry in pointer.entries[:limit]
    ]


def _mark(pointer: Pointer, revision: str) -> dict[str, str] | None:
    mark = pointer.mark(revision)
    return None if mark is None else {"by": mark.by, "at": iso_time(mark.at), "why": mark.why}
