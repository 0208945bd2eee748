"""The processes of a resolver: starts them, replaces those that end, and adds up what they report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.objects import Objects
from tidegate.bootstrap.compiled import find_compiled
from tidegate.bootstrap.control import registry_of
from tidegate.bootstrap.log_file import STDOUT
from tidegate.bootstrap.parent import environment_without_secrets
from tidegate.bootstrap.resolver_process import METRICS, bound
from tidegate.bootstrap.saved_bundle import NAME, SavedBundle, replace_file
from tidegate.console.metrics import process_families, route_families
from tidegate.console.processes import process_figures
from tidegate.console.traffic import TrafficHistory
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

BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 5.0
SHORT_LIFE_S = 5.0
ENDING_S = 5.0
TICK_S = 0.1
METRICS_S = 1.0
AGAIN_S = 2.0

HUNG_S = 8.0
"""A process that reported nothing for this long is replaced: it reports every second. A publish waits ten seconds for one that serves
other rules, and then has their models unloaded."""

SETTLE_S = 2 * HUNG_S
"""How long new rules wait for processes that do not serve those before yet."""

MOST_LINE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Places:
    """Where resolvers listen: ports of addresses that all of them bind, and Unix sockets that they inherit.

    With `is_shared` false there is a port for each of them, so that a proxy can tell them apart.
    """

    ports: tuple[tuple[str, int], ...] = ()
    sockets: tuple[socket.socket, ...] = ()
    is_shared: bool = True

    def arguments(self, number: int) -> list[str]:
        """Return the places of a resolver, by its number from 0, as its process takes them."""
        ports = self.ports if self.is_shared else self.ports[number : number + 1]
        return [*(f"{host}:{port}" for host, port in ports), *(str(each.fileno()) for each in self.sockets)]


@contextlib.contextmanager
def reserved(listen: Sequence[str], *, is_shared: bool = True) -> Any:
    """Reserve places to listen at, `HOST:PORT` (0: any free port) or `unix:PATH`, and yield them. They are given back afterwards.

    Raises:
        StackError: one cannot be used.
    """
    with contextlib.ExitStack() as held:
        ports, sockets = [], []
        for place in listen:
            try:
                if place.startswith("unix:"):
                    path = Path(place.removeprefix("unix:"))
                    sockets.append(_unix(path))
                    held.callback(path.unlink, missing_ok=True)
                    held.callback(sockets[-1].close)
                else:
                    host, _, port = place.rpartition(":")
                    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as free:
                        # Without SO_REUSEPORT, so that no other resolver's port is shared by mistake.
                        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        free.bind((host.strip("[]"), int(port)))
                        number = free.getsockname()[1]
                    # Bound and not listening: it keeps others away, and gets no connection.
                    held.callback(bound(host, number).close)
                    ports.append((host, number))
            except OSError as error:
                raise StackError(
                    f"{place} cannot be listened at: {error.strerror}; name another with --listen"
                ) from error
        yield Places(tuple(ports), tuple(sockets), is_shared)


def _unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        with contextlib.suppress(FileNotFoundError):
            # Of a process that was killed; one that lives still accepts.
            with socket.socket(socket.AF_UNIX) as other:
                if other.connect_ex(str(path)) == 0:
                    raise OSError(98, "another process listens there")
            path.unlink()
        mask = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(mask)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


class Worker:
    """One process, and its last report."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.revision: str | None = None
        self.lag_s = 0.0
        self.has_reported = False
        self.silent_s = 0.0

    async def end_if_hung(self) -> None:
        """End the process once it is silent for too long, counted in turns of this event loop: its own delays are not held against it."""
        while self.silent_s < HUNG_S:
            await asyncio.sleep(TICK_S)
            self.silent_s += TICK_S if self.has_reported else 0.0
        logger.error("a resolver (process %d) has not been heard of for %.0f s", self.process.pid, HUNG_S)
        self.process.kill()


class Resolvers:
    """Keeps some resolver processes running.

    Args:
        settings: theirs; secrets are left out.
        folder: has the saved bundle and the metrics.
        places: where they listen.
        count: how many there are.
    """

    def __init__(self, settings: Settings, folder: Path, places: Places, count: int) -> None:
        bare = replace(
            settings,
            management_secret=None,
            operator_token=None,
            sequence_key=None,
            edge_key=None,
            edge_key_before=None,
        )
        self._settings = replace(bare, limit_shares=settings.limit_shares * count)
        self._folder = folder
        self._places = places
        self._count = count
        self._compiled = find_compiled()
        self._workers: dict[int, Worker] = {}
        self._changed = asyncio.Event()
        self.traffic = TrafficHistory()
        self.restarts = 0

    @property
    def workers(self) -> Sequence[Worker]:
        return list(self._workers.values())

    @property
    def revision(self) -> str | None:
        """The revision that every process serves; None while they differ, or have none."""
        found = {worker.revision for worker in self._workers.values()}
        return found.pop() if len(found) == 1 and len(self._workers) == self._count else None

    async def run(self) -> None:
        """Run until cancelled; then the processes end."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._count):
                group.create_task(self._keep(number))

    async def ready(self) -> None:
        """Wait until every process has reported once, and so listens."""
        while sum(worker.has_reported for worker in self._workers.values()) < self._count:
            await self.changed()

    async def changed(self) -> None:
        """Wait until a process reports, or ends."""
        self._changed.clear()
        await self._changed.wait()

    async def _keep(self, number: int) -> None:
        backoff_s = 0.0
        while True:
            began = time.monotonic()
            process = await self._spawn(number)
            worker = self._workers[number] = Worker(process)
            watching = asyncio.create_task(worker.end_if_hung())
            try:
                try:
                    await self._read(worker)
                except ValueError as error:
                    logger.error("a resolver (process %d) reports what cannot be read: %s", process.pid, error)  # noqa: TRY400  # its text says it
                    process.kill()
                code = await process.wait()
            finally:
                await cancel(watching)
                if process.returncode is None:
                    await _end(process)
                del self._workers[number]
                self._changed.set()
            self.restarts += 1
            logger.error("a resolver (process %d) ended with %s; starting another", process.pid, code)
            short = time.monotonic() - began < SHORT_LIFE_S
            await asyncio.sleep(backoff_s)
            backoff_s = min(LONGEST_BACKOFF_S, max(BACKOFF_S, 2 * backoff_s)) if short else 0.0

    async def _read(self, worker: Worker) -> None:
        assert worker.process.stdout is not None
        # A line without an end is of a process that was killed while it wrote.
        while (line := await worker.process.stdout.readline()).endswith(b"\n"):
            report = json.loads(line)
            worker.revision, worker.lag_s, worker.has_reported = report["revision"], report["lag_s"], True
            worker.silent_s = 0.0
            self.traffic.add_routes(report["routes"])
            self._changed.set()

    async def _spawn(self, number: int) -> asyncio.subprocess.Process:
        variables = environment_without_secrets() | self._settings.to_environment()
        if self._compiled is not None:
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(self._compiled), variables.get("PYTHONPATH"))))
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "tidegate.bootstrap.resolver_process",
            str(self._folder),
            str(os.getpid()),
            *self._places.arguments(number),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            limit=MOST_LINE_BYTES,
            pass_fds=[each.fileno() for each in self._places.sockets],
            env=variables,
            # Ctrl-C in a terminal is for this process, which then ends its children.
            start_new_session=True,
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(ENDING_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


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
            await asyncio.sleep(TICK_S)
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
        follower, workers = self.follower, self._resolvers.workers
        names = {f"resolver-{number}": each for number, each in enumerate(workers)}
        figures = {
            name: found for name, each in names.items() if (found := process_figures(each.process.pid)) is not None
        }
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


def state_folder(path: Path) -> Path:
    """Create the folder of a resolver's state, or check that it is this user's alone.

    Raises:
        SettingsError: it cannot be used.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise SettingsError(
                f"{path} must be a folder that only this user can write to: resolvers serve the rules in it"
            )
    except OSError as error:
        raise SettingsError(f"{path} cannot be used as the folder of the state: {error.strerror}") from error
    return path


def check_log(settings: Settings) -> None:
    """Raises `SettingsError`: resolvers report on their standard output, so nothing else is written there."""
    if settings.access_log == STDOUT:
        raise SettingsError("TIDEGATE_ACCESS_LOG must be a path or off for resolvers, which report on standard output")


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
