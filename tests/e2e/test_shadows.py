"""Shadows on a running stack with a real Triton: they are sent, marked and compared, and whatever they do, callers see nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.objects import Objects
from tidegate.aws.shadow_tallies import S3ShadowTallies
from tidegate.shadows.pair_tally import PairTally

from tests.support.model_folders import write_model
from tests.support.processes import children_running
from tests.support.stack import RunningStack, eventually, running_stack, write_rules

MODEL = '''"""Adds a number, notes the traffic class of each request, and takes its time for shadows."""

import json
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            traffic = json.loads(request.parameters() or "{}").get("Tidegate-Param-tidegate_traffic", "validation")
            time.sleep(SLEEP_S if traffic == "shadow" else 0)
            values = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            with Path("NOTES").open("a") as notes:
                notes.write(traffic + "\\n")
            output = pb_utils.Tensor("Y", (values + np.float32(ADDED)).astype(np.float32))
            responses.append(pb_utils.InferenceResponse([output]))
        return responses
'''
CONFIG = """backend: "python"
max_batch_size: 0
input [{ name: "X" data_type: TYPE_FP32 dims: [ -1 ] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""
RULES = [
    {"id": "stuck", "when": {"country": "SE"}, "serve": "base", "shadow": {"stuck": 100}},
    {"id": "rest", "serve": "base", "shadow": {"ahead": 100}},
]
SMALL = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}]}


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, notes: Path) -> Iterator[RunningStack]:
    models = tmp_path_factory.mktemp("models")
    for name, added, sleep_s in (("base", 0.0, 0.0), ("ahead", 0.5, 0.0), ("stuck", 0.0, 3600.0)):
        text = MODEL.replace("ADDED", str(added)).replace("SLEEP_S", str(sleep_s)).replace("NOTES", str(notes / name))
        write_model(models / name, {"config.pbtxt": CONFIG.encode(), "1/model.py": text.encode()})
    placement = {name: ["a"] for name in ("base", "ahead", "stuck")}
    rules = write_rules(tmp_path_factory.mktemp("rules"), {"a": 1}, placement, main=json.dumps(RULES))
    log = tmp_path_factory.mktemp("log") / "errors"
    limits = {"TIDEGATE_SHADOW_TIMEOUT_MS": "3000", "TIDEGATE_SHADOW_IN_FLIGHT": "2", "TIDEGATE_SHADOW_WAITING": "32"}
    with running_stack(rules, models, log, "--grpc-port", "0", variables=limits) as running:
        yield running


def ask(stack: RunningStack, **context: str) -> None:
    """Ask once; whatever its shadow does, the answer is the primary's."""
    status, answer = stack.post("/v2/models/main/infer", SMALL, {"Tidegate-Context": json.dumps(context)})
    assert (status, answer["model_name"], answer["outputs"][0]["data"]) == (200, "base", [1.0, 2.0])


def counted(stack: RunningStack) -> dict[str, Any]:
    shown: dict[str, Any] = stack.get("/v1/fleet")["gateway"]["shadows"]
    return shown


def traffic(notes: Path, model: str) -> list[str]:
    """The traffic class of every request through the gateway that a model got."""
    noted = notes / model
    return [each for each in noted.read_text().split() if each != "validation"] if noted.exists() else []


def tallied(stack: RunningStack, shadow: str) -> PairTally | None:
    control = stack.get("/v1/fleet")["control"]
    config = AwsConfig(endpoint_url=control["endpoint_url"], region=control["region"])
    store = S3ShadowTallies(Objects(AwsClients(config), control["bucket"]))
    tallies = asyncio.run(store.read(time.time() - 3600)).tallies
    return next((tally for pair, tally in tallies.pairs.items() if pair.shadow == shadow), None)


def test_every_request_is_copied_marked_and_compared(stack: RunningStack, notes: Path) -> None:
    answered, noted = counted(stack)["answered"], {model: traffic(notes, model) for model in ("ahead", "base")}
    tally = tallied(stack, "ahead")
    compared = 0 if tally is None else tally.compared
    for _ in range(20):
        ask(stack, country="DE")
    assert eventually(lambda: counted(stack)["answered"] == answered + 20), (counted(stack), stack.errors)
    assert traffic(notes, "ahead") == noted["ahead"] + ["shadow"] * 20
    assert traffic(notes, "base") == noted["base"] + ["real"] * 20
    assert eventually(lambda: (found := tallied(stack, "ahead")) is not None and found.compared == compared + 20)
    tally = tallied(stack, "ahead")
    assert tally is not None
    assert (tally.pair.objective, tally.pair.rule, tally.pair.primary) == ("main", "rest", "base")
    assert (tally.identical, tally.dropped, tally.shadow_failed) == (0, {}, {})
    assert tally.outputs["Y"].absolute.quantile(0.5) == pytest.approx(0.5, rel=0.05)


def test_requests_over_grpc_are_copied_marked_and_compared(stack: RunningStack, notes: Path) -> None:
    noted, tally = traffic(notes, "ahead"), tallied(stack, "ahead")
    compared = 0 if tally is None else tally.compared
    values = np.array([1.0, 2.0], np.float32)
    given = triton.InferInput("X", [2], "FP32")
    given.set_data_from_numpy(values)
    with triton.InferenceServerClient(stack.get("/v1/fleet")["gateway"]["grpc"]) as client:
        for _ in range(20):
            answer = client.infer("main", [given], headers={"tidegate-context": '{"country": "DE"}'})
            assert answer.as_numpy("Y").tolist() == values.tolist()
    assert eventually(lambda: (found := tallied(stack, "ahead")) is not None and found.compared == compared + 20), (
        counted(stack),
        stack.errors,
    )
    assert traffic(notes, "ahead") == noted + ["shadow"] * 20
    tally = tallied(stack, "ahead")
    assert tally is not None
    assert (tally.identical, tally.shadow_failed, tally.left_out) == (0, {}, {})
    assert tally.outputs["Y"].absolute.quantile(0.5) == pytest.approx(0.5, rel=0.05)


def test_a_shadow_that_hangs_is_bounded(stack: RunningStack) -> None:
    """How much it holds up callers, `python -m bench.shadows` measures."""
    before = counted(stack)
    for _ in range(100):
        ask(stack, country="SE")

    def ended() -> tuple[int, int]:
        """How many were dropped, and how many timed out."""
        now = counted(stack)
        return (
            sum(now["dropped"].values()) - sum(before["dropped"].values()),
            now["failed"].get("timeout", 0) - before["failed"].get("timeout", 0),
        )

    assert eventually(lambda: sum(ended()) == 100), counted(stack)
    assert counted(stack)["sampled"] == before["sampled"] + 100
    # Two at a time, each of which counts for six seconds; after three failures none for a while.
    assert 2 <= ended()[1] < 50
    # The report of the pair has every one, also those of which the gateway made no copy.
    assert eventually(
        lambda: (found := tallied(stack, "stuck")) is not None and (found.sampled, found.missing) == (100, 0)
    ), counted(stack)
    tally = tallied(stack, "stuck")
    assert tally is not None
    assert sum(tally.dropped.values()) == ended()[0]
    assert (tally.sent, tally.shadow_failed) == (ended()[1], {"timeout": ended()[1]})


def test_the_process_that_sends_them_may_end(stack: RunningStack) -> None:
    ask(stack, country="DE")
    (process,) = eventually(lambda: shadow_processes(stack))
    os.kill(process, signal.SIGKILL)
    before = counted(stack)["answered"]

    def is_answered_again() -> bool:
        ask(stack, country="DE")
        return bool(counted(stack)["answered"] > before)

    assert eventually(is_answered_again)
    (other,) = shadow_processes(stack)
    assert other != process


def shadow_processes(stack: RunningStack) -> list[int]:
    return children_running("tidegate.bootstrap.shadow_process", stack.get("/v1/fleet")["gateway"]["pid"])
