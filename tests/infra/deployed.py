"""Parts of a deployed stage on this machine: Triton as its task definition starts it, and what AWS is asked for on the way."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tidegate.triton.installation import find_installation
from tidegate.triton.server import _free_ports

from infra.assembly import Assembly, Resource, as_list, text_of
from infra.contract import AGENT_READY_PATH
from infra.stacks.shard.servers import SECRET_VARIABLE
from tests.docs.blocks import ROOT
from tests.support.parts import need

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
    ports = _free_ports(3)
    wrapper = folder / "tritonserver"
    wrapper.write_text(
        f'#!/bin/sh\nexec {installation.server} "$@" --backend-directory={installation.backend_directory} '
        "--http-address=127.0.0.1 --grpc-address=127.0.0.1 --metrics-address=127.0.0.1\n"
    )
    wrapper.chmod(0o755)
    for port, free in zip((8000, 8001, 8002), ports, strict=True):
        command = command.replace(f"-port={port}", f"-port={free}")
    command = re.sub(r"s3://\$\{[^}]*\}/models", repository, command)
    environment = installation.environment() | AWS_VARIABLES
    environment |= {"PATH": f"{folder}:{environment['PATH']}", SECRET_VARIABLE: secret}
    log = folder / "triton.log"
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
    (port,) = _free_ports(1)
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


@dataclass(slots=True)
class Asked:
    """What a process asked AWS for: (action, key or prefix in the bucket, "" for a table or a secret)."""

    url: str
    calls: set[tuple[str, str]] = field(default_factory=set)


@contextlib.contextmanager
def recorded_aws(url: str) -> Iterator[Asked]:
    """A proxy before a local AWS that writes down, in the words of IAM, what is asked for."""
    host = urlsplit(url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            asked.calls.add(action_of(self.command, self.path, self.headers.get("x-amz-target", "")))
            connection = http.client.HTTPConnection(host.hostname or "", host.port, timeout=60)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            data = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                    self.send_header(name, value)
            length = answer.getheader("content-length") if self.command == "HEAD" else str(len(data))
            self.send_header("content-length", length or "0")
            self.end_headers()
            self.wfile.write(data)
            connection.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

        def log_message(self, *_arguments: Any) -> None:
            """What was asked is written down; the rest is noise."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    asked = Asked(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def action_of(method: str, path: str, target: str) -> tuple[str, str]:
    """The action of IAM that a request to AWS needs, and the key or prefix in the bucket that it names."""
    if target:
        service, _, operation = target.partition(".")
        return f"{'dynamodb' if service.startswith('DynamoDB') else service}:{operation}", ""
    parts = urlsplit(path)
    query = parse_qs(parts.query)
    _, _, key = parts.path.lstrip("/").partition("/")
    if "list-type" in query:
        return "s3:ListBucket", query["prefix"][0]
    return {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "DELETE": "s3:DeleteObject"}[
        method
    ], key


def refused(calls: set[tuple[str, str]], policy: Resource) -> list[str]:
    """Those of the calls that a role's policy does not allow."""
    allowed = list(_allowed(policy))
    return sorted(
        f"{action} {key}"
        for action, key in calls
        if not any(action == granted and key.startswith(prefix) for granted, prefix in allowed)
    )


def _allowed(policy: Resource) -> Iterator[tuple[str, str]]:
    """(action, beginning of the key) of everything that a policy allows."""
    for statement in policy.properties["PolicyDocument"]["Statement"]:
        if statement["Effect"] != "Allow":
            continue
        for action in as_list(statement["Action"]):
            if action == "s3:ListBucket":
                patterns = statement["Condition"]["StringLikeIfExists"]["s3:prefix"]
                yield from ((action, pattern.removesuffix("*")) for pattern in patterns if pattern.endswith("*"))
            elif action.startswith("s3:"):
                keys = [text_of(each).partition("}/")[2] for each in as_list(statement["Resource"])]
                yield from ((action, key.removesuffix("*")) for key in keys)
            else:
                yield action, ""


def policy_of(assembly: Assembly, beginning: str, template: str) -> Resource:
    """The policy of a role, by the beginnings of its logical id and its template."""
    return next(
        each
        for each in assembly.resources("AWS::IAM::Policy")
        if each.id.startswith(beginning) and each.template.startswith(template)
    )
