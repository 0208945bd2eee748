"""The servers that this process runs: as many per shard as the rules say, kept in line with the stores."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence

from tidegate.control.desired import Desired
from tidegate.control.directory import RegistryDirectory
from tidegate.control.healing import Healer, Reloads
from tidegate.control.plane import ControlPlane
from tidegate.control.plans import NOTHING, Plan
from tidegate.control.self_test import SelfTest
from tidegate.control.slot import Restarts, Turn
from tidegate.control.supervisor import Supervisor
from tidegate.errors import BundleError, StoreError
from tidegate.ports import Endpoint, ModelRepository, ServerLauncher, Suspect

logger = logging.getLogger(__name__)

FOLLOW_S = 1.0
BEAT_S = 10.0
RECONCILE_S = 5.0


class LocalFleet:
    """Runs servers for every shard that must hold something, reconciles, and follows the registry, until cancelled.

    Args:
        plane: the control plane of this process.
        launcher: starts servers.
        follow_s: how often the stores are asked what the fleet must be; a poke asks at once.
        beat_s: how often the registry is told that a server is alive; well below its own time-out.
        reconcile_s: how often the endpoints are compared with what they must hold.
        self_test_s: how often a server is asked one of its live models' golden requests, each model in turn; 0: never.
    """

    def __init__(
        self,
        plane: ControlPlane,
        launcher: ServerLauncher,
        *,
        follow_s: float = FOLLOW_S,
        beat_s: float = BEAT_S,
        reconcile_s: float = RECONCILE_S,
        self_test_s: float = 0.0,
    ) -> None:
        self.directory = RegistryDirectory(plane.ports.registry)
        self._plane = plane
        self._launcher = launcher
        self._follow_s, self._beat_s, self._reconcile_s = follow_s, beat_s, reconcile_s
        self._supervisors: dict[str, list[tuple[Supervisor, asyncio.Task[None]]]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._turn = Turn()
        self._self_test_s = self_test_s
        self._healer = Healer(plane, self._repository_of)
        self._poked = asyncio.Event()

    def poke(self) -> None:
        """Look at the stores soon."""
        self._poked.set()
        self.directory.poke()

    def pids(self) -> Mapping[Endpoint, int]:
        """The process ids of the servers that run here."""
        return {
            slot.server.endpoint: slot.server.pid
            for group in self._supervisors.values()
            for supervisor, _ in group
            for slot in supervisor.slots
        }

    def restarts(self) -> Sequence[Restarts]:
        """The servers that were replaced since the start, by shard."""
        supervisors = (supervisor for _, group in sorted(self._supervisors.items()) for supervisor, _ in group)
        return tuple(found for supervisor in supervisors if (found := supervisor.restarts) is not None)

    def suspect(self, suspect: Suspect) -> None:
        """Look into a model that callers cannot use on one of the servers here, and heal it."""
        self._healer.suspect(suspect)

    def reloads(self) -> Sequence[Reloads]:
        """The models that were reloaded since the start, on the servers that run now."""
        return self._healer.reloads()

    def _repository_of(self, endpoint: Endpoint) -> ModelRepository | None:
        group = self._supervisors.get(endpoint.shard, ())
        return next((found for supervisor, _ in group if (found := supervisor.repository_of(endpoint))), None)

    async def run(self) -> None:
        """Run until cancelled; every server is gone then."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.directory.follow(self._follow_s))
                group.create_task(self._reconcile())
                group.create_task(self._resize())
        finally:
            await self._healer.close()
            tasks = [task for group in self._supervisors.values() for _, task in group] + list(self._retiring)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _resize(self) -> None:
        while True:
            self._poked.clear()
            try:
                desired = await self._plane.reader.read()
                self._apply(await self._sizes(desired), shrink=desired.complete)
            except StoreError as error:
                logger.warning("the size of the fleet cannot be read, so it stays: %s", error)
            except Exception:
                # Ending this loop would stop every server that answers requests.
                logger.exception("the size of the fleet cannot be computed, so it stays")
            # Not wait_for, which loses a cancellation that comes just when what it waits for is done.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._follow_s):
                    await self._poked.wait()

    async def _sizes(self, desired: Desired) -> dict[str, int]:
        """How many servers each shard must have: as live says, more where a publisher needs more, and for shards that
        only earlier revisions use as many as these said."""
        sizes: dict[str, int] = {}
        for held in desired.held:
            if held.plans is None:
                continue
            try:
                shards = (await self._plane.reader.bundle(held.revision)).manifest["fleet"]["shards"]
            except BundleError:
                shards = {}
            for shard, plan in held.plans.items():
                if plan:
                    there = len(self._supervisors.get(shard, ())) or 1
                    wanted = shards[shard]["replicas"] if shard in shards else there
                    known = sizes.get(shard, 0)
                    sizes[shard] = (
                        max(known, wanted) if held.reason in ("live", "claimed", "trying") else known or wanted
                    )
        return sizes

    def _apply(self, sizes: Mapping[str, int], *, shrink: bool) -> None:
        """Start and retire servers. What is not known to be needed is only known not to be where everything could be read:
        `shrink`."""
        for shard in sizes.keys() | self._supervisors.keys():
            group = self._supervisors.setdefault(shard, [])
            for ended in [each for each in group if each[1].done()]:
                logger.error(
                    "a server of shard %s is no longer supervised; starting another", shard, exc_info=_error(ended[1])
                )
                group.remove(ended)
            size = sizes.get(shard, 0) if shrink else max(sizes.get(shard, 0), len(group))
            for _ in range(size - len(group)):
                supervisor = Supervisor(shard, self._launcher, self._plane, self.directory, self._beat_s, self._turn)
                group.append((supervisor, asyncio.create_task(self._supervise(supervisor))))
            surplus, group[:] = group[size:], group[:size]
            for supervisor, task in surplus:
                retiring = asyncio.create_task(_retire(supervisor, task))
                self._retiring.add(retiring)
                retiring.add_done_callback(self._retiring.discard)

    async def _supervise(self, supervisor: Supervisor) -> None:
        """Keep a server, and test it."""

        async def live() -> Plan:
            return (await self._plane.reader.read()).live.get(supervisor.shard, NOTHING)

        test = SelfTest(
            live,
            self._plane.ports.golden,
            lambda: supervisor.serving,
            self._healer.suspect,
            self._plane.config.load_timeout_s,
        )
        testing = asyncio.create_task(test.run(self._self_test_s)) if self._self_test_s else None
        try:
            await supervisor.run()
        finally:
            if testing is not None:
                testing.cancel()
                await asyncio.wait([testing])

    async def _reconcile(self) -> None:
        while True:
            await asyncio.sleep(self._reconcile_s)
            try:
                result = await self._plane.reconciler.reconcile("the local stack")
            except StoreError as error:
                logger.warning("the fleet cannot be reconciled: %s", error)
                continue
            except Exception:
                # As above: the servers go on, and the next pass tries again.
                logger.exception("the fleet cannot be reconciled")
                continue
            for action in result.actions:
                logger.info("%s %s on shard %s (%s)", action.action, action.model, action.shard, action.url)
            for problem in result.problems:
                logger.warning("%s", problem)


def _error(task: asyncio.Task[None]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


async def _retire(supervisor: Supervisor, task: asyncio.Task[None]) -> None:
    """Drain a server that is not needed any more, and end it."""
    try:
        await supervisor.drain()
    finally:
        task.cancel()
        await asyncio.wait([task])
