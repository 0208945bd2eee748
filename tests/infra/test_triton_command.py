"""The command of the task definition starts the real Triton, which reads S3 and keeps its management to itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest
import tritonclient.grpc as triton
from tidegate.triton.installation import find_installation
from tidegate.triton.repository import MANAGEMENT
from tidegate.triton.server import _free_ports
from tritonclient.utils import InferenceServerException

from infra.stacks.shard.servers import SECRET_VARIABLE
from tests.docs.blocks import ROOT
from tests.infra.conftest import Made
from tests.infra.test_templates import container, text_of
from tests.support.aws import local_server, names

SECRET = "a-secret-of-the-test-0123456789"
MODELS = ROOT / "tests" / "repositories" / "small"


@dataclass(frozen=True, slots=True)
class Triton:
    """The running server, its HTTP and gRPC ports, and what it was started with."""

    http_port: int
    grpc_port: int
    arguments: list[str]

    def ask(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data=body, headers=dict(headers))
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def upload(url: str, bucket: str) -> None:
    client = names(url).s3()
    client.create_bucket(Bucket=bucket)
    for file in sorted((MODELS / "echo_parameters").rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            client.upload_file(str(file), bucket, f"models/{file.relative_to(MODELS)}")


@pytest.fixture(scope="module")
def server(project: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """Triton as the task definition starts it, but for where its parts are on this machine."""
    installation = find_installation(None, None)
    folder = tmp_path_factory.mktemp("triton")
    http_port, grpc_port, metrics_port = _free_ports(3)
    wrapper = folder / "tritonserver"
    wrapper.write_text(
        f'#!/bin/sh\nexec {installation.server} "$@" --backend-directory={installation.backend_directory} '
        "--http-address=127.0.0.1 --grpc-address=127.0.0.1 --metrics-address=127.0.0.1\n"
    )
    wrapper.chmod(0o755)
    command = text_of(container(project.assembly, "triton")["Command"][0])
    for port, free in ((8000, http_port), (8001, grpc_port), (8002, metrics_port)):
        command = command.replace(f"-port={port}", f"-port={free}")
    with local_server() as url:
        upload(url, "models-of-the-test")
        command = re.sub(r"s3://\$\{[^}]*\}", f"s3://{url}/models-of-the-test", command)
        environment = installation.environment()
        environment |= {
            "PATH": f"{folder}:{environment['PATH']}",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
            SECRET_VARIABLE: SECRET,
        }
        log = folder / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["/bin/sh", "-c", command], env=environment, stdout=output, stderr=output, start_new_session=True
            )
        try:
            running = Triton(http_port, grpc_port, command.split())
            wait_ready(running, process, log)
            yield running
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_ready(server: Triton, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            if server.ask("/v2/health/ready")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text(errors="replace")[-3000:])


def test_it_is_alive_with_nothing_loaded(server: Triton) -> None:
    assert server.ask("/v2/health/live")[0] == 200
    assert server.ask("/v2/models/echo_parameters/ready")[0] == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/repository/index", b""),
        ("/v2/repository/models/echo_parameters/load", b"{}"),
        ("/v2/systemsharedmemory/status", None),
        ("/v2/trace/setting", None),
        ("/v2/logging", None),
    ],
)
def test_management_over_http_asks_for_the_secret(server: Triton, path: str, body: bytes | None) -> None:
    for headers in ({}, {MANAGEMENT: "wrong"}):
        status, answer = server.ask(path, body, headers)
        assert status == 403, (status, answer)


def test_management_over_grpc_asks_for_the_secret(server: Triton) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        with pytest.raises(InferenceServerException, match="restricted"):
            client.load_model("echo_parameters")
        with pytest.raises(InferenceServerException, match="restricted"):
            client.get_model_repository_index(headers={f"triton-grpc-protocol-{MANAGEMENT}": "wrong"})


def test_whoever_has_the_secret_loads_from_s3_and_callers_infer(server: Triton) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        client.load_model("echo_parameters", headers={f"triton-grpc-protocol-{MANAGEMENT}": SECRET}, client_timeout=60)
    status, index = server.ask("/v2/repository/index", b"", {MANAGEMENT: SECRET})
    assert status == 200
    assert [(entry["name"], entry["state"]) for entry in json.loads(index)] == [("echo_parameters", "READY")]
    body = {"inputs": [{"name": "INPUT", "datatype": "FP32", "shape": [1], "data": [1.5]}]}
    status, answer = server.ask(
        "/v2/models/echo_parameters/infer", json.dumps(body).encode(), {"Tidegate-Param-top_k": "7"}
    )
    assert status == 200, answer
    assert b"param-top_k" in answer.lower(), "a rule's parameter reaches the model as a header"
