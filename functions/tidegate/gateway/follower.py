"""Follows the live bundle: a gateway serves the revision that the pointer names, or last named."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from tidegate.errors import BundleError, StoreError, TidegateError
from tidegate.gateway.revision_reports import RevisionReports, is_busy
from tidegate.ports import BundleSource, GatewayReport, GatewayReports, Pointer
from tidegate.rules import Engine, load_bundle
from tidegate.rules.bundle import revision_json, short_revision

logger = logging.getLogger(__name__)

REFUSED_JITTER = 0.5
"""The largest part of the time to the next poll that is left out at random after a poll that failed."""

LATE_S = 0.5
"""How much older than the poll interval rules must be before requests wait for a poll: time for a regular poll to end."""


class SourceState(StrEnum):
    """The result of the last poll."""

    UNKNOWN = "unknown"
    """There was none yet."""
    CURRENT = "current"
    """The live bundle is served."""
    EMPTY = "empty"
    """Nothing was ever published."""
    FAILING = "failing"
    """The store did not answer, or its pointer is damaged."""
    DAMAGED = "damaged"
    """The live bundle is missing, damaged or of another format."""


@dataclass(frozen=True, slots=True)
class KnownRules:
    """Rules, and the Unix time at which they were last known to be live."""

    engine: Engine
    known_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowerConfig:
    """The times of a follower.

    Attributes:
        poll_interval_s: time between two polls of the pointer.
        report_interval_s: longest time between two reports to the registry.
        fresh_wait_s: longest time that requests wait for a poll when the rules are late; see `catching_up`.
        jitter: the largest part of `poll_interval_s` by which a poll is earlier, at random: gateways that began together
            must not poll together.
        longest_backoff_s: longest time between two polls while the store refuses them; it doubles from the interval on.
        cached_s: how old an answer of the source may be: see `Pointer.age_s`.
    """

    poll_interval_s: float = 2.0
    report_interval_s: float = 10.0
    fresh_wait_s: float = 0.25
    jitter: float = 0.1
    longest_backoff_s: float = 8.0
    cached_s: float = 0.0


class EngineFollower:
    """An `EngineSource` of the live bundle, and a `FleetStatus` of its own state.

    A server runs `run` beside its requests. A function, which is frozen between requests, calls `poll_if_due` with each of
    them. Requests wait for neither, except when the rules are late: then `catching_up` bounds their wait. If the store
    fails, the last known rules stay in use.

    Args:
        source: the bundle store.
        gateway_id: the name of this gateway in the registry.
        registry: receives reports of the served revision; None to send no reports.
        initial: rules to serve until the first bundle is loaded, such as those packaged with the function. Their age counts
            from `known_at` until a poll succeeds.
        config: the times.
        swapped: callback for a change of the served revision.
        clock: returns Unix time in seconds. A monotonic clock may stop while a function is frozen.
        draw: returns a random number from 0 to 1, for the jitter.
    """

    def __init__(
        self,
        source: BundleSource,
        gateway_id: str,
        registry: GatewayReports | None = None,
        initial: KnownRules | None = None,
        config: FollowerConfig | None = None,
        swapped: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.gateway_id = gateway_id
        self._source = source
        self._engine = None if initial is None else initial.engine
        self._config = FollowerConfig() if config is None else config
        self._swapped = swapped
        self._clock = clock
        self._since = clock()
        self._pointer: Pointer | None = None
        self._state: SourceState = SourceState.UNKNOWN
        self._last_error: str | None = None
        self._failures = 0
        self._asked_at: float | None = None
        self._known_at = None if initial is None else initial.known_at
        self._poll_task: asyncio.Task[None] | None = None
        self._late_s = self._config.poll_interval_s + self._config.cached_s + LATE_S
        self._draw = draw
        self._refused = 0
        self._due_s = self._rest_s()
        self._given_up = 0
        self._resumed = False
        self._waited: tuple[asyncio.Task[None], float] | None = None
        self._reports = None if registry is None else RevisionReports(registry, self._config.report_interval_s)

    def engine(self) -> Engine:
        """Return the engine of the last known live bundle.

        Raises:
            BundleError: no bundle is loaded yet.
        """
        if self._engine is None:
            raise BundleError("the gateway has no rules yet")
        return self._engine

    @property
    def revision(self) -> str | None:
        """The served revision; None before the first one."""
        return None if self._engine is None else self._engine.revision

    @property
    def state(self) -> SourceState:
        """The result of the last poll."""
        return self._state

    @property
    def age_s(self) -> float | None:
        """Seconds since the served rules were last known to be live.

        Counted from the start of the last successful poll, or from `known_at` of the initial rules; None without either.
        """
        return None if self._known_at is None else max(0.0, self._clock() - self._known_at)

    @property
    def measured_age_s(self) -> float | None:
        """`age_s` for an alarm: also None while the first poll after a pause runs, as the age says nothing until it ends."""
        is_polled = self._poll_task is not None and not self._poll_task.done()
        return None if self._is_late() and is_polled and not self._fails() else self.age_s

    @property
    def known(self) -> KnownRules | None:
        """The `initial` rules for a follower that replaces this one; None before the first ones."""
        if self._engine is None or self._known_at is None:
            return None
        return KnownRules(self._engine, self._known_at)

    @property
    def failures(self) -> int:
        """How many polls have failed since the start, including those given up because the store did not answer."""
        return self._failures

    async def run(self) -> None:
        """Poll and report until cancelled."""
        try:
            while True:
                await asyncio.wait({self._polling()})
                await asyncio.sleep(self._due_s)
        finally:
            self.stop()

    def poll_if_due(self) -> asyncio.Task[None] | None:
        """Start a poll if one is due; return its task, or None.

        The task need not be awaited: if the process is frozen first, it continues with the next request.
        """
        return None if self._asked_within(self._due_s) or self._is_polling() else self._polling()

    def catching_up(self) -> Awaitable[None] | None:
        """Return what a request must await before it is decided; None, nearly always, if the rules are recent.

        Rules are late when they are older than the poll interval, `cached_s` and `LATE_S`, as after a freeze. Requests then
        wait until they were polled again, but no longer than `fresh_wait_s` for one poll. While the store does not answer,
        requests wait only for the first poll after a pause, since failures before the pause may be over.
        """
        known_at = self._known_at
        if known_at is not None and 0 <= self._clock() - known_at <= self._late_s:
            return None  # inlines `_is_late`, as every request passes here
        is_resuming = self._resumed and is_busy(self._poll_task)
        if self._fails() and self._asked_within(self._patience_s) and not is_resuming:
            return None
        task = self._polling()
        return None if self._fails() and not self._resumed else self._wait(task)

    async def _wait(self, task: asyncio.Task[None]) -> None:
        time_s = asyncio.get_running_loop().time
        if self._waited is None or self._waited[0] is not task:
            self._waited = task, time_s() + self._config.fresh_wait_s
        await asyncio.wait({task}, timeout=max(0.0, self._waited[1] - time_s()))

    @property
    def _patience_s(self) -> float:
        """How long after a poll none is missed."""
        return max(self._late_s, self._due_s)

    def _rest_s(self) -> float:
        """Draw the time from the begin of a poll to the next. That of gateways which a store refuses spreads: they must not
        come back together, and where they are too many for it, each asks as rarely as lets the others through."""
        interval_s = self._config.poll_interval_s
        if not self._refused:
            return interval_s * (1 - self._config.jitter * self._draw())
        grown_s = min(interval_s * 2.0 ** min(self._refused, 30), self._config.longest_backoff_s)
        longest_s = max(interval_s, grown_s)
        return longest_s * (1 - REFUSED_JITTER * self._draw())

    def _is_late(self) -> bool:
        # If the clock was set back, rules count as late: it must not stop the polls.
        return self._known_at is None or not 0 <= self._clock() - self._known_at <= self._late_s

    def _fails(self) -> bool:
        return self._state in (SourceState.FAILING, SourceState.DAMAGED)

    def _asked_within(self, seconds: float) -> bool:
        return self._asked_at is not None and 0 <= self._clock() - self._asked_at < seconds

    def _is_polling(self) -> bool:
        """Return whether a poll is running whose answer will be recent."""
        return is_busy(self._poll_task) and self._asked_within(self._late_s)

    def _polling(self) -> asyncio.Task[None]:
        """Return the running poll, or start one. A poll from before a pause is given up: its answer may be that old."""
        if self._poll_task is None or not self._is_polling():
            if self._poll_task is not None and is_busy(self._poll_task):
                self._poll_task.cancel()
                self._note_given_up()
            self._resumed = not self._asked_within(self._patience_s + self._config.fresh_wait_s)
            self._asked_at = self._clock()
            self._poll_task = asyncio.get_running_loop().create_task(self.poll())
        return self._poll_task

    def _note_given_up(self) -> None:
        """Count a poll that was given up. A pause causes one; repeated ones mean that the store does not answer."""
        self._given_up += 1
        if self._given_up > 1:
            self._failed(SourceState.FAILING, StoreError(f"the store did not answer within {self._late_s:g} s"))

    async def poll(self) -> None:
        """Read the pointer and serve the revision that it names. Raises nothing: see `status`."""
        asked_at = self._asked_at = self._clock()
        try:
            pointer = await self._look()
        except BundleError as error:
            self._refused += 1
            self._failed(SourceState.DAMAGED, error)
        except Exception as error:  # noqa: BLE001  # a follower that stopped would leave old rules in use for ever
            self._refused += 1
            self._failed(SourceState.FAILING, error)
        else:
            # Not the time of the answer, which may have waited while the process was frozen.
            self._known_at = asked_at - (0.0 if pointer is None else pointer.age_s)
            self._last_error = None
            self._refused = 0
            self._enter(SourceState.EMPTY if pointer is None else SourceState.CURRENT)
        self._given_up = 0
        self._due_s = self._rest_s()
        # Without a pointer the rules are the initial ones, which may never have been live.
        if self._reports is not None and self._engine is not None and self._pointer is not None:
            self._reports.send_if_due(GatewayReport(self.gateway_id, self._engine.revision, self._clock()))

    def stop(self) -> None:
        """Cancel the poll and the report, as another follower replaces this one."""
        if self._poll_task is not None:
            self._poll_task.cancel()
        if self._reports is not None:
            self._reports.stop()

    async def status(self) -> Mapping[str, Any]:
        """Return the served revision and the state of its source, as plain JSON values::

        {"revision": that of the rules or null, "resolution": what they resolve to or null,
         "since": when this gateway began to serve it (ISO 8601, UTC),
         "objectives": the number of objectives,
         "source": {"state": "unknown" | "current" | "empty" | "failing" | "damaged",
                    "age_s": seconds since the rules were last known to be live, or null,
                    "failures": the number of failed polls, "last_error": why the last poll failed, or null}}
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

    async def _look(self) -> Pointer | None:
        """Serve what the pointer names. Return the pointer; None: nothing was ever published."""
        pointer = await self._source.pointer(self._pointer)
        if pointer is None:
            if self._pointer is None:
                return None
            # A revision was live before, so this is a loss and not an empty store.
            raise StoreError("the pointer to the live revision is gone; see `tidegate recover`")
        if self._pointer is not None and pointer.tag == self._pointer.tag:
            return pointer
        revision = pointer.live.revision
        if revision != self.revision:
            self._swap(_loaded(revision, await self._source.bundle(revision)))
        # Only after a successful load, so that the next poll tries a failed one again.
        self._pointer = pointer
        return pointer

    def _swap(self, engine: Engine) -> None:
        before = self.revision
        self._engine, self._since = engine, self._clock()
        logger.info(
            "serving revision %s%s",
            short_revision(engine.revision),
            f", before {short_revision(before)}" if before else "",
        )
        if self._swapped is not None:
            self._swapped()

    def _failed(self, state: SourceState, error: Exception) -> None:
        self._failures += 1
        self._last_error = str(error) if isinstance(error, TidegateError) else type(error).__name__
        self._enter(state)

    def _enter(self, state: SourceState) -> None:
        """Set the state, and log a change."""
        if state is self._state:
            return
        served = (
            f"still serving revision {short_revision(self.revision)}"
            if self.revision
            else "there is nothing to serve yet"
        )
        if state in (SourceState.FAILING, SourceState.DAMAGED):
            logger.warning("the live bundle cannot be followed, %s: %s", served, self._last_error)
        elif state is SourceState.EMPTY:
            logger.info("nothing was ever published, %s", served)
        elif self._state in (SourceState.FAILING, SourceState.DAMAGED):
            logger.info("the live bundle can be followed again")
        self._state = state


def _loaded(revision: str, data: bytes) -> Engine:
    """Load the engine of a bundle.

    Raises:
        BundleError: the bytes are not a valid bundle.
    """
    try:
        return load_bundle(data)
    except BundleError:
        raise
    except Exception as error:
        # Anyone who may write to the store can make a bundle with the right digest and invalid content.
        raise BundleError(
            f"the bundle of revision {short_revision(revision)} cannot be loaded: {type(error).__name__}"
        ) from error
