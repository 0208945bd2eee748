"""A stack that runs on one machine: publishes its rules directory, and reports what it does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from tidegate.bootstrap.control import author
from tidegate.bootstrap.fleet_reports import FleetReports
from tidegate.bootstrap.gateway_supervisor import GatewaySupervisor
from tidegate.bootstrap.incidents import Incidents
from tidegate.bootstrap.model_sources import FolderModels, ModelErrors
from tidegate.bootstrap.rules_sources import followed_rules
from tidegate.control.endpoints import Times
from tidegate.control.following import FollowMode, describe_pause, pause_fields, pause_of
from tidegate.control.plane import ControlPlane
from tidegate.control.publish import PublishRequest, publish_rules
from tidegate.control.status import read_status
from tidegate.control.steps import StepEvent, StepState
from tidegate.errors import BundleError, ImmutableError, StackError, StoreError, TidegateError
from tidegate.fleet.local_fleet import LocalFleet
from tidegate.ports import LiveEntry, Pointer
from tidegate.ports.bundle_store import as_text
from tidegate.ports.sources import RulesSource
from tidegate.rules import Engine
from tidegate.settings import Settings
from tidegate.tasks import cancel

logger = logging.getLogger(__name__)


class FollowState(StrEnum):
    """State of following the rules directory; `ENDED`: changes are no longer noticed."""

    OFF = "off"
    FOLLOWING = "following"
    PAUSED = "paused"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A change of the rules directory that was refused: when, the findings, and the number of the flip that was live."""

    at: str
    findings: tuple[str, ...]
    after: int


class Unpublished(NamedTuple):
    """When the rules directory changed while following was paused, and the number of the flip that paused it."""

    at: str
    paused_by: int


@dataclass(slots=True)
class LocalStack:
    """A running stack. Made by `tidegate.bootstrap.local.local_stack`.

    Attributes:
        has_temporary_stores: whether its stores end with it.
        gateway: the gateway's process; set before anything is published.
        metrics: renders the metrics in a format of a header `Accept`, with their media type; set with the gateway.
        mode: what the rules directory must pass before a change of it goes live.
        last_rejected: the change of it that was refused last; None since one was published.
        unpublished: the last change of it while following was paused.
        follow_ended: why changes of it are no longer noticed; None while they are.
    """

    settings: Settings
    plane: ControlPlane
    fleet: LocalFleet
    rules: Path
    models: Path
    has_temporary_stores: bool
    incidents: Incidents
    mode: FollowMode = FollowMode.CHECKED
    last_rejected: Rejection | None = None
    unpublished: Unpublished | None = None
    follow_ended: str | None = None
    _place: str = field(init=False)
    _reports: FleetReports = field(init=False)
    gateway: GatewaySupervisor = field(init=False)
    metrics: Callable[[str], Awaitable[tuple[str, bytes]]] = field(init=False)
    _supervising: asyncio.Task[None] = field(init=False)
    _serving: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        self._reports = FleetReports(
            lambda: read_status(self.plane, self.fleet.pids(), late=self.fleet.unanswered_s, timed=True)
        )
        # Once: a machine whose name changes meanwhile follows the same directory.
        self._place = as_text(f"{socket.gethostname()}:{self.rules.resolve()}")

    @property
    def directory(self) -> str | None:
        """The rules directory as a flip that follows it says; None where it is not followed."""
        return None if self.mode is FollowMode.OFF else self._place

    async def publish(self, rules: RulesSource, why: str, errors: ModelErrors = ModelErrors.REFUSE) -> None:
        """Publish rules, with the models of the folder that they need, and serve them. Raises `PublishError`."""
        models = FolderModels(self.models, self.plane.ports.models, errors)
        request = PublishRequest(
            rules=rules, models=models, by=author(), why=why, follows=self.directory, retries=False
        )
        polls: list[asyncio.Task[None]] = []

        def announce(event: StepEvent) -> None:
            _announce(event)
            if event.step == "flip" and event.state is StepState.DONE:
                # At once, and not when it would ask the next time.
                polls.append(asyncio.create_task(self.gateway.poll()))

        await publish_rules(self.plane, request, announce)
        await asyncio.gather(*polls)
        await self.gateway.poll()
        self.last_rejected = self.unpublished = None

    async def follow_change(self) -> None:
        """Publish the rules directory as it is now, unless somebody else made something live: that pauses following. What is
        wrong with the directory is noted and changes nothing; so is a file that vanishes while it is read, and the next change
        is tried again."""
        try:
            await self.publish(followed_rules(self.rules, self.mode), "the rules directory changed")
        except (TidegateError, OSError) as error:
            pause = None
            with contextlib.suppress(StoreError):
                pause = pause_of(await self.plane.reader.pointer(), self.directory)
            if pause is not None:
                self.unpublished = Unpublished(_now(), pause.sequence)
                logger.warning(
                    "the rules changed and are not published: following is paused %s; `tidegate follow resume` publishes "
                    "the directory as it is then",
                    describe_pause(pause),
                )
                return
            findings = str(error).splitlines()
            if isinstance(error.__cause__, ImmutableError) and self.has_temporary_stores:
                findings.append("this stack forgets what was pushed when it is restarted")
            logger.warning("the new rules are refused, the old ones stay live: %s", "\n".join(findings))
            self.last_rejected = Rejection(_now(), tuple(findings), _sequence(self.plane.reader.known))

    def serve(self) -> None:
        self._serving = asyncio.create_task(self.gateway.run())

    async def stop_serving(self) -> None:
        await cancel(self._serving)

    def supervise(self) -> asyncio.Task[None]:
        """Start the servers, and keep them running; cancelling the task ends them."""
        self._supervising = asyncio.create_task(self.fleet.run())
        return self._supervising

    async def wait(self) -> None:
        """Wait until the gateway or the servers are no longer kept running, and raise `StackError`."""
        await asyncio.wait([self._serving, self._supervising], return_when=asyncio.FIRST_COMPLETED)
        what, ended = ("gateway is", self._serving) if self._serving.done() else ("servers are", self._supervising)
        raise StackError(f"the {what} not kept running any more") from ended.exception()

    async def unless_ended(self, work: Coroutine[Any, Any, None]) -> None:
        """Do some work, unless the stack ends before: see `wait`."""
        working, ending = asyncio.create_task(work), asyncio.create_task(self.wait())
        try:
            done, _ = await asyncio.wait([working, ending], return_when=asyncio.FIRST_COMPLETED)
            (working if working in done else ending).result()
        finally:
            await cancel(working, ending)

    async def live_engine(self) -> Engine | None:
        with contextlib.suppress(StoreError, BundleError):
            pointer = await self.plane.reader.pointer()
            return None if pointer is None else await self.plane.reader.engine(pointer.live.revision)
        return None

    async def status(self, follower: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """The fleet as plain JSON values: see docs/control-plane.md, "Fleet status".

        `follower` is what the gateway says of the rules that it serves; None: what it said last.
        """
        report = await self._reports.latest()
        wrong = tuple(self.gateway.problems())
        return {
            **report,
            "shards": [self._with_silences(each) for each in report["shards"]],
            "healthy": report["healthy"] and not wrong,
            "problems": [*report["problems"], *wrong],
            **(self.gateway.follower if follower is None else follower),
            **self.incidents.as_dict(self.fleet.restarts(), self.fleet.healer.reloads(), self.gateway.restarts),
            "gateway": self.gateway.as_dict(),
            "follow": self.follow_status(),
            "rules": {"last_rejected": self._last_rejected()},
            "control": {
                "endpoint_url": self.settings.aws_endpoint_url,
                "bucket": self.settings.bucket,
                "registry_table": self.settings.registry_table,
                "region": self.settings.aws_region,
                "facts_table": self.settings.facts_table,
            },
        }

    def _with_silences(self, shard: Mapping[str, Any]) -> dict[str, Any]:
        """Add to each server of a shard how long it has not answered its supervisor, which is known before the registry says so."""
        silences = {endpoint.url: silent_s for endpoint, silent_s in self.fleet.unanswered_s().items()}

        def shown(server: Mapping[str, Any]) -> dict[str, Any]:
            silent_s = silences.get(server["url"])
            if silent_s is None:
                return {**server, "unanswered_s": None}
            return {**server, "note": f"it has not answered for {silent_s:.0f} s", "unanswered_s": round(silent_s, 1)}

        return {**shard, "endpoints": [shown(each) for each in shard["endpoints"]]}

    @property
    def times(self) -> Times | None:
        """What models took, as the report of `status` was read last; None where it was not all read."""
        return self._reports.times

    def follow_status(self) -> dict[str, Any]:
        """How the directory is followed, by the pointer as it was read last."""
        known, unpublished = self.plane.reader.known, self.unpublished
        pause = None if self.mode is FollowMode.OFF else pause_of(known, self.directory)
        return {
            "mode": self.mode.value,
            "state": self._follow_state(pause),
            "ended": self.follow_ended,
            "directory": self.directory or "",
            "rules": str(self.rules.resolve()),
            "models": str(self.models.resolve()),
            "paused": None if pause is None else pause_fields(pause),
            # Of this pause: another process may have published the directory after an earlier one.
            "unpublished_at": unpublished.at
            if pause and unpublished and pause.sequence == unpublished.paused_by
            else None,
        }

    def _follow_state(self, pause: LiveEntry | None) -> FollowState:
        if self.follow_ended is not None:
            return FollowState.ENDED
        if self.mode is FollowMode.OFF:
            return FollowState.OFF
        return FollowState.FOLLOWING if pause is None else FollowState.PAUSED

    def _last_rejected(self) -> dict[str, Any] | None:
        rejected, known = self.last_rejected, self.plane.reader.known
        if rejected is None:
            return None
        if pause_of(known, self.directory) is None and _sequence(known) > rejected.after:
            # Another process published the directory since.
            self.last_rejected = None
            return None
        return {"at": rejected.at, "findings": list(rejected.findings)}


def _sequence(pointer: Pointer | None) -> int:
    return 0 if pointer is None else pointer.live.sequence


def _announce(event: StepEvent) -> None:
    if event.state is StepState.FAILED:
        # The reason is the error's, which is reported once.
        logger.info("publish: %s failed", event.step)
    elif event.state is StepState.DONE:
        logger.info("publish: %s done%s", event.step, f": {event.text}" if event.text else "")
    elif event.state is StepState.NOTE:
        logger.info("publish: %s: %s", event.step, event.text)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
