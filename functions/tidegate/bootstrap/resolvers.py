"""The processes of a resolver: starts them, replaces those that end or hang, and adds up what they report."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import struct
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tidegate.bootstrap import log_file
from tidegate.bootstrap.compiled import find_compiled
from tidegate.bootstrap.log_file import OFF, STDOUT
from tidegate.bootstrap.parent import environment_without_secrets
from tidegate.bootstrap.resolver_places import Places
from tidegate.console.traffic import TrafficHistory
from tidegate.errors import SettingsError
from tidegate.settings import Settings
from tidegate.tasks import cancel, end_process

logger = logging.getLogger(__name__)

BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 5.0
SHORT_LIFE_S = 5.0
ENDING_S = 5.0
TICK_S = 0.1

HUNG_S = 8.0
"""A process that reported nothing for this long is replaced: it reports every second. A publish waits ten seconds for one that serves
other rules, and then has their models unloaded."""

MOST_LINE_BYTES = 4 * 1024 * 1024

_CREDENTIALS = struct.Struct("3i")
"""The process, user and group of who has connected (https://man7.org/linux/man-pages/man7/unix.7.html)."""


class Reporter:
    """What serves the saved rules in a process, and its last report."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.revision: str | None = None
        self.lag_s = 0.0
        self.has_reported = False
        self.silent_s = 0.0

    async def silence(self) -> None:
        """Wait until it is silent for too long, counted in turns of this event loop: its own delays are not held against it."""
        while self.silent_s < HUNG_S:
            await asyncio.sleep(TICK_S)
            self.silent_s += TICK_S if self.has_reported else 0.0
        logger.error("a resolver (process %d) has not been heard of for %.0f s", self.pid, HUNG_S)


class Resolvers:
    """Keeps some resolver processes running.

    Args:
        settings: theirs; secrets are left out.
        folder: has the saved bundle and the metrics.
        places: where they listen.
        count: how many there are.
    """

    def __init__(self, settings: Settings, folder: Path, places: Places, count: int) -> None:
        self._settings = replace(without_secrets(settings), limit_shares=settings.limit_shares * count)
        self._folder = folder
        self._places = places
        self._count = count
        self._compiled = find_compiled()
        self._workers: dict[int, Reporter] = {}
        self._inner: list[Reporter] = []
        self._changed = asyncio.Event()
        self.traffic = TrafficHistory()
        self.restarts = 0

    @property
    def workers(self) -> Mapping[str, Reporter]:
        """What serves the rules, by name."""
        named = {f"resolver-{number}": each for number, each in enumerate(self._workers.values())}
        if self._inner:
            named["envoy"] = self._inner[-1]
        return named

    @property
    def revision(self) -> str | None:
        """The revision that every process serves; None while they differ, or have none."""
        found = {each.revision for each in (*self._workers.values(), *self._inner)}
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
            worker = self._workers[number] = Reporter(process.pid)
            watching = asyncio.create_task(self._end_if_hung(worker, process))
            try:
                try:
                    assert process.stdout is not None
                    await self._read(process.stdout, worker)
                except ValueError as error:
                    logger.error("a resolver (process %d) reports what cannot be read: %s", process.pid, error)  # noqa: TRY400  # its text says it
                    process.kill()
                code = await process.wait()
            finally:
                await cancel(watching)
                if process.returncode is None:
                    await end_process(process, ENDING_S)
                del self._workers[number]
                self._changed.set()
            self.restarts += 1
            logger.error("a resolver (process %d) ended with %s; starting another", process.pid, code)
            short = time.monotonic() - began < SHORT_LIFE_S
            await asyncio.sleep(backoff_s)
            backoff_s = min(LONGEST_BACKOFF_S, max(BACKOFF_S, 2 * backoff_s)) if short else 0.0

    async def hear(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read the reports of the resolver in Envoy's process until that ends. One that is silent for too long decides nothing
        (see `tidegate.bootstrap.in_process`), and is not waited for."""
        peer = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        inner = Reporter(_CREDENTIALS.unpack(peer)[0])
        # It reports at once.
        inner.has_reported = True
        self._inner.append(inner)
        reading = asyncio.create_task(self._read(reader, inner))
        silent = asyncio.create_task(inner.silence())
        try:
            await asyncio.wait([reading, silent], return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and (error := reading.exception()) is not None:
                logger.error("Envoy (process %d) reports what cannot be read: %s", inner.pid, error)
        finally:
            self._inner.remove(inner)
            self._changed.set()
            await cancel(reading, silent)
            writer.close()

    async def _end_if_hung(self, worker: Reporter, process: asyncio.subprocess.Process) -> None:
        await worker.silence()
        process.kill()

    async def _read(self, reader: asyncio.StreamReader, worker: Reporter) -> None:
        # A line without an end is of a process that was killed while it wrote.
        while (line := await reader.readline()).endswith(b"\n"):
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


def without_secrets(settings: Settings) -> Settings:
    """Return settings for what decides, which needs no secret."""
    return replace(
        settings,
        management_secret=None,
        operator_token=None,
        sequence_key=None,
        edge_key=None,
        edge_key_before=None,
    )


def check_log(settings: Settings) -> None:
    """Check where requests are logged.

    Raises:
        SettingsError: on standard output, where resolvers report, or in a file that cannot be written.
    """
    target = settings.access_log
    if target == STDOUT:
        raise SettingsError("TIDEGATE_ACCESS_LOG must be a path or off for resolvers, which report on standard output")
    if target not in (None, OFF):
        log_file.check_log(target)
