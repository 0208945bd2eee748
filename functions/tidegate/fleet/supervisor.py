"""Supervision: one server of a shard, kept running, filled and registered by the process that started it.

A server is registered `loading` before its supervisor looks at what it must hold, and `ready` at most `settle_s` after the
last look: so either the supervisor sees the claim of a publisher, or the publisher sees the server and waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tidegate.control.desired import Desired, Reason
from tidegate.control.plane import ControlPlane
from tidegate.control.plans import Plan, difference
from tidegate.errors import EndpointError, EndpointTimeoutError, StackError, StoreError
from tidegate.fleet.directory import RegistryDirectory
from tidegate.fleet.filling import fill
from tidegate.fleet.self_test import SelfTest
from tidegate.fleet.slot import GOODBYE_S, RETRY_S, Patience, Restarts, Slot, Turn
from tidegate.ports import Endpoint, EndpointState, ModelRepository, ServerLauncher, Suspect
from tidegate.tasks import spawn

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 10.0
WATCH_S = 0.25


class Supervisor:
    """Keeps one server of a shard running until `run` is cancelled, which stops the server.

    `turn` is shared by the supervisors of a process: one server at a time is replaced that answers nothing.
    """

    def __init__(
        self,
        shard: str,
        launcher: ServerLauncher,
        plane: ControlPlane,
        directory: RegistryDirectory,
        beat_s: float,
        turn: Turn,
    ) -> None:
        self.shard = shard
        self._launcher = launcher
        self._plane = plane
        self._directory = directory
        self._beat_s = beat_s
        self._turn = turn
        self._patience = Patience(plane.config.hung_after_s)
        self._slots: list[Slot] = []
        self._retiring: set[asyncio.Task[None]] = set()
        self._restarts = Restarts(shard)

    @property
    def restarts(self) -> Restarts | None:
        url = self._slots[-1].server.endpoint.url if self._slots else None
        return replace(self._restarts, url=url) if self._restarts.count else None

    @property
    def serving(self) -> Endpoint | None:
        """The endpoint of a server that has all its models; None while there is none."""
        found = (slot for slot in self._slots if slot.filled and not slot.silent and slot.running)
        return next((slot.server.endpoint for slot in found), None)

    def repository_of(self, endpoint: Endpoint) -> ModelRepository | None:
        found = (slot.server for slot in self._slots if slot.server.endpoint == endpoint and slot.running)
        return next((server.repository for server in found), None)

    @property
    def slots(self) -> Sequence[Slot]:
        """The servers that run now: one, and during a replacement its successor."""
        return tuple(self._slots)

    def self_test(self, suspects: Callable[[Suspect], None]) -> SelfTest:
        """Make the test of the server that runs here; `suspects` takes models that do not answer."""

        async def live() -> Plan:
            return await self._plane.reader.live(self.shard)

        timeout_s = self._plane.config.load_timeout_s
        return SelfTest(live, self._plane.ports.golden, lambda: self.serving, suspects, timeout_s)

    async def run(self) -> None:
        try:
            slot = await self._successor(None)
            while True:
                await self._watch(slot)
                if slot.ended.done():
                    self._count_restart(slot, slot.ended.result())
                    await self._discard(slot)
                    slot = await self._successor(None)
                elif self._directory.state(slot.server.endpoint) is EndpointState.WEDGED:
                    self._count_restart(slot, "is wedged")
                    old, slot = slot, await self._successor(slot)
                    spawn(self._retiring, self._retire(old))
                elif self._is_hung(slot):
                    if self._turn.take():
                        slot = await self._replace_hung(slot)
                    else:
                        await asyncio.wait([slot.ended], timeout=WATCH_S)
                else:
                    # The registry may have forgotten it meanwhile.
                    await self._is_made_ready(slot, None)
        finally:
            await self._stop()

    async def drain(self) -> None:
        """Remove the server from the registry and wait until its requests are over. Cancel `run` afterwards."""
        for slot in self._slots:
            await self._deregister(slot)
        await asyncio.sleep(self._plane.config.drain_s)

    def _count_restart(self, slot: Slot, reason: str) -> None:
        count = self._restarts.count + 1
        self._restarts = Restarts(self.shard, None, count, self._plane.ports.clock(), reason)
        logger.warning("%s: %s; starting another (restart %d here)", slot.server.endpoint, reason, count)

    async def _watch(self, slot: Slot) -> None:
        """Wait until a server has ended, is wedged or hung, or was missing from the registry for too long."""
        while slot.running:
            self._note_silence(slot)
            if (
                (slot.state is not EndpointState.READY and not slot.silent)
                or self._directory.state(slot.server.endpoint) is EndpointState.WEDGED
                or self._is_hung(slot)
            ):
                return
            await asyncio.wait([slot.ended], timeout=WATCH_S)

    def _note_silence(self, slot: Slot) -> None:
        if slot.silent is slot.pulse.is_silent:
            return
        slot.silent = slot.pulse.is_silent
        if slot.silent:
            logger.warning("%s answers nothing; it is sent no requests meanwhile", slot.server.endpoint)
            self._directory.silence(slot.server.endpoint)
            slot.changed.set()
        else:
            logger.warning("%s answers again", slot.server.endpoint)
            self._directory.resume(slot.server.endpoint)
            # Publishers may have passed it by.
            slot.state = EndpointState.LOADING

    def _is_hung(self, slot: Slot) -> bool:
        return slot.silent and slot.pulse.silent_s >= self._patience.limit_s(self._plane.ports.clock())

    async def _replace_hung(self, slot: Slot) -> Slot:
        try:
            self._patience.lose(self._plane.ports.clock())
            self._count_restart(slot, f"answered nothing for {slot.pulse.silent_s:.0f} s")
            await self._discard(slot)
            return await self._successor(None)
        finally:
            self._turn.leave()

    async def _successor(self, replaced: Slot | None) -> Slot:
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                logger.info("shard %s: starting a Triton server", self.shard)
                slot = Slot(self._plane, await self._launcher.launch(self.shard), self._beat_s)
                self._slots.append(slot)
                if await self._is_made_ready(slot, replaced):
                    return slot
            except StackError as error:
                logger.warning("shard %s: %s", self.shard, error)
            if replaced is not None and replaced.ended.done() and replaced in self._slots:
                await self._discard(replaced)
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    async def _is_made_ready(self, slot: Slot, replaced: Slot | None) -> bool:
        """Make a server ready. Return False if it was lost meanwhile, and has been discarded."""
        try:
            await self._make_ready(slot, replaced)
        except StackError as error:
            self._count_restart(slot, str(error))
            await self._discard(slot)
            return False
        return True

    async def _make_ready(self, slot: Slot, replaced: Slot | None) -> None:
        """Register a server, fill it, and register it ready; one that was filled before and does not answer stays
        `loading`. Raises `StackError`: it ended, or a load on it hangs."""
        plane, settle_s, backoff_s = self._plane, self._plane.config.settle_s, FIRST_BACKOFF_S
        slot.state = EndpointState.LOADING
        await slot.register()
        while True:
            desired, looked_at = await self._desired(), plane.ports.clock()
            plan = desired.needs(self.shard)
            try:
                slot.filled = slot.filled and not await self._lacks(slot, plan)
                lacking = await fill(plane, slot.server, plan)
            except EndpointTimeoutError as error:
                if slot.filled:
                    # Its pulse says whether it hangs. Once it answers again, this runs again.
                    return
                raise StackError(f"{slot.server.endpoint} does not answer: {error}") from error
            if plane.ports.clock() - looked_at > settle_s / 2:
                continue
            if self._needed(lacking, desired) and await self._others_serve(slot, replaced):
                logger.warning("%s stays out, as others serve what it lacks: %s", slot.server.endpoint, lacking)
                await asyncio.wait([slot.ended], timeout=backoff_s)
                backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
                continue
            slot.state, slot.filled = EndpointState.READY, True
            slot.note = "; ".join(f"{model} is not loaded: {reason}" for model, reason in lacking.items())
            await slot.register()
            if plane.ports.clock() - looked_at <= settle_s:
                self._directory.poke()
                return
            slot.state = EndpointState.LOADING
            await slot.register()

    async def _lacks(self, slot: Slot, plan: Plan) -> bool:
        """Return whether a server lacks something whose load has not failed."""
        try:
            loaded = await slot.server.repository.loaded()
        except EndpointTimeoutError:
            raise
        except EndpointError:
            # Whether it serves at all is looked at elsewhere.
            return False
        missing = difference(plan, loaded, {}).missing
        return any(self._plane.failures.reason(self.shard, load) is None for load in missing)

    async def _desired(self) -> Desired:
        while True:
            try:
                return await self._plane.reader.read()
            except StoreError as error:
                logger.warning("shard %s: what it must hold cannot be read: %s", self.shard, error)
            await asyncio.sleep(RETRY_S)

    def _needed(self, lacking: Mapping[str, str], desired: Desired) -> bool:
        return any(
            load.model in lacking
            for held in desired.held
            if held.reason in (Reason.LIVE, Reason.CLAIMED) and held.plans is not None
            for load in held.plans.get(self.shard, ())
        )

    async def _others_serve(self, slot: Slot, replaced: Slot | None) -> bool:
        if replaced is not None and replaced in self._slots and replaced.running:
            return True
        try:
            await self._directory.refresh()
        except StoreError:
            return True
        return any(each != slot.server.endpoint for each in self._directory.serving(self.shard))

    async def _retire(self, slot: Slot) -> None:
        """Stop a server whose successor serves, after the time for its requests."""
        await self._deregister(slot)
        await asyncio.wait([slot.ended], timeout=self._plane.config.drain_s)
        await self._discard(slot)

    async def _discard(self, slot: Slot) -> None:
        """Stop a server at once, and forget it. May be called again."""
        if slot not in self._slots:
            return
        self._directory.drop(slot.server.endpoint)
        await self._deregister(slot)
        await slot.server.kill()
        await asyncio.wait([slot.ended])
        if slot in self._slots:
            self._slots.remove(slot)

    async def _deregister(self, slot: Slot) -> None:
        await slot.deregister()
        self._directory.drop(slot.server.endpoint)
        self._directory.poke()

    async def _stop(self) -> None:
        for task in tuple(self._retiring):
            task.cancel()
        slots = list(self._slots)
        for slot in slots:
            # It unloads its models, so they must not be asked any more.
            slot.filled = False
        # One that answers nothing would be asked to unload its models until the time for that is over.
        ends = [slot.server.kill() if slot.pulse.is_silent else slot.server.stop() for slot in slots]
        await asyncio.gather(*(self._deregister(slot) for slot in slots), *ends)
        if slots:
            await asyncio.wait([slot.ended for slot in slots], timeout=GOODBYE_S)
        self._slots.clear()
