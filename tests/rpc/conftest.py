"""A stack that serves gRPC, and clients of it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2

from tests.support.stack import ROOT, RunningStack, make_repository, running_stack, write_rules

MODELS = ("simple", "echo_parameters", "versioned", "queued", "running_sum")
SERVICE = "/inference.GRPCInferenceService/"

# These tests cancel few requests at a time: see docs/grpc.md.
CANCELS = {"TIDEGATE_CANCEL_RPCS": "true"}

ECHO = """[
  {id: canada, when: {country: CA}, serve: echo_parameters, parameters: {boost: 2}},
  {id: default, serve: echo_parameters}]"""


@dataclass(slots=True)
class RpcStack:
    """A stack that serves gRPC: its own address, and that of its one Triton."""

    stack: RunningStack
    address: str
    triton: str


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RpcStack]:
    folder = tmp_path_factory.mktemp("rpc")
    rules = write_rules(
        folder / "rules",
        {"alpha": 1},
        {name: ["alpha"] for name in (*MODELS, "tally")},
        add="simple",
        echo=ECHO,
        sleepy="versioned/2",
        older="versioned/1",
        queued="queued",
        sum="running_sum",
        count="tally",
        limited="echo_parameters",
    )
    with (rules / "objectives" / "limited.yaml").open("a") as objective:
        objective.write("\nlimits: {rate_per_s: 0.01, burst: 2}\n")
    with (rules / "objectives" / "count.yaml").open("a") as objective:
        objective.write("responses: stream\n")
    models = make_repository(folder / "models", *MODELS)
    shutil.copytree(ROOT / "tests/web/models/tally", models / "tally")
    with running_stack(rules, models, folder / "log", "--grpc-port", "0", variables=CANCELS) as stack:
        address = stack.get("/v1/fleet")["gateway"]["grpc"]
        (server,) = stack.servers()
        line = Path(f"/proc/{server.pid}/cmdline").read_text()
        port = re.search(r"--grpc-port=(\d+)", line)
        assert port is not None
        yield RpcStack(stack, address, f"127.0.0.1:{port[1]}")


def adding(client: Any = triton) -> list[Any]:
    """The inputs of the model `simple`."""
    inputs = [client.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    for each in inputs:
        each.set_data_from_numpy(np.arange(16, dtype=np.int32).reshape(1, 16))
    return inputs


def echo_request(model: str = "echo") -> Any:
    """A request to the model `echo_parameters`."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="INPUT", datatype="FP32", shape=[2])
    request.raw_input_contents.append(np.array([1, 2], np.float32).tobytes())
    return request


def sleepy_request(sleep_ms: int, model: str = "sleepy") -> Any:
    """A request to the model `versioned` or `queued`, which takes `sleep_ms`."""
    request = service_pb2.ModelInferRequest(model_name=model)
    request.inputs.add(name="SLEEP_MS", datatype="INT32", shape=[1] if model == "sleepy" else [1, 1])
    request.raw_input_contents.append(np.array([sleep_ms], np.int32).tobytes())
    return request


def unary(channel: grpc.Channel, method: str) -> Any:
    """What sends serialized messages to a method of the protocol, and gives serialized answers."""
    return channel.unary_unary(f"{SERVICE}{method}")
