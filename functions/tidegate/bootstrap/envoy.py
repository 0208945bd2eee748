"""`tidegate envoy run`: Envoy and its resolvers on one machine, which follow the live rules and the registry.

What a revision needs is there before it is decided by: first its endpoints and clusters, which Envoy must report as active, then its
routes, and then the bundle that the resolvers serve. The clusters of the revision before stay until the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tidegate.bootstrap.adoption import Adoption
from tidegate.bootstrap.envoy_server import Admin
from tidegate.bootstrap.resolvers import MOST_LINE_BYTES, Resolvers
from tidegate.bootstrap.saved_bundle import replace_file
from tidegate.envoy.config import (
    BOOTSTRAP,
    CLUSTERS,
    ENDPOINTS,
    ROUTES,
    EnvoyOptions,
    bootstrap,
    cluster_file,
    cluster_names,
    endpoint_files,
    route_file,
)
from tidegate.envoy.fleet import Fleet, Server, fleet_json, read_fleet
from tidegate.envoy.notes import notes
from tidegate.envoy.plans import Shape, shapes
from tidegate.errors import SettingsError, StackError, StoreError
from tidegate.files import read_regular
from tidegate.fleet.directory import RegistryDirectory
from tidegate.ports import BundleSource, Endpoint, Registry
from tidegate.rules import Engine
from tidegate.settings import Settings

logger = logging.getLogger(__name__)

FLEET = "fleet.json"
MOST_FLEET_BYTES = 16 * 1024 * 1024
REGISTRY_S = 1.0
LOOK_S = 0.05
LATE_S = 10.0
"""How long clusters may take to become active before that is reported; resolvers serve the rules before until then."""

HEALTHY_S = 3.0
"""How long new rules wait for a healthy server of each of their targets: longer than Envoy's interval of health checks."""


def prepare_folder(folder: Path) -> None:
    """Create what Envoy watches below a folder.

    Raises:
        StackError: it cannot be created.
    """
    for watched in ((folder / CLUSTERS).parent, (folder / ROUTES).parent, folder / ENDPOINTS):
        try:
            watched.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StackError(f"{watched} cannot be created: {error.strerror}") from error


class EnvoyPlane(Adoption):
    """Keeps the configuration of Envoy that of the live rules and of the registry.

    Args:
        options: see `EnvoyOptions`.
        admin: where Envoy says which clusters are active.
        registry: the servers, and who gets reports of the revision that is served.
    """

    def __init__(
        self,
        source: BundleSource,
        resolvers: Resolvers,
        gateway_id: str,
        registry: Registry,
        settings: Settings,
        options: EnvoyOptions,
        admin: Admin,
    ) -> None:
        super().__init__(source, options.folder, resolvers, gateway_id, registry, settings)
        self._options = options
        self._admin = admin
        self._directory = RegistryDirectory(registry)
        self._needed: frozenset[Shape] = frozenset()
        self._before: frozenset[Shape] = frozenset()
        self._is_routed = True
        self._fleet: Fleet = {}
        self._written: dict[str, bytes] = {}
        self._noted: set[str] = set()

    async def begin(self) -> None:
        """Write the configuration of the saved rules and the servers that were known last."""
        prepare_folder(self._options.folder)
        self._write(BOOTSTRAP, bootstrap(self._options))
        if self._options.in_process is not None:
            await self._hear(self._options.in_process.reports)
        with contextlib.suppress(OSError, SettingsError):
            self._fleet = read_fleet(read_regular(self._options.folder / FLEET, MOST_FLEET_BYTES))
        await super().begin()
        with contextlib.suppress(Exception):
            await self._directory.refresh()
        self._directory.subscribe(self._show)
        engine = self.follower.engine() if self.follower.revision else None
        self._needed = frozenset() if engine is None else shapes(engine)
        self._write_clusters()
        self._write(ROUTES, route_file(engine, self._options))

    async def _hear(self, place: Path) -> None:
        """Have resolvers hear what the one in Envoy's process reports."""
        place.unlink(missing_ok=True)
        try:
            self._reports_of_envoy = await asyncio.start_unix_server(self._resolvers.hear, place, limit=MOST_LINE_BYTES)
            place.chmod(0o600)
        except OSError as error:
            raise StackError(f"{place} cannot be created: {error.strerror or error}") from error

    def without_in_process(self) -> bool:
        """Have Envoy ask resolvers about every request from its next start on. Return whether it did not already."""
        if self._options.in_process is None:
            return False
        self._options = replace(self._options, in_process=None)
        self._write(BOOTSTRAP, bootstrap(self._options))
        return True

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(super().run())
            group.create_task(self._directory.follow(REGISTRY_S))

    async def prepared(self, engine: Engine) -> None:
        """Give Envoy the clusters and routes of new rules, and wait until the clusters are active."""
        # A shard that came with the rules is registered, and may be younger than the last look.
        with contextlib.suppress(StoreError):
            await self._directory.refresh()
        needed = shapes(engine)
        if needed != self._needed:
            # Rules that were given up served nothing: what is served is still of those before.
            self._before, self._needed = self._needed if self._is_routed else self._before, needed
            self._is_routed = False
        self._write_clusters()
        await self.active(engine.revision)
        if engine is not self.follower.engine():
            return
        await self._healthy()
        self._write(ROUTES, route_file(engine, self._options))
        self._is_routed = True
        self._note(engine)

    def _note(self, engine: Engine) -> None:
        """Log what the rules ask for and Envoy does not do, once."""
        for note in notes(engine):
            if note not in self._noted:
                self._noted.add(note)
                logger.warning("%s", note)

    async def active(self, revision: str | None) -> None:
        """Wait until Envoy has every cluster that the rules need, or another revision is live."""
        wanted = cluster_names(self._needed, rpc=self._options.rpc)
        began, is_late = time.monotonic(), False
        while self.follower.revision == revision and (missing := wanted - (await self._admin.clusters()).keys()):
            if not is_late and time.monotonic() - began > LATE_S:
                is_late = True
                logger.warning("Envoy has no cluster %s yet; the rules before are served", ", ".join(sorted(missing)))
            await asyncio.sleep(LOOK_S)

    async def _healthy(self) -> None:
        """Wait for a healthy endpoint of the first shard of every cluster, else a fallback would answer; but not long: a shard may have no
        server, or one that is down."""
        wanted = cluster_names(self._needed, rpc=self._options.rpc)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEALTHY_S):
                while not wanted <= {name for name, is_healthy in (await self._admin.clusters()).items() if is_healthy}:
                    await asyncio.sleep(LOOK_S)

    def _show(self, found: Mapping[str, Sequence[Endpoint]]) -> None:
        """Take over the servers that the registry has. Without any, the ones before stay: a registry that lost its entries says
        nothing of the servers."""
        port_of = self._directory.rpc_port
        fleet = {
            shard: tuple(Server(each.host, each.port, port_of(each)) for each in endpoints)
            for shard, endpoints in found.items()
            if endpoints
        }
        if not fleet:
            return
        self._fleet = fleet
        try:
            self._write(FLEET, fleet_json(fleet))
            self._write_clusters()
        except StackError as error:
            logger.error("%s; the servers before are used", error)  # noqa: TRY400  # its text says it

    def _write_clusters(self) -> None:
        """Write the endpoints, and then the clusters, which name their files."""
        kept = self._needed | self._before
        for name, content in endpoint_files(kept, self._fleet, rpc=self._options.rpc):
            self._write(name, content)
        self._write(CLUSTERS, cluster_file(kept, self._fleet, self._options))

    def _write(self, name: str, content: Any) -> None:
        """Replace a file, if its content is another."""
        data = json.dumps(content, sort_keys=True).encode()
        if self._written.get(name) == data:
            return
        try:
            replace_file(self._options.folder / name, data)
        except OSError as error:
            raise StackError(f"{self._options.folder / name} cannot be written: {error.strerror}") from error
        self._written[name] = data
