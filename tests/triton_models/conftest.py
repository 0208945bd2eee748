"""One real Triton with the example models, built where they are not up to date, and the table that they look facts up in."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tidegate.aws.facts import seed_facts
from tidegate.aws.provision import provision_facts
from tidegate.aws.fact_files import find_fact_files
from tidegate.triton.installation import Installation, find_installation
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.support.processes import reserve_port
from tests.support.aws import LocalAws, local_server
from tests.support.examples import ENSEMBLES, MODELS
from tests.support.once import made_once
from tests.support.parts import need

ROOT = Path(__file__).parents[2]
BUILD_TIMEOUT_S = 600
START_TIMEOUT_S = 300
LOAD_TIMEOUT_S = 180
STOP_TIMEOUT_S = 60
FACTS_TIMEOUT_MS = 10_000
"""Far more than a look-up takes here: on a busy machine, an answer without a history would be a wrong one."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running Triton, spoken to with the stock client; `log_path` is its log, `metrics_url` where its metrics are, and
    `grpc_url` where it takes streams of requests."""

    url: str
    client: triton.InferenceServerClient
    log_path: Path = Path(os.devnull)
    metrics_url: str = ""
    grpc_url: str = ""

    def load(self, *models: str) -> None:
        """Load models; raises InferenceServerException where Triton refuses one."""
        for refusal in self.try_to_load(*models).values():
            if refusal is not None:
                raise refusal

    def try_to_load(self, *models: str) -> dict[str, InferenceServerException | None]:
        """Load models at once, and say which were refused."""

        def load(model: str) -> InferenceServerException | None:
            with new_client(self.url) as client:
                try:
                    client.load_model(model)
                except InferenceServerException as error:
                    return error
            return None

        with ThreadPoolExecutor(len(models)) as pool:
            return dict(zip(models, pool.map(load, models), strict=True))

    def infer(
        self,
        model: str,
        inputs: Mapping[str, np.ndarray[Any, Any]],
        parameters: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """The outputs of a call, by name; raises InferenceServerException for any status but 200."""
        sent = []
        for name, array in inputs.items():
            tensor = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            sent.append(tensor)
        result = self.client.infer(model, sent, parameters=dict(parameters or {}), headers=dict(headers or {}))
        return {output["name"]: result.as_numpy(output["name"]) for output in result.get_response()["outputs"]}


def new_client(url: str) -> triton.InferenceServerClient:
    """A client whose calls end, whatever the server does; one per thread."""
    return triton.InferenceServerClient(url, connection_timeout=LOAD_TIMEOUT_S, network_timeout=LOAD_TIMEOUT_S)


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model repository, its artefacts up to date; a build that fails fails the tests, with its own words."""

    need("onnx", "skl2onnx", "sklearn", "threadpoolctl")

    def make(_: Path) -> None:
        command = [sys.executable, "-m", "training", "--out", str(MODELS)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False)
        if done.returncode:
            told = f"the example models' artefacts could not be built:\n{done.stdout}{done.stderr}"
            pytest.fail(told, pytrace=False)

    made_once(tmp_path_factory, "artefacts", make)
    return MODELS


@pytest.fixture(scope="session")
def extra_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second, empty model repository of the server, for tests to put models into."""
    return tmp_path_factory.mktemp("extra_models")


@pytest.fixture(scope="package")
def facts(artefacts: Path) -> Iterator[LocalAws]:
    """A local AWS whose table has the facts of the example models."""
    with local_server() as url:
        aws = LocalAws(url, "", "facts")
        asyncio.run(provision_facts(aws.clients(), aws.table))
        asyncio.run(seed_facts(aws.clients(), aws.table, find_fact_files(artefacts)))
        yield aws


@pytest.fixture(scope="package")
def server(
    artefacts: Path, extra_models: Path, facts: LocalAws, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Triton in EXPLICIT mode with every ensemble loaded."""
    folder = tmp_path_factory.mktemp("triton")
    need("pytriton", "onnxruntime")
    prefix = f"tidegate_test_{uuid.uuid4().hex[:8]}_"
    port, metrics_port, grpc_port = reserve_port(), reserve_port(), reserve_port()
    installation = find_installation(cache_dir=ROOT / ".cache" / "tidegate")
    command = _command(installation, [artefacts, extra_models], prefix, port, metrics_port, grpc_port)
    log_path = folder / "triton.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, env=_environment(installation, facts), stdout=log, stderr=log, start_new_session=True
        )
    url = f"127.0.0.1:{port}"
    client = new_client(url)
    try:
        _await_live(client, process, log_path)
        running = Server(url, client, log_path, f"http://127.0.0.1:{metrics_port}/metrics", f"127.0.0.1:{grpc_port}")
        running.load(*ENSEMBLES)
        yield running
    finally:
        client.close()
        _stop(process)
        for region in Path("/dev/shm").glob(f"{prefix}*"):
            region.unlink(missing_ok=True)


def _command(
    installation: Installation, repositories: list[Path], prefix: str, port: int, metrics_port: int, grpc_port: int
) -> list[str]:
    flags = {
        "backend-directory": installation.backend_directory,
        "backend-config": f"python,shm-region-prefix-name={prefix}",
        "model-control-mode": "explicit",
        "http-address": "127.0.0.1",
        "http-port": port,
        "http-header-forward-pattern": "(?i)tidegate-param-.*",
        "grpc-address": "127.0.0.1",
        "grpc-port": grpc_port,
        "metrics-address": "127.0.0.1",
        "metrics-port": metrics_port,
    }
    paths = [f"--model-repository={path}" for path in repositories]
    return [
        str(installation.server),
        *paths,
        *(f"--{key}={value}" for key, value in flags.items()),
    ]


def _environment(installation: Installation, facts: LocalAws) -> dict[str, str]:
    """Stubs of this environment write no `__pycache__` into the model repository, which would not be clean then."""
    return installation.environment() | {
        "TIDEGATE_FACTS_TABLE": facts.table,
        "TIDEGATE_AWS_ENDPOINT_URL": facts.url,
        "TIDEGATE_FACTS_TIMEOUT_MS": str(FACTS_TIMEOUT_MS),
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }


def _await_live(client: triton.InferenceServerClient, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if client.is_server_live():
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"Triton did not start:\n{log.read_text(errors='replace')[-4000:]}", pytrace=False)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server; its stubs are in its process group and go with it."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_TIMEOUT_S)
