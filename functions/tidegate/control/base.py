"""The base of a publish: what is live when it begins. The rules were written with that in view, so they replace only that."""

from __future__ import annotations

import asyncio
from typing import TypeGuard

from tidegate.control.outlook import changes_of_rules
from tidegate.control.plane import ControlPlane
from tidegate.control.remains import GONE
from tidegate.errors import BundleError, ConflictError, PublishError, StoreError
from tidegate.ports import Pointer
from tidegate.ports.store_rules import moved
from tidegate.rules.bundle import begins_revision, short_revision

NOTHING_LIVE = "none"
"""The name of the base if nothing is live."""

SHOWN_CHANGES = 10


async def read_base(plane: ControlPlane, onto: str | None) -> Pointer | None:
    """Return what is live now.

    Args:
        onto: the revision that must be live, or its beginning; `NOTHING_LIVE`: nothing must be; None: whatever is.

    Raises:
        ConflictError: another revision is live; the message says who made it live, and what it changed.
    """
    pointer = await plane.reader.pointer()
    if onto is None:
        return pointer
    expected = onto.lower()
    if pointer is None:
        if expected != NOTHING_LIVE:
            raise ConflictError(f"nothing is live, and not revision {onto}; publish with --onto {NOTHING_LIVE}")
        return pointer
    if not expected or not begins_revision(expected, pointer.live.revision):
        earlier = (each.revision for each in pointer.entries if expected and begins_revision(expected, each.revision))
        raise ConflictError(await _moved(plane, next(earlier, None), pointer, f"--onto names {onto or 'nothing'}"))
    return pointer


async def check_base(plane: ControlPlane, base: Pointer | None) -> None:
    """Check that the base is still live. Raises `ConflictError`: it is not; it says who made what live, and what that changed."""
    await _check(plane, base, await plane.reader.pointer())


async def explain_conflict(plane: ControlPlane, base: Pointer | None, error: PublishError, wanted: str) -> bool:
    """Explain the error of a publish that lost against another one. Return whether its revision `wanted` is live nevertheless.

    Raises:
        PublishError: another is; the message says who made it live, and what it changed.
    """
    try:
        pointer = await plane.reader.pointer()
        if pointer is not None and pointer.live.revision == wanted:
            return True
        await _check(plane, base, pointer)
    except ConflictError as conflict:
        raise PublishError(error.step, str(conflict)) from conflict
    except StoreError:
        pass
    return False


def refuse_moved(pointer: Pointer | None, base: Pointer | None) -> None:
    """Refuse to go on if the pointer is not the base, without reading what the other revision changed.

    Raises:
        ConflictError: it has moved, and the message says who moved it, or it is gone.
    """
    if _is_other(pointer, base):
        raise moved(pointer.live)


def _is_other(pointer: Pointer | None, base: Pointer | None) -> TypeGuard[Pointer]:
    if pointer is None and base is not None:
        raise ConflictError(GONE)
    return pointer is not None and (base is None or base.tag != pointer.tag)


async def _check(plane: ControlPlane, base: Pointer | None, pointer: Pointer | None) -> None:
    if _is_other(pointer, base):
        before = None if base is None else base.live.revision
        began = "nothing was live" if before is None else f"revision {short_revision(before)} was live"
        raise ConflictError(await _moved(plane, before, pointer, f"{began} when this publish began"))


async def _moved(plane: ControlPlane, before: str | None, pointer: Pointer, but: str) -> str:
    """Return a text: who made which revision live, and what it changed in the rules of revision `before` (None: unknown)."""
    live = pointer.live
    why = f": {live.why}" if live.why else ""
    lines = [
        f"{live.by} made revision {short_revision(live.revision)} live at {live.when} ({live.action}{why}), and {but}"
    ]
    if before is not None and before != live.revision:
        lines += await _changes(plane, before, live.revision)
    advice = "`tidegate rules diff live: RULES` shows how your rules differ from it; publish again to go on top of it"
    return "\n".join([*lines, advice])


async def _changes(plane: ControlPlane, before: str, after: str) -> list[str]:
    try:
        bundles = [await plane.ports.bundles.bundle(revision) for revision in (before, after)]
        changes = await asyncio.to_thread(changes_of_rules, *bundles)
    except BundleError:
        return []
    lines = [f"  {change}" for change in changes[:SHOWN_CHANGES]]
    more = len(changes) - SHOWN_CHANGES
    return [*lines, f"  and {more} more changes"] if more > 0 else lines
