"""Follows the live rules for the processes of a resolver, and shows what they count."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.objects import Objects
from tidegate.bootstrap.control import registry_of
from tidegate.bootstrap.resolver_process import METRICS
from tidegate.bootstrap.resolvers import HUNG_S, Resolvers
from tidegate.bootstrap.saved_bundle import NAME, SavedBundle, replace_file
from tidegate.console.metrics import process_families, route_families
from tidegate.console.processes import process_figures
from tidegate.errors import SettingsError, StackError, StoreError
from tidegate.gateway.follower import EngineFollower, FollowerConfig, KnownRules
from tidegate.gateway.revision_reports import RevisionReports
from tidegate.metrics import Metric
from tidegate.metrics.exposition import Family, render
from tidegate.ports import BundleSource, GatewayReport, GatewayReports, Pointer, Registry
from tidegate.rules import Engine
from tidegate.rules.bundle import resolution_of, revision_of, rules_of
from tidegate.settings import Settings
from tidegate.tasks import cancel

logger = logging.getLogger(__name__)

REPORT_S = 0.1
METRICS_S = 1.0
AGAIN_S = 2.0
SETTLE_S = 2 * HUNG_S
"""How long new rules wait for processes that do not serve those before yet."""


class _Kept:
    """A `BundleSource` that keeps the bytes of the bundle that it read last."""

    def __init__(self, source: BundleSource) -> None:
        self._source = source
        self.data = b""

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        return await self._source.pointer(known)

    async def bundle(self, revision: str) -> bytes:
        self.data = await self._source.bundle(revision)
        return self.data


class Adoption:
    """Follows the store, and hands each live bundle to resolvers once what serves it is `prepared`.

    Args:
        source: the store.
        folder: where the bundle is saved.
        resolvers: what serves it.
        gateway_id: their name in the registry.
        registry: gets reports of the revision that all of them serve; None to send none.
        settings: the intervals.
    """

    def __init__(
        self,
        source: BundleSource,
        folder: Path,
        resolvers: Resolvers,
        gateway_id: str,
        registry: GatewayReports | None,
        settings: Settings,
    ) -> None:
        self._kept = _Kept(source)
        self._saved = SavedBundle(folder)
        self._folder = folder
        self._resolvers = resolvers
        self._gateway_id = gateway_id
        self._reports = None if registry is None else RevisionReports(registry, settings.report_interval_s)
        self._config = FollowerConfig(poll_interval_s=settings.poll_interval_s)
        self._wanted = asyncio.Event()
        self._adopted: str | None = None
        self.follower = EngineFollower(self._kept, gateway_id, config=self._config)

    async def begin(self) -> None:
        """Start from the saved bundle, and look at the store once."""
        saved = EngineFollower(SavedBundle(self._folder), self._gateway_id)
        if (self._folder / NAME).exists():
            await saved.poll()
        self.follower = EngineFollower(
            self._kept, self._gateway_id, initial=self._known(saved), config=self._config, swapped=self._wanted.set
        )
        await self.follower.poll()
        self._wanted.set()

    def _known(self, saved: EngineFollower) -> KnownRules | None:
        if saved.revision is None:
            return None
        # When it was known to be live was when it was saved, at least.
        return KnownRules(saved.engine(), (self._folder / NAME).stat().st_mtime)

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.follower.run())
            group.create_task(self._adopt())
            group.create_task(self._report())
            group.create_task(self._expose())

    async def served(self) -> None:
        """Wait until every process serves the live rules, as far as any are known."""
        while self.follower.revision is not None and self._resolvers.revision != self.follower.revision:
            await self._resolvers.changed()

    async def prepared(self, engine: Engine) -> None:
        """Wait until what carries requests can serve every decision of new rules. Here nothing needs to."""

    async def _adopt(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            if self.follower.revision is None:
                continue
            await self._settled()
            engine, data = self.follower.engine(), self._kept.data
            try:
                await self.prepared(engine)
                # Without bytes it is the saved one.
                if data and engine is self.follower.engine() and revision_of(data) == engine.revision:
                    self._saved.write(data)
                    self._adopted = engine.revision
            except (StackError, StoreError) as error:
                # Such as a full disk. What is served stays as it is, and this is tried again.
                logger.error("%s; the rules before are served", error)  # noqa: TRY400  # its text says it
                await asyncio.sleep(AGAIN_S)
                self._wanted.set()

    async def _settled(self) -> None:
        """Wait until every process serves the rules that were saved last: none may decide by those before, whose clusters go next."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while self._adopted is not None and self._resolvers.revision != self._adopted:
                    await self._resolvers.changed()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            revision = self._resolvers.revision
            if self._reports is not None and revision is not None:
                self._reports.send_if_due(GatewayReport(self._gateway_id, revision, time.time()))

    async def _expose(self) -> None:
        while True:
            families = list(self._families())
            for form, name in METRICS.items():
                with contextlib.suppress(OSError):
                    replace_file(self._folder / name, render(families, form))
            await asyncio.sleep(METRICS_S)

    def _families(self) -> Any:
        follower, names = self.follower, self._resolvers.workers
        figures = {name: found for name, each in names.items() if (found := process_figures(each.pid)) is not None}
        revision, age_s = follower.revision, follower.age_s
        return chain(
            route_families(self._resolvers.traffic.routes()),
            [
                Family(Metric.RULES, [((rules_of(revision), resolution_of(revision)), 1)] if revision else []),
                Family(Metric.BUNDLE_AGE_SECONDS, [] if age_s is None else [((), age_s)]),
                Family(Metric.FAILED_POLLS, [((), follower.failures)]),
            ],
            process_families(figures, {name: each.lag_s for name, each in names.items()}),
        )


@contextlib.asynccontextmanager
async def running(adoption: Adoption, resolvers: Resolvers) -> AsyncIterator[asyncio.Future[Any]]:
    """Run resolvers that follow the store; yields what ends only if they cannot go on."""
    await adoption.begin()
    tasks = [asyncio.create_task(resolvers.run()), asyncio.create_task(adoption.run())]
    ended: asyncio.Future[Any] = asyncio.ensure_future(_first(tasks))
    try:
        yield ended
    finally:
        await cancel(ended, *tasks)


async def _first(tasks: Sequence[asyncio.Task[None]]) -> None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


def resolver_stores(settings: Settings) -> tuple[BundleSource, Registry | None]:
    """Wire the store of the live rules, and the registry if the settings name it.

    Raises:
        SettingsError: the settings name no store.
    """
    if settings.bucket is None:
        raise SettingsError("TIDEGATE_BUCKET must name the bucket of the rules")
    clients = AwsClients(AwsConfig.from_settings(settings))
    registry = None if settings.registry_table is None else registry_of(settings, clients)
    return S3BundleStore(Objects(clients, settings.bucket)), registry
