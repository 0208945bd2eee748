"""Supervision: one server of a shard, kept running, filled and registered by the process that started it.

A server is registered `loading` before this looks at what it must hold, and `ready` at most `settle_s` after the last
look: so a publisher either is seen here with its claim, or sees the server there and waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence

from tidegate.control.desired import Desired
from tidegate.control.directory import RegistryDirectory
from tidegate.control.filling import fill
from tidegate.control.plane import ControlPlane
from tidegate.control.plans import Plan, difference, loaded_versions
from tidegate.control.pulse import Pulse
from tidegate.control.slot import Patience, Restarts, Slot, Turn
from tidegate.errors import EndpointError, EndpointTimeoutError, StackError, StoreError
from tidegate.ports import Endpoint, EndpointState, ModelRepository, RegisteredEndpoint, ServerLauncher

logger = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 10.0
WATCH_S = 0.25
RETRY_S = 1.0
GOODBYE_S = 2.0
"""How long a stop waits for the registry, which forgets silent endpoints anyway."""


class Supervisor:
    """Keeps one server of a shard; runs until its `run` is cancelled, and leaves nothing behind then.

    Args:
        shard: the shard.
        launcher: starts its servers.
        plane: the control plane of this process.
        directory: follows the registry, and is told of what happens here.
        beat_s: how often the registry is told that a server is alive. A server that could not tell for longer than twice
            that looks again at what it must hold before it is `ready` again, as publishers may have passed it by.
        turn: says when a server may be replaced that answers nothing; shared by the supervisors of a process.
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
        self._restarts, self._restarted_at, self._restart_reason = 0, 0.0, ""

    @property
    def restarts(self) -> Restarts | None:
        """The replacements of the server; None where it is the first."""
        if not self._restarts:
            return None
        url = self._slots[-1].server.endpoint.url if self._slots else None
        return Restarts(self.shard, url, self._restarts, self._restarted_at, self._restart_reason)

    @property
    def serving(self) -> Endpoint | None:
        """Where a server answers that has been filled; None while there is none."""
        found = (slot for slot in self._slots if slot.filled and not slot.silent and not slot.ended.done())
        return next((slot.server.endpoint for slot in found), None)

    def repository_of(self, endpoint: Endpoint) -> ModelRepository | None:
        """The repository of a server that runs here; None where it does not."""
        found = (slot.server for slot in self._slots if slot.server.endpoint == endpoint and not slot.ended.done())
        return next((server.repository for server in found), None)

    @property
    def slots(self) -> Sequence[Slot]:
        """The servers that run now: one, and while it is replaced its successor."""
        return tuple(self._slots)

    async def run(self) -> None:
        """Keep a server until cancelled."""
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
                    retiring = asyncio.create_task(self._retire(old))
                    self._retiring.add(retiring)
                    retiring.add_done_callback(self._retiring.discard)
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
        """Take the server out of the registry and wait until the requests that it may have are over; then cancel `run`."""
        for slot in self._slots:
            await self._goodbye(slot)
        await asyncio.sleep(self._plane.config.drain_s)

    def _count_restart(self, slot: Slot, reason: str) -> None:
        self._restarts, self._restarted_at, self._restart_reason = self._restarts + 1, self._plane.ports.clock(), reason
        logger.warning("%s: %s; starting another (restart %d here)", slot.name, reason, self._restarts)

    async def _watch(self, slot: Slot) -> None:
        """Wait until a server has ended, is wedged or hung, or the registry has not heard of it for too long."""
        while not slot.ended.done():
            self._heed_silence(slot)
            if (
                (slot.state is not EndpointState.READY and not slot.silent)
                or self._directory.state(slot.server.endpoint) is EndpointState.WEDGED
                or self._is_hung(slot)
            ):
                return
            await asyncio.wait([slot.ended], timeout=WATCH_S)

    def _heed_silence(self, slot: Slot) -> None:
        """Take a server that answers nothing out of the directory, and put it back once it answers."""
        if slot.silent is slot.pulse.is_silent:
            return
        slot.silent = slot.pulse.is_silent
        if slot.silent:
            logger.warning("%s answers nothing; it is sent no requests meanwhile", slot.name)
            self._directory.silence(slot.server.endpoint)
            slot.changed.set()
        else:
            logger.warning("%s answers again", slot.name)
            self._directory.resume(slot.server.endpoint)
            # Publishers may have passed it by.
            slot.state = EndpointState.LOADING

    def _is_hung(self, slot: Slot) -> bool:
        return slot.silent and slot.pulse.silent_s >= self._patience.limit_s(self._plane.ports.clock())

    async def _replace_hung(self, slot: Slot) -> Slot:
        """End a server that answers nothing, and so serves nobody, and start another."""
        try:
            self._patience.lose(self._plane.ports.clock())
            self._count_restart(slot, f"answered nothing for {slot.pulse.silent_s:.0f} s")
            await self._discard(slot)
            return await self._successor(None)
        finally:
            self._turn.leave()

    async def _successor(self, replaced: Slot | None) -> Slot:
        """Start a server and fill it, again and again until one is ready."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                slot = await self._launch()
                if await self._is_made_ready(slot, replaced):
                    return slot
            except StackError as error:
                logger.warning("shard %s: %s", self.shard, error)
            if replaced is not None and replaced.ended.done() and replaced in self._slots:
                await self._discard(replaced)
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)

    async def _launch(self) -> Slot:
        logger.info("shard %s: starting a Triton server", self.shard)
        server = await self._launcher.launch(self.shard)
        pulse = Pulse(server.live)
        slot = Slot(server, asyncio.create_task(server.wait()), pulse, asyncio.create_task(pulse.run()))
        self._slots.append(slot)
        return slot

    async def _is_made_ready(self, slot: Slot, replaced: Slot | None) -> bool:
        """Make a server ready; False where it was lost over that, and is gone."""
        try:
            await self._make_ready(slot, replaced)
        except StackError as error:
            self._count_restart(slot, str(error))
            await self._discard(slot)
            return False
        return True

    async def _make_ready(self, slot: Slot, replaced: Slot | None) -> None:
        """Register a server, fill it, and register it ready; one that was filled before and does not answer stays `loading`.

        Raises:
            StackError: it ended, or a load on it hangs.
        """
        plane, settle_s, backoff_s = self._plane, self._plane.config.settle_s, FIRST_BACKOFF_S
        slot.state = EndpointState.LOADING
        await self._register(slot)
        if slot.beat is None:
            slot.beat = asyncio.create_task(self._heartbeat(slot))
        while True:
            desired, looked_at = await self._desired(), plane.ports.clock()
            plan = desired.needs(self.shard)
            try:
                slot.filled = slot.filled and not await self._lacks(slot, plan)
                lacking = await fill(
                    slot.server, plan, plane.failures, plane.config.load_timeout_s, plane.ports.diagnose
                )
            except EndpointTimeoutError as error:
                if slot.filled:
                    # It may answer again: its pulse says whether it hangs, and this is done again then.
                    return
                raise StackError(f"{slot.name} does not answer: {error}") from error
            if plane.ports.clock() - looked_at > settle_s / 2:
                continue
            if self._needed(lacking, desired) and await self._others_serve(slot, replaced):
                logger.warning("%s stays out, as others serve what it lacks: %s", slot.name, lacking)
                await asyncio.wait([slot.ended], timeout=backoff_s)
                backoff_s = min(2 * backoff_s, LONGEST_BACKOFF_S)
                continue
            slot.state, slot.filled = EndpointState.READY, True
            slot.note = "; ".join(f"{model} is not loaded: {reason}" for model, reason in lacking.items())
            await self._register(slot)
            if plane.ports.clock() - looked_at <= settle_s:
                self._directory.poke()
                return
            slot.state = EndpointState.LOADING
            await self._register(slot)

    async def _lacks(self, slot: Slot, plan: Plan) -> bool:
        """Whether a server lacks something that may well be loaded."""
        try:
            loaded = loaded_versions(await slot.server.repository.loaded())
        except EndpointTimeoutError:
            raise
        except EndpointError:
            # Whether it serves at all is looked at elsewhere.
            return False
        failing = self._plane.failures
        return any(not failing.reason(self.shard, load) for load in difference(plan, loaded, {}).missing)

    async def _desired(self) -> Desired:
        while True:
            try:
                return await self._plane.reader.read()
            except StoreError as error:
                logger.warning("shard %s: what it must hold cannot be read: %s", self.shard, error)
            await asyncio.sleep(RETRY_S)

    def _needed(self, lacking: Mapping[str, str], desired: Desired) -> bool:
        """Whether something is lacking that live serves, or soon may."""
        return any(
            load.model in lacking
            for held in desired.held
            if held.reason in ("live", "claimed") and held.plans is not None
            for load in held.plans.get(self.shard, ())
        )

    async def _others_serve(self, slot: Slot, replaced: Slot | None) -> bool:
        if replaced is not None and replaced in self._slots and not replaced.ended.done():
            return True
        try:
            await self._directory.refresh()
        except StoreError:
            return True
        return any(each != slot.server.endpoint for each in self._directory.serving(self.shard))

    async def _heartbeat(self, slot: Slot) -> None:
        while not slot.ended.done():
            # Not wait_for, which loses a cancellation that comes just when what it waits for is done.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._beat_s):
                    await slot.changed.wait()
            slot.changed.clear()
            if slot.ended.done():
                return
            if self._plane.ports.clock() - slot.seen_at > 2 * self._beat_s and slot.state is EndpointState.READY:
                slot.state = EndpointState.LOADING
            await self._register(slot)

    async def _register(self, slot: Slot) -> None:
        """Tell the registry, until it has heard."""
        while True:
            now = self._plane.ports.clock()
            server, (state, note) = slot.server, slot.registered
            entry = RegisteredEndpoint(server.endpoint, state, now, server.grpc_port, server.metrics_port, note)
            try:
                await self._plane.ports.registry.register(entry)
            except StoreError as error:
                logger.warning("%s cannot be registered: %s", slot.name, error)
            else:
                slot.seen_at = now
                return
            await asyncio.sleep(RETRY_S)
            if now - slot.seen_at > 2 * self._beat_s and slot.state is EndpointState.READY:
                slot.state = EndpointState.LOADING

    async def _retire(self, slot: Slot) -> None:
        """End a server whose successor serves, once its requests have had their time."""
        await self._goodbye(slot)
        await asyncio.wait([slot.ended], timeout=self._plane.config.drain_s)
        await self._discard(slot)

    async def _discard(self, slot: Slot) -> None:
        """End a server at once, and forget it; safe to call again."""
        if slot not in self._slots:
            return
        self._directory.drop(slot.server.endpoint)
        await self._goodbye(slot)
        await slot.server.kill()
        await asyncio.wait([slot.ended])
        if slot in self._slots:
            self._slots.remove(slot)

    async def _goodbye(self, slot: Slot) -> None:
        tasks = [task for task in (slot.beat, slot.asking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._plane.ports.registry.deregister(slot.server.endpoint)
        self._directory.drop(slot.server.endpoint)
        self._directory.poke()

    async def _stop(self) -> None:
        """End every server in bounded time."""
        for task in tuple(self._retiring):
            task.cancel()
        slots = list(self._slots)
        for slot in slots:
            # It unloads its models, so nobody must ask them any more.
            slot.filled = False
        # One that answers nothing would be asked to unload its models until the time for that is over.
        ends = [slot.server.kill() if slot.pulse.is_silent else slot.server.stop() for slot in slots]
        await asyncio.gather(*(self._goodbye(slot) for slot in slots), *ends)
        if slots:
            await asyncio.wait([slot.ended for slot in slots], timeout=GOODBYE_S)
        self._slots.clear()
