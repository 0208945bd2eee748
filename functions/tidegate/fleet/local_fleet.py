"""The servers that this process runs: as many per shard as the rules say, with the models that the stores say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from tidegate.control.desired import Desired, Reason
from tidegate.control.plane import ControlPlane
from tidegate.control.reconcile import reconcile_fleet
from tidegate.errors import BundleError, StoreError
from tidegate.fleet.directory import RegistryDirectory
from tidegate.fleet.healing import Healer
from tidegate.fleet.pulse import LATE_S
from tidegate.fleet.slot import Restarts, Turn
from tidegate.fleet.supervisor import Supervisor
from tidegate.ports import Endpoint, ModelRepository, ServerLauncher
from tidegate.tasks import cancel, spawn

logger = logging.getLogger(__name__)

FOLLOW_S = 1.0
BEAT_S = 10.0
REPORTS_S = 5.0
"""How old the reports of gateways may be that say which servers are still needed: they report every few seconds."""

RECONCILE_S = 5.0


class LocalFleet:
    """Runs servers for every shard that must hold something, reconciles, and follows the registry, until cancelled.

    Args:
        follow_s: interval of reading from the stores how many servers there must be.
        beat_s: interval of the reports of a server to the registry; well below its own time-out.
        reconcile_s: interval of comparing the endpoints with what they must hold.
        self_test_s: interval of asking a server one of its live models' golden requests, each model in turn; 0: never.
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
        self.healer = Healer(plane, self.repository_of)

    def pids(self) -> Mapping[Endpoint, int]:
        return {
            slot.server.endpoint: slot.server.pid
            for group in self._supervisors.values()
            for supervisor, _ in group
            for slot in supervisor.slots
        }

    def unanswered_s(self) -> Mapping[Endpoint, float]:
        """Return how long each server has not answered that has not for `LATE_S` or longer."""
        return {
            slot.server.endpoint: slot.pulse.unanswered_s
            for group in self._supervisors.values()
            for supervisor, _ in group
            for slot in supervisor.slots
            if slot.pulse.unanswered_s >= LATE_S
        }

    def restarts(self) -> Sequence[Restarts]:
        """Return the servers that were replaced since the start, by shard."""
        supervisors = (supervisor for _, group in sorted(self._supervisors.items()) for supervisor, _ in group)
        return tuple(found for supervisor in supervisors if (found := supervisor.restarts) is not None)

    def repository_of(self, endpoint: Endpoint) -> ModelRepository | None:
        group = self._supervisors.get(endpoint.shard, ())
        return next((found for supervisor, _ in group if (found := supervisor.repository_of(endpoint))), None)

    async def run(self) -> None:
        """Run until cancelled, then stop every server."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.directory.follow(self._follow_s))
                group.create_task(self._reconcile())
                group.create_task(self._resize())
        finally:
            await self.healer.close()
            await cancel(*(task for group in self._supervisors.values() for _, task in group), *self._retiring)

    async def _resize(self) -> None:
        while True:
            try:
                desired = await self._plane.reader.read(reports_age_s=REPORTS_S)
                sizes = await self._sizes(desired)
                self._forget_ended()
                if not desired.complete:
                    # Unless everything could be read, it is uncertain what is not needed.
                    for shard, group in self._supervisors.items():
                        sizes[shard] = max(sizes.get(shard, 0), len(group))
                self._apply(sizes)
            except StoreError as error:
                logger.warning("the size of the fleet cannot be read, so it stays: %s", error)
            except Exception:
                # Ending this loop would stop every server that answers requests.
                logger.exception("the size of the fleet cannot be computed, so it stays")
            await asyncio.sleep(self._follow_s)

    async def _sizes(self, desired: Desired) -> dict[str, int]:
        """Return how many servers each shard must have: as live says, more where a publisher needs more, and for shards that
        only earlier revisions use as many as these said."""
        sizes: dict[str, int] = {}
        for held in desired.held:
            if held.plans is None:
                continue
            try:
                shards = (await self._plane.reader.bundle(held.revision)).manifest.fleet.shards
            except BundleError:
                shards = {}
            for shard, plan in held.plans.items():
                if plan:
                    there = len(self._supervisors.get(shard, ())) or 1
                    wanted = shards[shard].replicas if shard in shards else there
                    known = sizes.get(shard, 0)
                    grows = held.reason is Reason.LIVE or held.reason.is_claim
                    sizes[shard] = max(known, wanted) if grows else known or wanted
        return sizes

    def _forget_ended(self) -> None:
        for shard, group in self._supervisors.items():
            for ended in [each for each in group if each[1].done()]:
                error = None if ended[1].cancelled() else ended[1].exception()
                logger.error("a server of shard %s is no longer supervised; starting another", shard, exc_info=error)
                group.remove(ended)

    def _apply(self, sizes: Mapping[str, int]) -> None:
        for shard in sizes.keys() | self._supervisors.keys():
            group, size = self._supervisors.setdefault(shard, []), sizes.get(shard, 0)
            for _ in range(size - len(group)):
                supervisor = Supervisor(shard, self._launcher, self._plane, self.directory, self._beat_s, self._turn)
                group.append((supervisor, asyncio.create_task(self._supervise(supervisor))))
            surplus, group[:] = group[size:], group[:size]
            for supervisor, task in surplus:
                spawn(self._retiring, _retire(supervisor, task))

    async def _supervise(self, supervisor: Supervisor) -> None:
        if not self._self_test_s:
            await supervisor.run()
            return
        test = supervisor.self_test(self.healer.suspect)
        testing = asyncio.create_task(test.run(self._self_test_s))
        try:
            await supervisor.run()
        finally:
            await cancel(testing)

    async def _reconcile(self) -> None:
        while True:
            await asyncio.sleep(self._reconcile_s)
            try:
                result = await reconcile_fleet(self._plane, "the local stack")
            except StoreError as error:
                logger.warning("the fleet cannot be reconciled: %s", error)
                continue
            except Exception:
                # The servers go on, and the next pass tries again.
                logger.exception("the fleet cannot be reconciled")
                continue
            for action in result.actions:
                logger.info("%s %s on shard %s (%s)", action.action, action.model, action.shard, action.url)
            for problem in result.problems:
                logger.warning("%s", problem)


async def _retire(supervisor: Supervisor, task: asyncio.Task[None]) -> None:
    try:
        await supervisor.drain()
    finally:
        await cancel(task)
