"""Parts of a deployed stage on this machine: Triton as its task definition starts it, and the agent beside it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tidegate.triton.installation import find_installation
from tidegate.triton.server import reserved_ports

from infra.contract import AGENT_READY_PATH, SECRET_VARIABLE
from tests.docs.blocks import ROOT
from tests.support.parts import need
from tests.support.processes import reserve_port

AWS_VARIABLES = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True, slots=True)
class Triton:
    """A running server and its ports."""

    http_port: int
    grpc_port: int
    metrics_port: int

    def ask(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[int, bytes]:
        """The status and the body of an answer; a body makes the request a POST."""
        return ask(f"http://127.0.0.1:{self.http_port}{path}", body, headers)


def ask(url: str, body: bytes | None = None, headers: Mapping[str, str] = MappingProxyType({})) -> tuple[int, bytes]:
    """The status and the body of an answer, whatever the status."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, dict(headers)), timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@contextlib.contextmanager
def deployed_triton(command: str, repository: str, secret: str, folder: Path) -> Iterator[Triton]:
    """Triton as the task definition's `command` starts it, but for where its parts are on this machine.

    `repository` stands in for the stage's bucket, as `s3://http://host:port/bucket/models`.
    """
    need("pytriton")
    installation = find_installation(None, None)
    wrapper = folder / "tritonserver"
    wrapper.write_text(
        f'#!/bin/sh\nexec {installation.server} "$@" --backend-directory={installation.backend_directory} '
        "--http-address=127.0.0.1 --grpc-address=127.0.0.1 --metrics-address=127.0.0.1\n"
    )
    wrapper.chmod(0o755)
    command = re.sub(r"s3://\$\{[^}]*\}/models", repository, command)
    environment = installation.environment() | AWS_VARIABLES
    environment |= {"PATH": f"{folder}:{environment['PATH']}", SECRET_VARIABLE: secret}
    log = folder / "triton.log"
    with reserved_ports(3) as ports:
        for port, free in zip((8000, 8001, 8002), ports, strict=True):
            command = command.replace(f"-port={port}", f"-port={free}")
        with running(["/bin/sh", "-c", command], environment, log) as process:
            server = Triton(*ports)
            wait_for(lambda: server.ask("/v2/health/ready")[0] == 200, process, log)
            yield server


@contextlib.contextmanager
def deployed_agent(
    described: Mapping[str, Any], triton: Triton, secret: str, variables: Mapping[str, str], folder: Path
) -> Iterator[list[int]]:
    """The shard agent beside a server, as the container definition `described` starts it; it is ready. What its health check
    answered until then."""
    port = reserve_port()
    program, *arguments = described["Command"]
    assert program == "python"
    arguments += [f"--http-port={triton.http_port}", f"--grpc-port={triton.grpc_port}", "--host=127.0.0.1"]
    arguments += [f"--metrics-port={triton.metrics_port}", f"--port={port}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    environment |= AWS_VARIABLES | {"PYTHONPATH": str(ROOT / "functions")} | dict(variables)
    environment |= {each["Name"]: secret for each in described["Secrets"]}
    statuses: list[int] = []

    def ready() -> bool:
        statuses.append(ask(f"http://127.0.0.1:{port}{AGENT_READY_PATH}")[0])
        return statuses[-1] == 200

    log = folder / "agent.log"
    with running([sys.executable, *arguments], environment, log) as process:
        wait_for(ready, process, log)
        yield statuses


@contextlib.contextmanager
def running(command: list[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of a group of its own, which is killed in the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for(check: Any, process: subprocess.Popen[bytes], log: Path, timeout_s: float = 120) -> None:
    """Wait until `check` holds; a connection that is refused means not yet."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        with contextlib.suppress(OSError):
            if check():
                return
        time.sleep(0.1)
    raise AssertionError(log.read_text(errors="replace")[-3000:])
