"""Sequences of a stateful model on the running stack, by an unmodified client: their server ends, and others join."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules

COUNT = 40
"""By chance all of so many are on one server in one run of 10^12."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    root = tmp_path_factory.mktemp("sequences")
    models = make_repository(root / "models", "running_sum")
    rules = write_rules(root / "rules", {"a": 2}, {"running_sum": ["a"]}, summing="running_sum")
    with running_stack(rules, models, root / "errors", "--grpc-port", "0") as running:
        yield running


def add(client: InferenceServerClient, sequence: int | str, x: int, **flags: bool) -> int:
    tensor = InferInput("X", [1, 1], "INT32")
    tensor.set_data_from_numpy(np.array([[x]], np.int32))
    answer = client.infer("summing", [tensor], sequence_id=sequence, **flags)
    return int(answer.as_numpy("SUM")[0][0])


def test_a_sequence_goes_on_over_grpc_where_it_began_over_http(stack: RunningStack) -> None:
    address = stack.get("/v1/fleet")["gateway"]["grpc"]
    with InferenceServerClient(urlsplit(stack.url).netloc) as client, triton_grpc.InferenceServerClient(address) as rpc:
        for number in range(101, 107):
            tensor = triton_grpc.InferInput("X", [1, 1], "INT32")
            tensor.set_data_from_numpy(np.array([[5]], np.int32))
            assert add(client, number, 1, sequence_start=True) == 1
            answer = rpc.infer("summing", [tensor], sequence_id=number, sequence_end=True)
            assert int(answer.as_numpy("SUM")[0][0]) == 6
            with pytest.raises(InferenceServerException, match="sequence is lost") as lost:
                rpc.infer("summing", [tensor], sequence_id=number)
            assert lost.value.status() == "StatusCode.ABORTED"


def test_sequences_end_with_their_server_alone(stack: RunningStack) -> None:
    with InferenceServerClient(urlsplit(stack.url).netloc) as client:
        for number in range(1, COUNT + 1):
            assert add(client, number, number, sequence_start=True) == number
        killed = stack.fleet()["a"][0]["pid"]
        os.kill(killed, signal.SIGKILL)

        def replaced() -> bool:
            ready = [each["pid"] for each in stack.fleet()["a"] if each["state"] == "ready"]
            return len(ready) == 2 and killed not in ready

        lost = set()
        for number in range(1, COUNT + 1):
            try:
                assert add(client, number, 10) == number + 10
            except InferenceServerException as error:
                assert "409" in str(error.status()), error
                assert "sequence is lost" in str(error)
                lost.add(number)
        assert lost, "no sequence was on that server"
        assert len(lost) < COUNT
        assert eventually(replaced)
        for number in range(1, COUNT + 1):
            if number in lost:
                with pytest.raises(InferenceServerException, match="sequence is lost"):
                    add(client, number, 10)
                assert add(client, number, 1, sequence_start=True) == 1
            else:
                assert add(client, number, 100, sequence_end=True) == number + 110, "the new server took none of them"
