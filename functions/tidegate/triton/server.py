"""One local Triton server: a process of its own that leaves nothing behind, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from tidegate.errors import EndpointError, StackError
from tidegate.ports import Endpoint, ModelRepository, Transport
from tidegate.triton import bounded
from tidegate.triton.bounded import OVER_MEMORY, SHARED_MEMORY
from tidegate.triton.health import is_live
from tidegate.triton.installation import Installation
from tidegate.triton.repository import MANAGEMENT, RESTRICTED_APIS, TritonRepository
from tidegate.triton.strays import end_strays

HOST = "127.0.0.1"
PARAMETER_HEADERS = "(?i)^tidegate-param-.*"
"""Request headers that become request parameters (--http-header-forward-pattern); unanchored it would match anywhere."""

HTTP_THREADS = 32
"""A connection belongs to one of these threads (`--http-thread-count`, by default 8), which parses the JSON of its requests,
less than 10 MB/s: the other connections of that thread wait meanwhile."""

STOP_GRACE_S = 4.0
START_ATTEMPTS = 3
LOG_TAIL_LINES = 15
LOG_TAIL_BYTES = 8192
LOG_READ_BYTES = 256 * 1024
COPIES = "TRITON_AWS_MOUNT_DIRECTORY"
"""Variable that names the folder where Triton keeps its copies of models from S3: of each server another one, so that it
also tells whose a process is."""

LIMIT_SETTING = "TIDEGATE_SCRATCH_MEMORY_MB"
"""The setting that bounds the memory of a server, where something does."""

BOUNDED = (sys.executable, "-I", "-S", bounded.__file__)
"""What runs a command bounded in memory."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """A server's log: a file without a name, which ends with the server."""

    file: BinaryIO

    def size(self) -> int:
        """Its length now, in bytes."""
        return 0 if self.file.closed else os.fstat(self.file.fileno()).st_size

    def text(self, start: int) -> str:
        """What was written from a position on."""
        if self.file.closed:
            return ""
        return os.pread(self.file.fileno(), LOG_READ_BYTES, start).decode(errors="replace")


@dataclass(slots=True)
class TritonServer:
    """A running `tritonserver`; made by `TritonLauncher.launch`, ended by `stop`.

    `prefix` begins the names of all shared-memory regions of this server, so that they can be removed after a kill.
    """

    endpoint: Endpoint
    grpc_port: int
    metrics_port: int
    repository: ModelRepository
    prefix: str
    _process: asyncio.subprocess.Process
    _log: BinaryIO
    _copies: Path
    _limit_bytes: int | None = None

    @property
    def pid(self) -> int:
        """The process id of `tritonserver`, or of what bounds it; it leads its own process group."""
        return self._process.pid

    async def live(self) -> bool:
        """See `ModelServer.live`."""
        return await is_live(self.endpoint.host, self.endpoint.port)

    async def wait(self) -> str:
        """Wait until the process has ended; says how, in words."""
        code = await self._process.wait()
        if code == OVER_MEMORY and self._limit_bytes is not None:
            return f"was ended as it took more than {self._limit_bytes / 2**20:,.0f} MiB of memory ({LIMIT_SETTING})"
        if code >= 0:
            return f"ended with exit code {code}"
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"was ended by signal {-code}"

    def log_tail(self) -> str:
        """The last lines of the server's log."""
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), LOG_TAIL_BYTES, max(0, size - LOG_TAIL_BYTES))
        return "\n".join(tail.decode(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    async def stop(self) -> None:
        """End the server within about 5 s: unload its models, so that they can finalize, then kill it and clean up.

        Triton's own way to stop, on SIGTERM, takes 2 to 4 s and does not end while a load hangs; its models are all that
        has anything to lose. Safe to call again and for a dead server; a cancelled stop still kills and cleans.
        """
        try:
            if self._process.returncode is None:
                with contextlib.suppress(TimeoutError, EndpointError, StackError):
                    async with asyncio.timeout(STOP_GRACE_S):
                        await self._unload_all()
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End the server at once, for one that is known not to answer. Safe to call again."""
        if self._log.closed:
            return
        if self._limit_bytes is not None:
            await self._end_bounded()
        self._kill_group()
        try:
            await self._process.wait()
            await asyncio.to_thread(end_strays, COPIES, str(self._copies))
        finally:
            self._clean()

    async def _unload_all(self) -> None:
        """Unload every model, and wait until none is on its way out; one that still loads may hang and is not waited for."""
        entries = await self.repository.index()
        await asyncio.gather(
            *(self.repository.unload(name) for name in {e.model for e in entries if e.state == "READY"})
        )
        while any(entry.state == "UNLOADING" for entry in await self.repository.index()):
            await asyncio.sleep(0.02)

    async def _end_bounded(self) -> None:
        """Have what bounds the server end all that it started, processes that left the group included."""
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            self._process.terminate()
            async with asyncio.timeout(STOP_GRACE_S):
                await self._process.wait()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _clean(self) -> None:
        for region in SHARED_MEMORY.glob(f"{self.prefix}*"):
            region.unlink(missing_ok=True)
        shutil.rmtree(self._copies, ignore_errors=True)
        self._log.close()


@dataclass(frozen=True, slots=True)
class TritonLauncher:
    """Starts Triton servers over one model repository.

    `models` is a directory, or an address that Triton knows such as `s3://…`; then a server keeps its copies of models in
    a folder of its own, which is gone with it. `variables` are set in the server's environment.
    `auto_complete` is asked at every start: False passes `--disable-auto-complete-config`, which starts each stub once
    instead of twice and needs complete configs. `start_timeout_s` bounds the time to readiness. `limit_bytes` is asked at
    every start, too: a server whose processes have more memory together is ended, and the system ends it before others
    where memory runs out (None: no such bound). `secret` opens a server's management endpoints, which it restricts.
    """

    installation: Installation
    models: Path | str
    transport: Transport
    auto_complete: Callable[[], bool]
    start_timeout_s: float = 30.0
    variables: Mapping[str, str] = field(default_factory=dict)
    limit_bytes: Callable[[], int] | None = None
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)

    async def launch(self, shard: str) -> TritonServer:
        """Start an empty server of a shard and wait until it is ready to load models.

        Raises:
            StackError: it did not become ready; the message ends with the tail of its log.
        """
        for attempt in range(START_ATTEMPTS):
            server = await self._spawn(shard)
            try:
                failure = await self._wait_ready(server)
                if failure is None:
                    return server
                tail = server.log_tail()
            except BaseException:
                await server.kill()
                raise
            await server.kill()
            # Another process may bind a free port between its choice here and Triton's own bind.
            if "address already in use" not in tail.lower() or attempt == START_ATTEMPTS - 1:
                break
        raise StackError(f"a Triton server of shard {shard!r} {failure}; the end of its log:\n{tail}")

    async def _spawn(self, shard: str) -> TritonServer:
        http_port, grpc_port, metrics_port = _free_ports(3)
        prefix = f"tidegate_{uuid.uuid4().hex[:12]}_"
        # A file without a name: nothing of it is left, even where this process is killed.
        log = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115  # the server holds it until it is cleaned up
        copies = Path(tempfile.mkdtemp(prefix="tidegate-models-"))
        limit_bytes = None if self.limit_bytes is None else self.limit_bytes()
        program = [] if limit_bytes is None else [*BOUNDED, str(limit_bytes), prefix, str(copies)]
        try:
            process = await asyncio.create_subprocess_exec(
                *(program or _parent_death()),
                *self._arguments(http_port, grpc_port, metrics_port, prefix),
                # What bounds a server ends it once this pipe ends, as it does with this process.
                stdin=asyncio.subprocess.PIPE if program else asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.installation.environment(), **self.variables, COPIES: str(copies)},
                start_new_session=True,
            )
        except BaseException as error:
            log.close()
            shutil.rmtree(copies, ignore_errors=True)
            if isinstance(error, OSError):
                raise StackError(f"cannot start {self.installation.server}: {error}") from error
            raise
        endpoint = Endpoint(shard, HOST, http_port)
        repository = TritonRepository(self.transport, endpoint, grpc_port, secret=self.secret, log=LogFile(log))
        return TritonServer(endpoint, grpc_port, metrics_port, repository, prefix, process, log, copies, limit_bytes)

    def _arguments(self, http_port: int, grpc_port: int, metrics_port: int, prefix: str) -> list[str]:
        restricted = f"{','.join(RESTRICTED_APIS)}:{MANAGEMENT}={self.secret}"
        arguments = [
            str(self.installation.server),
            f"--model-repository={self.models.resolve() if isinstance(self.models, Path) else self.models}",
            f"--backend-directory={self.installation.backend_directory}",
            "--model-control-mode=explicit",
            f"--http-address={HOST}",
            f"--http-port={http_port}",
            f"--http-thread-count={HTTP_THREADS}",
            f"--grpc-address={HOST}",
            f"--grpc-port={grpc_port}",
            f"--metrics-address={HOST}",
            f"--metrics-port={metrics_port}",
            f"--http-header-forward-pattern={PARAMETER_HEADERS}",
            # In sight of whoever may list this machine's processes: Triton takes it in no other way.
            f"--http-restricted-api={restricted}",
            f"--grpc-restricted-protocol={restricted}",
            f"--backend-config=python,shm-region-prefix-name={prefix}",
            "--exit-timeout-secs=3",
            "--disable-auto-complete-config",
        ]
        return arguments[:-1] if self.auto_complete() else arguments

    async def _wait_ready(self, server: TritonServer) -> str | None:
        """None once the server is ready, else what went wrong in words."""
        ended = asyncio.ensure_future(server.wait())
        try:
            async with asyncio.timeout(self.start_timeout_s):
                while not ended.done():
                    with contextlib.suppress(EndpointError):
                        if await server.repository.server_ready():
                            return None
                    await asyncio.wait([ended], timeout=0.05)
                return ended.result()
        except TimeoutError:
            return f"was not ready within {self.start_timeout_s:g} s"
        finally:
            ended.cancel()


def _parent_death() -> list[str]:
    """The command that has the kernel end a server with its parent, where the system has it.

    SIGTERM and not SIGKILL, so that the server removes its shared memory even when this process is killed. The signal
    follows the thread that started the server, which is the event loop's and so ends with the process.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
