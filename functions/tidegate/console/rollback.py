"""`POST /v1/rollback`: makes an earlier revision live, as `tidegate rollback` does."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from tidegate.console.sources import Flipped
from tidegate.control.plane import ControlPlane
from tidegate.control.rollback import RollbackRequest, RollbackResult, roll_back
from tidegate.control.steps import StepEvent, StepState
from tidegate.errors import PublishError, Refusal, RefusedError, malformed
from tidegate.rules.bundle import revision_json, rules_of, short_revision

audit = logging.getLogger("tidegate.audit")

WAIT_S = 60.0
"""The longest wait for the flip; a revision that is not loaded is loaded and validated first."""

LONGEST = 500


class Rollbacks:
    """Rolls back, one at a time until its flip. It goes on after that, until requests of what was live before have drained; a process
    that `stops_after_answers` waits for that before it answers."""

    def __init__(self, plane: ControlPlane, told: Flipped | None = None, *, stops_after_answers: bool = False) -> None:
        self._plane = plane
        self._told = told
        self._stops_after_answers = stops_after_answers
        self._flipping: object | None = None
        """Stands for the rollback that has not flipped yet."""

    async def roll_back(self, to: str, why: str, by: str) -> dict[str, Any]:
        """Make the revision `to` live: its first digits, or `live~1` for the last one before the live one that is not marked bad.

        Raises:
            RefusedError: there is no such revision, it is marked bad, a step failed, or another rollback is under way.
        """
        _check_text("to", to, 1)
        _check_text("why", why, 1)
        if self._flipping is not None:
            raise RefusedError(Refusal.NOT_ROLLED_BACK, "a rollback is under way; look at the history once it is done")
        own = self._flipping = object()

        def end() -> None:
            # The next one may be under way by then.
            if self._flipping is own:
                self._flipping = None

        try:
            before = await self._live()
        except BaseException:
            end()
            raise
        flipped = asyncio.Event()

        def announce(event: StepEvent) -> None:
            if event.step == "flip" and event.state is StepState.DONE:
                flipped.set()
                end()

        def ended(work: asyncio.Task[RollbackResult]) -> None:
            end()
            _log(work, by)

        revision = None if to == "live~1" else to
        request = RollbackRequest(by=by, why=why, revision=revision, leaving=None if revision is not None else before)
        audit.info("rollback to %s asked for by %s: %s", to, by, why)
        work = asyncio.create_task(roll_back(self._plane, request, announce))
        work.add_done_callback(ended)
        waiting = asyncio.create_task(flipped.wait())
        try:
            if self._stops_after_answers:
                await asyncio.wait([work])
            else:
                await asyncio.wait([work, waiting], timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if flipped.is_set() and self._told is not None:
            await self._told()
        if work.done():
            return _result(work)
        if not flipped.is_set():
            return {"ok": True, "status": "under way", **revision_json(None), "before": before and rules_of(before)}
        live = await self._live()
        return {"ok": True, "status": "rolled back", **revision_json(live), "before": before and rules_of(before)}

    async def _live(self) -> str | None:
        pointer = await self._plane.reader.pointer()
        return None if pointer is None else pointer.live.revision


def _result(work: asyncio.Task[RollbackResult]) -> dict[str, Any]:
    try:
        result = work.result()
    except PublishError as error:
        raise RefusedError(Refusal.NOT_ROLLED_BACK, str(error), step=error.step) from error
    return {"ok": True, **result.as_dict()}


def _log(work: asyncio.Task[RollbackResult], by: str) -> None:
    if work.cancelled():
        audit.warning("the rollback of %s was cut off", by)
    elif (error := work.exception()) is not None:
        audit.warning("the rollback of %s failed: %s", by, error)
    else:
        result = work.result()
        audit.info(
            "the rollback of %s is done (%s): revision %s is live, before it was %s",
            by,
            result.status,
            short_revision(result.revision),
            short_revision(result.before),
        )


def _check_text(name: str, text: Any, least: int) -> None:
    if not isinstance(text, str) or not least <= len(text) <= LONGEST or not text.isprintable():
        raise malformed(f"the member '{name}' must be a printable text of {least} to {LONGEST} characters")
