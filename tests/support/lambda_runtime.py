"""Functions as Lambda runs them: the real runtime client in a process of its own, against an emulated Runtime API.

One `Environment` is one concurrent execution environment. Between invocations its process is stopped, as Lambda freezes
it, if the test asks for it. The API: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.stack import ROOT

INIT_TIMEOUT_S = 300
API = "/2018-06-01/runtime"


class FunctionError(Exception):
    """The function ended with an error instead of a response; `document` is what it told the runtime."""

    def __init__(self, document: Any) -> None:
        self.document = document
        super().__init__(json.dumps(document))


@dataclass(slots=True)
class _Invocation:
    id: str
    event: bytes
    deadline_ms: int
    answer: queue.Queue[tuple[str, bytes]] = field(default_factory=queue.Queue)


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A process that was killed leaves its connection broken: nothing to tell."""


class Environment:
    """One execution environment of a function; `response_bytes` is the size of its last response, as the runtime packed it.

    Args:
        handler: `module.function`.
        variables: environment variables beside those that Lambda sets.
        code: the folder that the function's code is unpacked in, first on the path; None: the project's sources.
        log: the file that gets what the function prints.
        trace: the header of X-Ray that comes with every invocation.
        snapshot: a snapshot is taken once the function is initialised: it gets no event before `restore`.
    """

    def __init__(
        self,
        handler: str,
        variables: Mapping[str, str],
        log: Path,
        code: Path | None = None,
        trace: str = "Root=1-65f0a0a0-0123456789abcdef01234567;Sampled=0",
        snapshot: bool = False,
    ) -> None:
        self._snapshot = snapshot
        self._restored = threading.Event()
        self._handler = handler
        self._trace = trace
        self._variables = dict(variables)
        self._code = code or ROOT / "functions"
        self._log = log
        self._pending: queue.Queue[_Invocation] = queue.Queue()
        self._running: dict[str, _Invocation] = {}
        self._asked = threading.Event()
        self._init_error: Any = None
        self.init_ms = 0.0
        self.response_bytes = 0
        self._server = _QuietServer(("127.0.0.1", 0), self._api())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Environment:
        """Start the process and wait until it asks for its first event."""
        self._thread.start()
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("TIDEGATE_", "AWS_", "POWERTOOLS_")) or name == "AWS_CA_BUNDLE"
        } | {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_address[1]}",
            "AWS_LAMBDA_FUNCTION_NAME": "tidegate-test",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1769",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "LAMBDA_TASK_ROOT": str(self._code),
            "PYTHONPATH": str(self._code),
            **self._variables,
        }
        if self._snapshot:
            environment["AWS_LAMBDA_INITIALIZATION_TYPE"] = "snap-start"
            # Lambda gives credentials by an endpoint instead, since these would expire with the snapshot.
            for name in {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} - set(self._variables):
                del environment[name]
        started = time.perf_counter()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "awslambdaric", self._handler],
                cwd=self._code,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if not self._asked.wait(INIT_TIMEOUT_S):
            self.__exit__(None, None, None)
            raise AssertionError(f"{self._handler} did not start: {self._log.read_text()[-4000:]}")
        self.init_ms = (time.perf_counter() - started) * 1000
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End the process."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait(60)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def pid(self) -> int:
        """The process id of the environment."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What the function printed."""
        return self._log.read_text()

    def restore(self) -> None:
        """Let a process whose snapshot was taken go on, as a restored environment does."""
        self._restored.set()

    def freeze(self) -> None:
        """Stop the process, as Lambda does between invocations."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def invoke(self, event: Any, remaining_ms: int = 30_000, timeout_s: float = 300) -> Any:
        """Invoke the function and return its response.

        Raises:
            FunctionError: it ended with an error.
        """
        invocation = _Invocation(str(uuid.uuid4()), json.dumps(event).encode(), int(time.time() * 1000) + remaining_ms)
        self._pending.put(invocation)
        try:
            kind, body = invocation.answer.get(timeout=timeout_s)
            self.response_bytes = len(body)
        except queue.Empty:
            raise AssertionError(f"no answer within {timeout_s} s: {self.log[-4000:]}") from None
        document = json.loads(body) if body else None
        if kind == "error":
            raise FunctionError(document)
        return document

    def _api(self) -> type[BaseHTTPRequestHandler]:
        environment = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # One packet an answer: else each invocation would wait for a delayed acknowledgement.
            disable_nagle_algorithm = True
            wbufsize = 1 << 16

            def do_GET(self) -> None:
                environment._asked.set()
                if self.path == f"{API}/restore/next":
                    environment._restored.wait()
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    self.wfile.flush()
                    return
                assert self.path == f"{API}/invocation/next", self.path
                invocation = environment._pending.get()
                environment._running[invocation.id] = invocation
                self.send_response(200)
                self.send_header("Lambda-Runtime-Aws-Request-Id", invocation.id)
                self.send_header("Lambda-Runtime-Deadline-Ms", str(invocation.deadline_ms))
                arn = "arn:aws:lambda:us-east-1:123456789012:function:tidegate-test"
                self.send_header("Lambda-Runtime-Invoked-Function-Arn", arn)
                self.send_header("Lambda-Runtime-Trace-Id", environment._trace)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(invocation.event)))
                self.end_headers()
                with contextlib.suppress(OSError):  # the process may be gone
                    self.wfile.write(invocation.event)
                    self.wfile.flush()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                parts = self.path.removeprefix(f"{API}/").split("/")
                if parts[0] == "init":
                    environment._init_error = json.loads(body)
                else:
                    kind = "error" if parts[2] == "error" else "response"
                    environment._running.pop(parts[1]).answer.put((kind, body))
                self.send_response(202)
                self.send_header("Content-Length", "0")
                self.end_headers()
                self.wfile.flush()

            def log_message(self, *_: object) -> None:
                return

        return Handler
