"""Follows the live bundle: what a gateway serves is what the pointer says, or what it last said."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from tidegate.errors import BundleError, StoreError, TidegateError
from tidegate.ports import BundleSource, GatewayReport, GatewayReports, Pointer
from tidegate.rules import Engine, load_bundle
from tidegate.rules.bundle import revision_json

logger = logging.getLogger(__name__)

LATE_S = 0.5
"""Seconds over the poll interval from which on requests wait for a poll: one that was begun in time has ended before."""

SourceState = Literal["unknown", "current", "empty", "failing", "damaged"]
"""What the last poll found: nothing was asked yet; the live bundle is served; nothing was ever published; the store did
not answer, or its pointer is damaged; the live bundle is missing, damaged or of another format."""


class FollowerObserver(Protocol):
    """Is told what a follower does: the source of metrics."""

    def polled(self, state: SourceState, age_s: float | None) -> None:
        """A poll ended, or was given up again; `age_s` is the follower's own (None: nothing was ever known)."""
        ...

    def swapped(self, revision: str) -> None:
        """Another revision is served from now on."""
        ...


@dataclass(frozen=True, slots=True)
class KnownRules:
    """Rules, and the Unix time at which they were last known to be the live ones."""

    engine: Engine
    known_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerConfig:
    """The times of a follower.

    Attributes:
        poll_interval_s: time between two looks at the pointer.
        report_interval_s: longest time between two reports to the registry.
        fresh_wait_s: longest time that requests wait for a poll where the rules are older than the poll interval.
    """

    poll_interval_s: float = 2.0
    report_interval_s: float = 10.0
    fresh_wait_s: float = 0.25


class EngineFollower:
    """An `EngineSource` of the live bundle, and a `FleetStatus` of what it knows.

    A server runs `run` beside its requests. A function, which is frozen between two requests, calls `poll_if_due` with
    each. No request waits for either, unless the rules are late: then `catching_up` bounds its wait. Whatever the store
    does, what was served last is served on.

    Args:
        source: the bundle store.
        gateway_id: the name of this gateway in the registry.
        registry: is told which revision is served; None where nobody asks.
        initial: what is served until the first bundle is there, such as the one that came with the function. Its age counts
            from `known_at` until a poll succeeds.
        config: the times.
        observer: is told what happens.
        clock: the time in Unix seconds. Not a monotonic clock, which may stand still while a function is frozen.
    """

    def __init__(
        self,
        source: BundleSource,
        gateway_id: str,
        registry: GatewayReports | None = None,
        initial: KnownRules | None = None,
        config: FollowerConfig | None = None,
        observer: FollowerObserver | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.gateway_id = gateway_id
        self._source = source
        self._registry = registry
        self._engine = None if initial is None else initial.engine
        self._config = FollowerConfig() if config is None else config
        self._observer = observer
        self._clock = clock
        self._since = clock()
        self._pointer: Pointer | None = None
        self._state: SourceState = "unknown"
        self._last_error: str | None = None
        self._failures = 0
        self._asked_at: float | None = None
        self._known_at = None if initial is None else initial.known_at
        self._reported: tuple[str, float] | None = None
        self._report_fails = False
        self._poll_task: asyncio.Task[None] | None = None
        self._late_s = self._config.poll_interval_s + LATE_S
        self._given_up = 0
        self._resumed = False
        self._waited: tuple[asyncio.Task[None], float] | None = None
        self._report_task: asyncio.Task[None] | None = None

    def engine(self) -> Engine:
        """The engine of the live bundle, as far as it is known.

        Raises:
            BundleError: there is none yet.
        """
        if self._engine is None:
            raise BundleError("the gateway has no rules yet")
        return self._engine

    @property
    def revision(self) -> str | None:
        """The revision that is served; None where there is none yet."""
        return None if self._engine is None else self._engine.revision

    @property
    def state(self) -> SourceState:
        """What the last poll found."""
        return self._state

    @property
    def age_s(self) -> float | None:
        """How old the knowledge of what is live is: seconds since the last poll that succeeded was begun, or since the initial
        rules were known to be live; None: there were none, and no poll succeeded."""
        return None if self._known_at is None else max(0.0, self._clock() - self._known_at)

    @property
    def measured_age_s(self) -> float | None:
        """`age_s` for an alarm: None, too, while a first poll after a pause is under way, whose result nobody knows yet."""
        is_polled = self._poll_task is not None and not self._poll_task.done()
        return None if self._is_late() and is_polled and not self._fails() else self.age_s

    @property
    def known(self) -> KnownRules | None:
        """What another follower can begin with in place of this one; None where there are no rules yet."""
        if self._engine is None or self._known_at is None:
            return None
        return KnownRules(self._engine, self._known_at)

    @property
    def failures(self) -> int:
        """How many polls have failed since the start, with those of a store that hangs."""
        return self._failures

    @property
    def last_error(self) -> str | None:
        """Why the last poll failed; None where it did not."""
        return self._last_error

    async def run(self) -> None:
        """Poll and report until cancelled."""
        try:
            while True:
                await asyncio.wait({self._polling()})
                await asyncio.sleep(self._config.poll_interval_s)
        finally:
            self.stop()

    def poll_if_due(self) -> asyncio.Task[None] | None:
        """Begin a poll if the last one is long enough ago; the task of the one that it began.

        Nobody needs to wait for the task: where the process is frozen first, it goes on with the next request.
        """
        return None if self._asked_within(self._config.poll_interval_s) or self._is_polling() else self._polling()

    def catching_up(self) -> Awaitable[None] | None:
        """What a request waits for before it is decided; None, nearly always, where there is no need to wait.

        Rules are late where they are older than the poll interval, as they are once a process was frozen. Then requests
        wait until they were read again, but no poll is waited for longer than `fresh_wait_s`. While the store does not
        answer, nobody waits, but for the first poll after a pause: what failed before it says nothing of now.
        """
        known_at = self._known_at
        if known_at is not None and 0 <= self._clock() - known_at <= self._late_s:
            return None  # not by `_is_late`: every request passes here
        is_resuming = self._resumed and _is_busy(self._poll_task)
        if self._fails() and self._asked_within(self._late_s) and not is_resuming:
            return None
        task = self._polling()
        return None if self._fails() and not self._resumed else self._wait(task)

    async def _wait(self, task: asyncio.Task[None]) -> None:
        time_s = asyncio.get_running_loop().time
        if self._waited is None or self._waited[0] is not task:
            self._waited = task, time_s() + self._config.fresh_wait_s
        await asyncio.wait({task}, timeout=max(0.0, self._waited[1] - time_s()))

    def _is_late(self) -> bool:
        # A clock that was set back makes rules late, too: it must not stop the polls.
        return self._known_at is None or not 0 <= self._clock() - self._known_at <= self._late_s

    def _fails(self) -> bool:
        return self._state in ("failing", "damaged")

    def _asked_within(self, seconds: float) -> bool:
        return self._asked_at is not None and 0 <= self._clock() - self._asked_at < seconds

    def _is_polling(self) -> bool:
        """Whether a poll is under way whose answer would be recent."""
        return _is_busy(self._poll_task) and self._asked_within(self._late_s)

    def _polling(self) -> asyncio.Task[None]:
        """The poll under way, or one that begins now. One from before a pause is given up: its answer may be as old."""
        if self._poll_task is None or not self._is_polling():
            if self._poll_task is not None and _is_busy(self._poll_task):
                self._poll_task.cancel()
                self._note_given_up()
            self._resumed = not self._asked_within(self._late_s + self._config.fresh_wait_s)
            self._asked_at = self._clock()
            self._poll_task = asyncio.get_running_loop().create_task(self.poll())
        return self._poll_task

    def _note_given_up(self) -> None:
        """Note that a poll was given up. A pause does that once; a store that hangs, with one poll after the other."""
        self._given_up += 1
        if self._given_up > 1:
            self._failed("failing", StoreError(f"the store did not answer within {self._late_s:g} s"))
            self._tell()

    async def poll(self) -> None:
        """Look at the pointer, and serve what it says. Raises nothing: see `state` and `last_error`."""
        asked_at = self._asked_at = self._clock()
        try:
            found = await self._look()
        except BundleError as error:
            self._failed("damaged", error)
        except Exception as error:  # noqa: BLE001  # a gateway that stopped to follow would serve old rules for ever
            self._failed("failing", error)
        else:
            # When it was asked: an answer may have waited as long as the process was frozen.
            self._known_at = asked_at
            self._last_error = None
            self._enter(found)
        self._given_up = 0
        self._tell()
        self._report_if_due()

    def stop(self) -> None:
        """Cancel what goes on beside requests: another follower takes this one's place."""
        for task in (self._poll_task, self._report_task):
            if task is not None:
                task.cancel()

    async def status(self) -> Mapping[str, Any]:
        """What is served, and how well it is known, as plain JSON values::

        {"revision": that of the rules or null, "resolution": what they resolve to or null, "since": when this gateway began to serve it (ISO 8601, UTC),
         "objectives": how many there are,
         "source": {"state": "unknown" | "current" | "empty" | "failing" | "damaged",
                    "age_s": seconds since the rules were last known to be live, or null,
                    "failures": how many looks have failed, "last_error": null or why the last one did}}
        """
        age_s = self.age_s
        return {
            **revision_json(self.revision),
            "since": datetime.fromtimestamp(self._since, UTC).isoformat(timespec="seconds"),
            "objectives": 0 if self._engine is None else len(self._engine.objectives),
            "source": {
                "state": self._state,
                "age_s": None if age_s is None else round(age_s, 3),
                "failures": self._failures,
                "last_error": self._last_error,
            },
        }

    def _tell(self) -> None:
        if self._observer is not None:
            self._observer.polled(self._state, self.age_s)

    async def _look(self) -> SourceState:
        pointer = await self._source.pointer(self._pointer)
        if pointer is None:
            if self._pointer is None:
                return "empty"
            # Whoever served it knows that something is live.
            raise StoreError("the pointer to the live revision is gone; see `tidegate recover`")
        if pointer is self._pointer:
            return "current"
        revision = pointer.live.revision
        if revision != self.revision:
            self._swap(_loaded(revision, await self._source.bundle(revision)))
        # Only now: what could not be loaded is asked for again by the next poll.
        self._pointer = pointer
        return "current"

    def _swap(self, engine: Engine) -> None:
        before = self.revision
        self._engine, self._since = engine, self._clock()
        logger.info("serving revision %s%s", engine.revision[:12], f", before {before[:12]}" if before else "")
        if self._observer is not None:
            self._observer.swapped(engine.revision)

    def _failed(self, state: SourceState, error: Exception) -> None:
        self._failures += 1
        self._last_error = str(error) if isinstance(error, TidegateError) else type(error).__name__
        self._enter(state)

    def _enter(self, state: SourceState) -> None:
        """Note a state, and log where it is another."""
        if state == self._state:
            return
        served = f"revision {self.revision[:12]} is served on" if self.revision else "there is nothing to serve yet"
        if state in ("failing", "damaged"):
            logger.warning("the live bundle cannot be followed, %s: %s", served, self._last_error)
        elif state == "empty":
            logger.info("nothing was ever published, %s", served)
        elif self._state in ("failing", "damaged"):
            logger.info("the live bundle can be followed again")
        self._state = state

    def _report_if_due(self) -> None:
        # What came with the function was maybe never live, and a report says that it is.
        if self._registry is None or self._engine is None or self._pointer is None or _is_busy(self._report_task):
            return
        if self._reported is not None:
            revision, at = self._reported
            is_recent = 0 <= self._clock() - at < self._config.report_interval_s
            if is_recent and revision == self._engine.revision:
                return
        report = GatewayReport(self.gateway_id, self._engine.revision, self._clock())
        # Beside the polls: a registry that is slow or down must not delay them.
        self._report_task = asyncio.get_running_loop().create_task(self._report(self._registry, report))

    async def _report(self, registry: GatewayReports, report: GatewayReport) -> None:
        try:
            await registry.report(report)
        except Exception as error:  # noqa: BLE001  # as in a poll: nobody waits for this task
            if not self._report_fails:
                logger.warning("the registry cannot be told which revision is served: %s", error)
            self._report_fails = True
        else:
            self._reported, self._report_fails = (report.revision, report.seen_at), False


def _loaded(revision: str, data: bytes) -> Engine:
    """The engine of a bundle.

    Raises:
        BundleError: the bytes make none.
    """
    try:
        return load_bundle(data)
    except BundleError:
        raise
    except Exception as error:
        # Bytes with the right digest and the wrong content, which whoever may write to the store can make.
        raise BundleError(f"the bundle of revision {revision[:12]} cannot be loaded: {type(error).__name__}") from error


def _is_busy(task: asyncio.Task[None] | None) -> bool:
    """Whether a task still runs; one of an event loop that is no more does not."""
    return task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop()
