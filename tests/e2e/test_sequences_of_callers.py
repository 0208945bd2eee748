"""Sequences of callers that choose the same ids, by unmodified clients over HTTP and gRPC: none reads or spoils another's.

The models keep their state by the id that they read, as models with state of their own do.
"""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from tests.support.stack import RunningStack, eventually, running_stack, write_rules

TYPES = ("UINT64", "INT64", "UINT32", "INT32")
FORMS = ("json", "binary", "gzip", "deflate", "grpc")
CALLERS = {"home": {"objectives": "*", "overrides": ["sum_uint64", "sum_int64"]}, "shop": {"objectives": "*"}}

CONFIG = """
name: "{name}"
backend: "python"
max_batch_size: 8
input [ {{ name: "X" data_type: TYPE_INT32 dims: [ 1 ] }} ]
output [ {{ name: "SUM" data_type: TYPE_INT32 dims: [ 1 ] }}, {{ name: "READ" data_type: TYPE_STRING dims: [ 1 ] }} ]
sequence_batching {{
  oldest {{ max_candidate_sequences: 64 }}
  max_sequence_idle_microseconds: 600000000
  control_input [
    {{ name: "START" control [ {{ kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] }} ] }}{id}
  ]
}}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
"""

ID = """,
    {{ name: "ID" control [ {{ kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_{type} }} ] }}"""

MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        found = [pb_utils.get_input_tensor_by_name(request, each) for each in ("X", "START", "ID")]
        x, start, name = [0 if each is None else int(each.as_numpy().reshape(-1)[0]) for each in found]
        self.sums[name] = int(x) if start else self.sums.get(name, 0) + int(x)
        found = np.array([[self.sums[name]]], np.int32), np.array([[str(name).encode()]], np.object_)
        return pb_utils.InferenceResponse([pb_utils.Tensor(*each) for each in zip(("SUM", "READ"), found)])
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    root = tmp_path_factory.mktemp("private")
    names = [f"sum_{each.lower()}" for each in (*TYPES, "NONE")]
    for name in names:
        folder = root / "models" / name
        (folder / "1").mkdir(parents=True)
        id_control = "" if name == "sum_none" else ID.format(type=name.removeprefix("sum_").upper())
        (folder / "config.pbtxt").write_text(CONFIG.format(name=name, id=id_control))
        (folder / "1" / "model.py").write_text(MODEL)
    objectives = {name.removeprefix("sum_"): name for name in names}
    rules = write_rules(root / "rules", {"a": 2}, {name: ["a"] for name in names}, **objectives, again="sum_uint64")
    (rules / "callers.yaml").write_text(json.dumps({"callers": CALLERS}))
    with running_stack(rules, root / "models", root / "errors", "--grpc-port", "0") as running:
        yield running


class Caller:
    """A caller that sends requests of sequences in one of `FORMS`."""

    def __init__(self, stack: RunningStack, form: str, name: str) -> None:
        self.form = form
        self.name = name
        if form == "grpc":
            self.client: Any = triton_grpc.InferenceServerClient(stack.get("/v1/fleet")["gateway"]["grpc"])
        else:
            self.client = triton_http.InferenceServerClient(urlsplit(stack.url).netloc, network_timeout=60.0)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def add(self, objective: str, sequence_id: int | str, x: int, pin: str = "", **flags: bool) -> tuple[int, str]:
        """Return the sum of the sequence, and the id that the model read."""
        headers = {"tidegate-caller": self.name} | ({"tidegate-override": pin} if pin else {})
        values = np.array([[x]], np.int32)
        options: dict[str, Any] = {}
        if self.form == "grpc":
            tensor = triton_grpc.InferInput("X", [1, 1], "INT32")
            tensor.set_data_from_numpy(values)
        else:
            tensor = triton_http.InferInput("X", [1, 1], "INT32")
            tensor.set_data_from_numpy(values, binary_data=self.form == "binary")
            options = {"request_compression_algorithm": self.form} if self.form in ("gzip", "deflate") else {}
        found = self.client.infer(objective, [tensor], sequence_id=sequence_id, headers=headers, **options, **flags)
        return int(found.as_numpy("SUM")[0][0]), found.as_numpy("READ")[0][0].decode()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("objective", [each.lower() for each in TYPES])
def test_callers_with_one_id_have_sequences_of_their_own(stack: RunningStack, form: str, objective: str) -> None:
    with Caller(stack, form, "home") as home, Caller(stack, form, "shop") as shop:
        for number in range(1, 6):
            first, read = home.add(objective, number, 1, sequence_start=True)
            assert first == 1
            assert 0 < int(read) < 2 ** (63 if objective.endswith("64") else 31)
            with pytest.raises(InferenceServerException, match="the sequence is lost"):
                shop.add(objective, number, 1_000)
            other, other_read = shop.add(objective, number, 100, sequence_start=True)
            assert other == 100
            assert other_read != read
            assert home.add(objective, number, 1) == (2, read)
            assert shop.add(objective, number, 1, sequence_end=True) == (101, other_read)
            assert home.add(objective, number, 1, sequence_end=True) == (3, read)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 20, 36, 128])
def test_a_text_names_a_sequence_of_one_caller_too(stack: RunningStack, form: str, size: int) -> None:
    name = "x" * size
    with Caller(stack, form, "home") as home, Caller(stack, form, "shop") as shop:
        home.add("none", name, 1, sequence_start=True)
        home.add("none", name, 1)
        with pytest.raises(InferenceServerException, match="the sequence is lost"):
            shop.add("none", name, 1)
        shop.add("none", name, 1, sequence_start=True)
        shop.add("none", name, 1, sequence_end=True)
        home.add("none", name, 1, sequence_end=True)
        with pytest.raises(InferenceServerException, match="the sequence is lost"):
            home.add("none", name, 1)


@pytest.mark.parametrize("form", FORMS)
def test_objectives_with_one_model_have_sequences_of_their_own(stack: RunningStack, form: str) -> None:
    with Caller(stack, form, "home") as home:
        assert home.add("uint64", 77, 1, sequence_start=True)[0] == 1
        assert home.add("again", 77, 100, sequence_start=True)[0] == 100
        assert home.add("uint64", 77, 1, sequence_end=True)[0] == 2
        assert home.add("again", 77, 1, sequence_end=True)[0] == 101


@pytest.mark.parametrize("form", FORMS)
def test_a_sequence_keeps_its_target_and_says_so_to_another_pin(stack: RunningStack, form: str) -> None:
    with Caller(stack, form, "home") as home:
        assert home.add("uint32", 88, 1, pin="sum_uint64", sequence_start=True)[0] == 1
        with pytest.raises(InferenceServerException, match="pins 'sum_int64', but its sequence began on") as refused:
            home.add("uint32", 88, 10, pin="sum_int64")
        assert refused.value.status() in ("409", "StatusCode.ABORTED")
        assert home.add("uint32", 88, 1, pin="sum_uint64")[0] == 2
        assert home.add("uint32", 88, 1, sequence_end=True)[0] == 3


@pytest.mark.parametrize("where", ["parameters", "members"])
@pytest.mark.parametrize("action", ["generate", "generate_stream"])
def test_generate_reaches_no_sequence(stack: RunningStack, action: str, where: str) -> None:
    """Triton takes no sequence_id there, so that it needs no other one."""
    sequence = {"sequence_id": 99, "sequence_start": True}
    body = {"X": 1, "parameters": sequence} if where == "parameters" else {"X": 1, **sequence}
    request = urllib.request.Request(
        f"{stack.url}/v2/models/uint64/{action}", json.dumps(body).encode(), {"Tidegate-Caller": "home"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(request, timeout=60):
        pass
    assert "must specify a non-zero or non-empty correlation ID" in json.load(refused.value)["error"]


def test_sequences_go_on_whichever_form_and_whichever_gateway(stack: RunningStack) -> None:
    with Caller(stack, "json", "home") as first, Caller(stack, "grpc", "home") as second:
        for number in range(201, 207):
            assert first.add("uint64", number, 1, sequence_start=True)[0] == 1
            assert second.add("uint64", number, 1)[0] == 2
    gateway = stack.get("/v1/fleet")["gateway"]
    os.kill(gateway["pid"], signal.SIGKILL)

    def replaced() -> bool:
        now = stack.get("/v1/fleet")["gateway"]
        return bool(now["pid"] != gateway["pid"])

    assert eventually(replaced)
    with Caller(stack, "binary", "home") as third, Caller(stack, "gzip", "shop") as stranger:
        for number in range(201, 207):
            with pytest.raises(InferenceServerException, match="the sequence is lost"):
                stranger.add("uint64", number, 1_000)
            assert third.add("uint64", number, 1, sequence_end=True)[0] == 3
