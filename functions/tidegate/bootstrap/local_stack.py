"""A stack that runs on one machine: publishes its rules directory, and reports what it does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tidegate.bootstrap.control import author
from tidegate.bootstrap.gateway_supervisor import GatewaySupervisor
from tidegate.bootstrap.incidents import Incidents
from tidegate.bootstrap.sources import FolderModels, followed_rules
from tidegate.bootstrap.tasks import cancel
from tidegate.control.fleet import LocalFleet
from tidegate.control.following import FollowMode, describe_pause, pause_fields, pause_of
from tidegate.control.plane import ControlPlane
from tidegate.control.publish import PublishRequest
from tidegate.control.sources import RulesSource
from tidegate.control.status import FleetReport, unread
from tidegate.control.steps import StepEvent
from tidegate.errors import BundleError, ImmutableError, StackError, StoreError, TidegateError
from tidegate.ports import LiveEntry, Pointer
from tidegate.ports.bundle_store import as_text
from tidegate.rules import Engine
from tidegate.settings import Settings

logger = logging.getLogger(__name__)

STATUS_S = 2.0
"""The longest that a report of the fleet waits for the stores and the servers."""


@dataclass(slots=True)
class LocalStack:
    """A running stack. Made by `tidegate.bootstrap.local.local_stack`.

    Attributes:
        plane: the control plane; any other process may have one of the same stores.
        fleet: the servers, and the directory of those that may be sent requests.
        forgets: whether its stores end with it.
        incidents: what went wrong since the start.
        gateway: the gateway's process; set before anything is published.
        mode: what the rules directory must pass before a change of it goes live.
        last_rejected: when a change of it was refused last, and the findings; None since one was published.
        unpublished_at: when it changed last while following was paused.
        follow_ended: why changes of it are not noticed any more; empty while they are.
    """

    settings: Settings
    plane: ControlPlane
    fleet: LocalFleet
    _rules: Path
    _models: Path
    forgets: bool
    incidents: Incidents
    mode: FollowMode = FollowMode.CHECKED
    last_rejected: Mapping[str, Any] | None = None
    _reading: asyncio.Task[FleetReport] | None = None
    _reading_since: float = 0.0
    _known: Mapping[str, Any] | None = None
    _known_at: str | None = None
    unpublished_at: str | None = None
    _unpublished_since: int = 0
    follow_ended: str = ""
    _rejected_after: int = 0
    _place: str = field(init=False)
    gateway: GatewaySupervisor = field(init=False)
    _supervising: asyncio.Task[None] = field(init=False)
    _serving: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        # Once: a machine whose name changes meanwhile follows the same directory.
        self._place = as_text(f"{socket.gethostname()}:{self._rules.resolve()}")

    @property
    def directory(self) -> str:
        """The rules directory as a flip that follows it says; empty where it is not followed."""
        return "" if self.mode is FollowMode.OFF else self._place

    async def publish(self, rules: RulesSource, why: str, *, strict: bool) -> None:
        """Publish rules, with the models of the folder that they need, and serve them.

        A `strict` publish sends no model with an error that its files show.

        Raises:
            PublishError: a step failed; what was live is live still.
        """
        models = FolderModels(self._models, self.plane.ports.models, strict=strict)
        request = PublishRequest(
            rules=rules, models=models, by=author(), why=why, follows=self.directory, retries=False
        )
        polls: list[asyncio.Task[None]] = []

        def announce(event: StepEvent) -> None:
            _announce(event)
            if event.step == "flip" and event.state == "done":
                # At once, and not when it would ask the next time.
                polls.append(asyncio.create_task(self.gateway.poll()))

        await self.plane.publisher.publish(request, announce)
        await asyncio.gather(*polls)
        await self.gateway.poll()
        self.last_rejected = self.unpublished_at = None

    async def follow_change(self) -> None:
        """Publish the rules directory as it is now, unless somebody else made something live: that pauses following. What is
        wrong with the directory is noted and changes nothing; so is a file that vanishes while it is read, and the next change
        is tried again."""
        try:
            await self.publish(followed_rules(self._rules, self.mode), "the rules directory changed", strict=True)
        except (TidegateError, OSError) as error:
            pause = await self.pause()
            if pause is not None:
                self.unpublished_at, self._unpublished_since = _now(), pause.sequence
                logger.warning(
                    "the rules changed and are not published: following is paused %s; `tidegate follow resume` publishes "
                    "the directory as it is then",
                    describe_pause(pause),
                )
                return
            findings = str(error).splitlines()
            if isinstance(error.__cause__, ImmutableError) and self.forgets:
                findings.append("this stack forgets what was pushed when it is restarted")
            logger.warning("the new rules are refused, the old ones stay live: %s", "\n".join(findings))
            self.last_rejected = {"at": _now(), "findings": findings}
            self._rejected_after = _sequence(self.plane.reader.known)

    async def pause(self) -> LiveEntry | None:
        """The flip that paused following; None where it is not paused, or the store does not say."""
        try:
            return pause_of(await self.plane.reader.pointer(), self.directory)
        except StoreError:
            return None

    def serve(self) -> None:
        """Start the gateway, and keep it running."""
        self._serving = asyncio.create_task(self.gateway.run())

    async def stop_serving(self) -> None:
        """End the gateway, the requests under way first."""
        await cancel(self._serving)

    def supervise(self) -> asyncio.Task[None]:
        """Start the servers, and keep them running; whoever cancels the task ends them."""
        self._supervising = asyncio.create_task(self.fleet.run())
        return self._supervising

    async def wait(self) -> None:
        """Wait for what never should be: that nobody keeps the gateway, or the servers, running any more. Raises
        `StackError`."""
        await asyncio.wait([self._serving, self._supervising], return_when=asyncio.FIRST_COMPLETED)
        what, ended = ("gateway is", self._serving) if self._serving.done() else ("servers are", self._supervising)
        raise StackError(f"the {what} not kept running any more") from ended.exception()

    async def live_engine(self) -> Engine | None:
        """The rules that are live; None where the stores do not say."""
        with contextlib.suppress(StoreError, BundleError):
            pointer = await self.plane.reader.pointer()
            return None if pointer is None else await self.plane.reader.engine(pointer.live.revision)
        return None

    async def status(self, follower: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """The fleet as plain JSON values: see docs/control-plane.md, "Fleet status".

        `follower` is what the gateway says of the rules that it serves; None: what it said last.
        """
        report = await self._report()
        wrong = tuple(self.gateway.problems())
        return {
            **report,
            "well": report["well"] and not wrong,
            "problems": [*report["problems"], *wrong],
            **(self.gateway.follower if follower is None else follower),
            **self.incidents.as_dict(self.fleet.restarts(), self.fleet.reloads(), self.gateway.restarts),
            "gateway": self.gateway.as_dict(),
            "follow": self._follow_status(),
            "rules": {"last_rejected": self._last_rejected()},
            "control": {
                "endpoint_url": self.settings.aws_endpoint_url,
                "bucket": self.settings.bucket,
                "registry_table": self.settings.registry_table,
                "region": self.settings.aws_region,
                "facts_table": self.settings.facts_table,
            },
        }

    async def _report(self) -> Mapping[str, Any]:
        """What the stores and servers say, in bounded time: where they do not answer in time, what they said last."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self.plane.status.read(self.fleet.pids()))
            self._reading.add_done_callback(self._keep)
            self._reading_since = time.monotonic()
        left_s = STATUS_S - (time.monotonic() - self._reading_since)
        done, _ = await asyncio.wait([self._reading], timeout=max(left_s, 0.05))
        if not done:
            return self._remembered(f"the stores or a server did not answer within {STATUS_S:g} s")
        try:
            self._reading.result()
        except StoreError as error:
            # What is served goes on being served, and that is worth telling.
            return self._remembered(str(error))
        assert self._known is not None
        return {**self._known, "as_of": self._known_at}

    def _keep(self, reading: asyncio.Task[FleetReport]) -> None:
        """Remember what a reading says, also one that nobody waits for any more."""
        if not reading.cancelled() and reading.exception() is None:
            self._known, self._known_at = reading.result().as_dict(), _now()

    def _remembered(self, problem: str) -> Mapping[str, Any]:
        """The last report, marked as that."""
        known = unread(problem).as_dict() if self._known is None else self._known
        what = problem if self._known is None else f"{problem}; all else here is as of {self._known_at}"
        return {**known, "well": False, "problems": [what], "as_of": self._known_at}

    def _follow_status(self) -> dict[str, Any]:
        """How the directory is followed, by the pointer as it was read last."""
        known = self.plane.reader.known
        pause = None if self.mode is FollowMode.OFF else pause_of(known, self.directory)
        state = "off" if self.mode is FollowMode.OFF else "following" if pause is None else "paused"
        return {
            "mode": self.mode.value,
            "state": "ended" if self.follow_ended else state,
            "ended": self.follow_ended or None,
            "directory": self.directory,
            "rules": str(self._rules.resolve()),
            "models": str(self._models.resolve()),
            "paused": None if pause is None else pause_fields(pause),
            # Of this pause: another process may have published the directory after an earlier one.
            "unpublished_at": self.unpublished_at if pause and pause.sequence == self._unpublished_since else None,
        }

    def _last_rejected(self) -> Mapping[str, Any] | None:
        known = self.plane.reader.known
        if pause_of(known, self.directory) is None and _sequence(known) > self._rejected_after:
            # Another process published the directory since.
            self.last_rejected = None
        return self.last_rejected


def _sequence(pointer: Pointer | None) -> int:
    return 0 if pointer is None else pointer.live.sequence


def _announce(event: StepEvent) -> None:
    if event.state == "failed":
        # The reason is the error's, which is reported once.
        logger.info("publish: %s failed", event.step)
    elif event.state == "done":
        logger.info("publish: %s done%s", event.step, f": {event.text}" if event.text else "")
    elif event.state == "note":
        logger.info("publish: %s: %s", event.step, event.text)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
