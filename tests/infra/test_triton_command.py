"""The command of the task definition starts the real Triton, which reads S3 and keeps its management to itself."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton_grpc
from tidegate.aws.provision import provision
from tidegate.aws.registry import DynamoRegistry
from tidegate.triton.repository import MANAGEMENT
from tritonclient.utils import InferenceServerException

from infra.contract import AGENT_READY_PATH
from tests.docs.blocks import ROOT
from tests.infra.conftest import Made
from tests.infra.deployed import AWS_VARIABLES, Triton, ask, deployed_agent, deployed_triton, running, wait_for
from tests.infra.test_templates import container, text_of
from tests.support.aws import local_server, names
from tests.support.processes import reserve_port

SECRET = "a-secret-of-the-test-0123456789"
MODELS = ROOT / "tests" / "repositories" / "small"


def upload(url: str, bucket: str) -> None:
    client = names(url).s3()
    client.create_bucket(Bucket=bucket)
    for file in sorted((MODELS / "echo_parameters").rglob("*")):
        if file.is_file() and "__pycache__" not in file.parts:
            client.upload_file(str(file), bucket, f"models/{file.relative_to(MODELS)}")


@pytest.fixture(scope="module")
def server(project: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """Triton over a bucket with one model."""
    command = text_of(container(project.assembly, "triton")["Command"][0])
    with local_server() as url:
        upload(url, "models-of-the-test")
        repository = f"s3://{url}/models-of-the-test/models"
        with deployed_triton(command, repository, SECRET, tmp_path_factory.mktemp("triton")) as running:
            yield running


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
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
        with pytest.raises(InferenceServerException, match="restricted"):
            client.load_model("echo_parameters")
        with pytest.raises(InferenceServerException, match="restricted"):
            client.get_model_repository_index(headers={f"triton-grpc-protocol-{MANAGEMENT}": "wrong"})


def test_whoever_has_the_secret_loads_from_s3_and_callers_infer(server: Triton) -> None:
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as client:
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


def test_a_first_deployment_is_healthy_before_anything_is_published(
    project: Made, server: Triton, tmp_path: Path
) -> None:
    with local_server() as url:
        local = names(url)
        asyncio.run(provision(local.clients(), local.bucket, local.table))
        variables = {
            "TIDEGATE_BUCKET": local.bucket,
            "TIDEGATE_REGISTRY_TABLE": local.table,
            "TIDEGATE_SHARD": "alpha",
            "TIDEGATE_AWS_ENDPOINT_URL": url,
        }
        with deployed_agent(container(project.assembly, "agent"), server, SECRET, variables, tmp_path) as statuses:
            assert statuses[-1] == 200


def test_an_agent_that_is_told_to_end_takes_its_server_out_of_the_registry(server: Triton, tmp_path: Path) -> None:
    port = reserve_port()
    with local_server() as url:
        local = names(url)
        asyncio.run(provision(local.clients(), local.bucket, local.table))
        registry = DynamoRegistry(local.clients(), local.table, 30.0)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        environment |= AWS_VARIABLES | {
            "PYTHONPATH": str(ROOT / "functions"),
            "TIDEGATE_BUCKET": local.bucket,
            "TIDEGATE_REGISTRY_TABLE": local.table,
            "TIDEGATE_SHARD": "alpha",
            "TIDEGATE_AWS_ENDPOINT_URL": url,
            "TIDEGATE_MANAGEMENT_SECRET": SECRET,
        }
        command = [sys.executable, "-m", "tidegate.cli", "shard-agent", "--host=127.0.0.1", f"--port={port}"]
        command += [f"--http-port={server.http_port}", f"--grpc-port={server.grpc_port}"]
        command += [f"--metrics-port={server.metrics_port}"]
        log = tmp_path / "agent.log"
        with running(command, environment, log) as agent:
            wait_for(lambda: ask(f"http://127.0.0.1:{port}{AGENT_READY_PATH}")[0] == 200, agent, log)
            (entry,) = asyncio.run(registry.endpoints())
            assert (entry.endpoint.shard, entry.endpoint.port, entry.state) == ("alpha", server.http_port, "ready")
            agent.terminate()
            assert agent.wait(30) == 0, log.read_text()
            assert "Traceback" not in log.read_text()
            assert not asyncio.run(registry.endpoints()), "no request comes any more"
    assert server.ask("/v2/health/live")[0] == 200, "requests under way end: Triton has a signal of its own"
