"""The base of a publish: what is live when it begins. What is published was written with that in view, so it goes live in
place of that and of nothing else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from tidegate.control.desired import StateReader
from tidegate.control.remains import GONE
from tidegate.errors import BundleError, ConflictError, PublishError, StoreError
from tidegate.ports import BundleSource, Pointer
from tidegate.rules.bundle import begins_revision

NOTHING_LIVE = "none"
"""What names the base where nothing is live."""

SHOWN_CHANGES = 10


class BaseReader:
    """Reads the base, and later sees whether it is live still."""

    def __init__(self, bundles: BundleSource, reader: StateReader) -> None:
        self._bundles = bundles
        self._reader = reader

    async def read(self, onto: str | None) -> Pointer | None:
        """What is live now.

        Args:
            onto: the revision that must be live, or the beginning of it; `NOTHING_LIVE`: nothing must be; None: whatever is.

        Raises:
            ConflictError: another revision is live; the message says who made it live, and what is different in it.
            StoreError: the store did not answer.
        """
        pointer = await self._reader.pointer()
        if onto is None:
            return pointer
        expected = onto.lower()
        if pointer is None:
            if expected != NOTHING_LIVE:
                raise ConflictError(f"nothing is live, and not revision {onto}; publish with --onto {NOTHING_LIVE}")
            return pointer
        if not expected or not begins_revision(expected, pointer.live.revision):
            before = next(
                (each.revision for each in pointer.entries if expected and begins_revision(expected, each.revision)), ""
            )
            raise ConflictError(await self._moved(before, pointer, f"--onto names {onto or 'nothing'}"))
        return pointer

    async def check(self, base: Pointer | None) -> None:
        """See that a base is live still.

        Raises:
            ConflictError: it is not; the message says who made what live, and what is different in it, or that the pointer is
                gone.
            StoreError: the store did not answer.
        """
        await self._check(base, await self._reader.pointer())

    async def explain(self, base: Pointer | None, error: PublishError, wanted: str) -> bool:
        """Explain the error of a publish that was overtaken; whether its revision `wanted` is live all the same.

        Raises:
            PublishError: another is; the message says who made it live, and what is different in it.
        """
        try:
            pointer = await self._reader.pointer()
            if pointer is not None and pointer.live.revision == wanted:
                return True
            await self._check(base, pointer)
        except ConflictError as moved:
            raise PublishError(error.step, str(moved)) from moved
        except StoreError:
            pass
        return False

    async def _check(self, base: Pointer | None, pointer: Pointer | None) -> None:
        if pointer is None and base is not None:
            raise ConflictError(GONE)
        if pointer is not None and (base is None or base.tag != pointer.tag):
            before = "" if base is None else base.live.revision
            began = "nothing was live" if base is None else f"revision {before[:12]} was live"
            raise ConflictError(await self._moved(before, pointer, f"{began} when this publish began"))

    async def _moved(self, before: str, pointer: Pointer, but: str) -> str:
        """Who made what live, and what that changed of the rules of revision `before` (empty: not known)."""
        live = pointer.live
        at = datetime.fromtimestamp(live.at, UTC).isoformat(timespec="seconds")
        why = f": {live.why}" if live.why else ""
        lines = [f"{live.by} made revision {live.revision[:12]} live at {at} ({live.action}{why}), and {but}"]
        if before and before != live.revision:
            lines += await asyncio.to_thread(_changes, await self._bundle(before), await self._bundle(live.revision))
        advice = (
            "`tidegate rules diff live: RULES` shows how your rules differ from it; publish again to go on top of it"
        )
        return "\n".join([*lines, advice])

    async def _bundle(self, revision: str) -> bytes:
        try:
            return await self._bundles.bundle(revision)
        except BundleError:
            return b""


def _changes(before: bytes, after: bytes) -> list[str]:
    """What is different in the rules, each change in a line; empty where one of them cannot be read."""
    # Whoever only reconciles or rolls back never needs it.
    from tidegate.rules.compare.changes import changes_between
    from tidegate.rules.compare.revision import open_revision

    try:
        changes = tuple(changes_between(open_revision(before), open_revision(after)))
    except BundleError:
        return []
    lines = [f"  {change}" for change in changes[:SHOWN_CHANGES]]
    return lines + [f"  and {len(changes) - SHOWN_CHANGES} more changes"] * (len(changes) > SHOWN_CHANGES)
