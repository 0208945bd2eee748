"""A local Triton server: a process that leaves no processes or files behind, however it ends."""

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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from tidegate.errors import EndpointError, StackError
from tidegate.ports import Endpoint, Transport
from tidegate.triton import bounded
from tidegate.triton.bounded import OVER_MEMORY, SHARED_MEMORY
from tidegate.triton.health import METRICS, answers, is_live
from tidegate.triton.installation import Installation
from tidegate.triton.repository import MANAGEMENT, RESTRICTED_APIS, ServerLog, TritonRepository
from tidegate.triton.strays import end_strays

HOST = "127.0.0.1"
PARAMETER_HEADERS = "(?i)^tidegate-param-.*"
"""Request headers that become request parameters (--http-header-forward-pattern); without `^` it would match anywhere."""

HTTP_THREADS = 32
"""Each connection belongs to one of these threads (`--http-thread-count`, by default 8). While the thread parses the JSON of a
request, at less than 10 MB/s, its other connections wait."""

STOP_GRACE_S = 4.0
ANSWER_S = 5.0
"""How long one question whether a server is ready may take."""

FIRST_LOOK_S, LONGEST_LOOK_S = 0.02, 0.16
"""Between two looks whether a server that is stopped has unloaded its models."""

START_ATTEMPTS = 3
LOG_TAIL_LINES = 15
LOG_TAIL_BYTES = 8192
COPIES = "TRITON_AWS_MOUNT_DIRECTORY"
"""Variable with the folder of Triton's copies of models from S3. It differs for each server, and so identifies its processes."""

LIMIT_SETTING = "TIDEGATE_SCRATCH_MEMORY_MB"
"""The setting that limits the memory of a server."""

BOUNDED = (sys.executable, "-I", "-S", bounded.__file__)


@dataclass(slots=True)
class TritonServer:
    """A running `tritonserver`. The names of its shared-memory regions begin with `prefix`."""

    endpoint: Endpoint
    grpc_port: int
    metrics_port: int
    repository: TritonRepository
    prefix: str
    _process: asyncio.subprocess.Process
    _log: BinaryIO
    _copies: Path
    _limit_bytes: int | None = None

    @property
    def pid(self) -> int:
        """The process id of `tritonserver`, or of `bounded`; it leads a process group."""
        return self._process.pid

    async def live(self) -> bool:
        return await is_live(self.endpoint.host, self.endpoint.port)

    async def has_metrics(self) -> bool:
        return await answers(self.endpoint.host, self.metrics_port, METRICS)

    async def wait(self) -> str:
        code = await self._process.wait()
        if code == OVER_MEMORY and self._limit_bytes is not None:
            return f"was ended as it took more than {self._limit_bytes / 2**20:,.0f} MiB of memory ({LIMIT_SETTING})"
        if code >= 0:
            return f"ended with exit code {code}"
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"was ended by signal {-code}"

    def log_tail(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), LOG_TAIL_BYTES, max(0, size - LOG_TAIL_BYTES))
        return "\n".join(tail.decode(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    async def stop(self) -> None:
        """End the server within about 5 s: unload its models, so that they can finalize, then kill it and clean up, even if
        cancelled.

        Triton's own stop, on SIGTERM, takes 2 to 4 s, and does not end while a load hangs.
        """
        try:
            if self._process.returncode is None:
                with contextlib.suppress(TimeoutError, EndpointError, StackError):
                    async with asyncio.timeout(STOP_GRACE_S):
                        await self._unload_all()
        finally:
            await self.kill()

    async def kill(self) -> None:
        if self._log.closed:
            return
        if self._limit_bytes is not None:
            # `bounded` also ends processes that have left the group.
            with contextlib.suppress(ProcessLookupError, TimeoutError):
                self._process.terminate()
                async with asyncio.timeout(STOP_GRACE_S):
                    await self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        try:
            await self._process.wait()
            await asyncio.to_thread(end_strays, COPIES, str(self._copies))
        finally:
            for region in SHARED_MEMORY.glob(f"{self.prefix}*"):
                region.unlink(missing_ok=True)
            shutil.rmtree(self._copies, ignore_errors=True)
            self._log.close()

    async def _unload_all(self) -> None:
        """Unload every READY model, and wait for that. One that is still being loaded may hang."""
        await asyncio.gather(*(self.repository.unload(model) for model in await self.repository.loaded()))
        wait_s = FIRST_LOOK_S
        while await self.repository.unloading():
            await asyncio.sleep(wait_s)
            # A look lists the whole repository, on S3 too, and the process of a Python model takes a second to end.
            wait_s = min(2 * wait_s, LONGEST_LOOK_S)


@dataclass(frozen=True, slots=True)
class TritonLauncher:
    """Starts Triton servers over one model repository.

    Attributes:
        models: a directory, or an address such as `s3://…`, whose models each server copies to a folder of its own.
        auto_complete: called at every start. False passes `--disable-auto-complete-config`, which starts each stub once
            instead of twice, and needs complete configs.
        variables: added to the server's environment.
        limit_bytes: called at every start. A server whose processes use more memory together is ended, before any other
            process if the machine runs out of memory.
        secret: opens the restricted management endpoints of a server.
        traces: where a server exports its spans over OTLP/HTTP; None: it records none.
    """

    installation: Installation
    models: Path | str
    transport: Transport
    auto_complete: Callable[[], bool]
    start_timeout_s: float = 30.0
    variables: Mapping[str, str] = field(default_factory=dict)
    limit_bytes: Callable[[], int] | None = None
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    traces: str | None = None

    async def launch(self, shard: str) -> TritonServer:
        """See `ServerLauncher.launch`. The message of the error ends with the tail of the log."""
        for attempt in range(START_ATTEMPTS):
            with reserved_ports(3) as ports:
                server = await self._spawn(shard, *ports)
                try:
                    failure = await self._wait_ready(server)
                    if failure is None:
                        return server
                    tail = server.log_tail()
                except BaseException:
                    await server.kill()
                    raise
                await server.kill()
            if "already in use" not in tail or attempt == START_ATTEMPTS - 1:
                break
        raise StackError(f"a Triton server of shard {shard!r} {failure}; the end of its log:\n{tail}")

    async def _spawn(self, shard: str, http_port: int, grpc_port: int, metrics_port: int) -> TritonServer:
        prefix = f"tidegate_{uuid.uuid4().hex[:12]}_"
        # An unnamed file is removed even if this process is killed.
        log = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115  # the server holds it until it is cleaned up
        copies = Path(tempfile.mkdtemp(prefix="tidegate-models-"))
        limit_bytes = None if self.limit_bytes is None else self.limit_bytes()
        program = [] if limit_bytes is None else [*BOUNDED, str(limit_bytes), prefix, str(copies)]
        try:
            process = await asyncio.create_subprocess_exec(
                *(program or _parent_death()),
                *self._arguments(http_port, grpc_port, metrics_port, prefix),
                # `bounded` ends the server once this pipe ends, as it does with this process.
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
        repository = TritonRepository(self.transport, endpoint, grpc_port, secret=self.secret, log=ServerLog(log))
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
            # Visible to users who may list processes, but Triton accepts it in no other way.
            f"--http-restricted-api={restricted}",
            f"--grpc-restricted-protocol={restricted}",
            f"--backend-config=python,shm-region-prefix-name={prefix}",
            "--exit-timeout-secs=3",
        ]
        if self.traces is not None:
            arguments += trace_arguments(self.traces)
        return arguments if self.auto_complete() else [*arguments, "--disable-auto-complete-config"]

    async def _wait_ready(self, server: TritonServer) -> str | None:
        """Wait until the server is ready, its metrics included, which it opens last. Return None, or what went wrong."""
        ended = asyncio.ensure_future(server.wait())
        try:
            async with asyncio.timeout(self.start_timeout_s):
                while not ended.done():
                    with contextlib.suppress(EndpointError, TimeoutError):
                        async with asyncio.timeout(ANSWER_S):
                            if await server.repository.server_ready() and await server.has_metrics():
                                return None
                    await asyncio.wait([ended], timeout=0.05)
                return ended.result()
        except TimeoutError:
            return f"was not ready within {self.start_timeout_s:g} s"
        finally:
            ended.cancel()


def trace_arguments(endpoint: str) -> list[str]:
    """Return the arguments by which a server joins the traces of the requests that it gets, and begins none of its own.

    With `rate=0`, Triton records exactly the requests with a `traceparent`, whose parent its spans get; it does not look at the
    flag that says whether the trace is sampled. https://github.com/triton-inference-server/server/blob/r24.10/docs/user_guide/trace.md
    """
    config = ("mode=opentelemetry", "rate=0", "level=TIMESTAMPS", f"opentelemetry,url={endpoint}")
    named = ("opentelemetry,resource=service.name=triton", "opentelemetry,bsp_schedule_delay=1000")
    return [f"--trace-config={each}" for each in (*config, *named)]


def _parent_death() -> list[str]:
    """Return the command with which the kernel ends a server with its parent, if the system has it.

    It sends SIGTERM, so that the server still removes its shared memory, when the thread of the event loop ends.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM"] if setpriv else []


@contextlib.contextmanager
def reserved_ports(count: int) -> Iterator[list[int]]:
    """Keep some ports from all but Triton, which may listen on them, as it sets `SO_REUSEADDR`, too.

    Triton opens its port of metrics last. If that has become the port of another process, even of one of its connections,
    Triton exits although it was ready for a moment, and a load meanwhile ends in SIGSEGV.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((HOST, 0))
        yield [each.getsockname()[1] for each in sockets]
