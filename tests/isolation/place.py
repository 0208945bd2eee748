"""The stack that is attacked: models that do what a request tells them, their rules, and the callers.

Every model is one Python file. What it does is chosen by the first value of `X`, so that one model can end its process,
raise, sleep, answer too much or end its whole server, and is sound for everybody else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from tests.support.processes import listener_pid
from tests.support.stack import RunningStack, eventually
from tests.support.wire import Reply, ask, message

SERVERS = 3
VARIABLES = {
    "TIDEGATE_HUNG_AFTER_S": "5",
    "TIDEGATE_HEADER_TIMEOUT_S": "2",
    "TIDEGATE_BODY_TIMEOUT_S": "2",
    "TIDEGATE_IDLE_TIMEOUT_S": "5",
    "TIDEGATE_MODEL_ERRORS": "redacted",
    "TIDEGATE_MAX_RESPONSE_BYTES": str(16 << 20),
    "TIDEGATE_MAX_BUFFERED_BYTES": str(256 << 20),
}
"""Settings of the stack."""

SLOW_MS = 150
HEDGE_MS = 500
"""When a request to `slow` for the country SE is hedged."""

SECRET_PATH = "/opt/licences/key.pem"
"""In the text of a model's exception, and nowhere else."""


class Order(IntEnum):
    """What a model does: the first value of `X`. The second value is its amount."""

    END_STUB = 777_001
    RAISE = 777_002
    SLEEP_MS = 777_003
    ANSWER_MIB = 777_004
    END_SERVER = 777_005


MODEL = f"""\
import json
import os
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        order, amount = (*x.flatten()[:2].tolist(), 0, 0)[:2]
        if order == {Order.END_STUB:d}:
            os._exit(3)
        if order == {Order.RAISE:d}:
            raise ValueError("no licence in {SECRET_PATH}")
        if order == {Order.END_SERVER:d}:
            os.kill(os.getppid(), 9)
            time.sleep(10)
        time.sleep((amount if order == {Order.SLEEP_MS:d} else SLOW_MS) / 1e3)
        y = np.zeros(int(amount) << 18, np.float32) if order == {Order.ANSWER_MIB:d} else x
        seen = pb_utils.Tensor("PARAMETERS", np.array([request.parameters()], np.object_).reshape(SHAPE))
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", y), seen])
"""

TEXTS = """\
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("COUNT", np.array([len(each)], np.int64))]) for each in inputs]
"""

CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: {batch}
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }}, {{ name: "PARAMETERS" data_type: TYPE_STRING dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
{more}"""

TEXTS_CONFIG = """\
name: "texts"
backend: "python"
max_batch_size: 0
input [ { name: "TEXT" data_type: TYPE_STRING dims: [ -1 ] } ]
output [ { name: "COUNT" data_type: TYPE_INT64 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""

CHAIN = """\
name: "chain"
platform: "ensemble"
max_batch_size: 0
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] } ]
ensemble_scheduling { step [ {
  model_name: "link"
  model_version: 1
  input_map { key: "X" value: "X" }
  output_map { key: "Y" value: "Y" }
} ] }
"""

SHORT_QUEUE = "dynamic_batching { default_queue_policy { max_queue_size: 1 } }\n"
CALLERS = {
    "bystander": {"objectives": ["quiet", "slow"]},
    "attacker": {"objectives": ["chain", "fragile", "queue", "quiet", "slow", "texts"]},
    "stranger": {"objectives": ["slow"]},
    "limited": {"objectives": ["quiet"], "rate_per_s": 20, "burst": 5, "concurrency": 4},
}
SERVED = ("quiet", "chain", "fragile", "queue", "slow", "texts")


def write_models(root: Path) -> Path:
    """Write the model repository."""
    for name, slow_ms in (("quiet", 0), ("link", 0), ("fragile", 0), ("slow", SLOW_MS), ("queue", SLOW_MS)):
        batch = int(name == "queue")
        code = MODEL.replace("SLOW_MS", str(slow_ms)).replace("SHAPE", "(1, 1)" if batch else "(1,)")
        more = SHORT_QUEUE if batch else ""
        _write(root / name, CONFIG.format(name=name, batch=batch, more=more), code, {"X": [0.5]})
    _write(root / "texts", TEXTS_CONFIG, TEXTS, {"TEXT": ["a"]})
    _write(root / "chain", CHAIN, None, {"X": [0.5]})
    return root


def _write(folder: Path, config: str, code: str | None, inputs: dict[str, object]) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config)
    (folder / "1" / ("model.py" if code else ".keep")).write_text(code or "no files\n")
    (folder / "samples").mkdir()
    (folder / "samples" / "a.json").write_text(json.dumps({"inputs": inputs}))


def write_rules(root: Path) -> Path:
    """Write the rules: one shard for everything, an objective for each model, and a fallback for the quiet one."""
    (root / "objectives").mkdir(parents=True)
    models = {name: {"shards": ["a"]} for name in (*SERVED, "link")}
    (root / "fleet.yaml").write_text(json.dumps({"shards": {"a": {"replicas": SERVERS}}, "models": models}))
    (root / "callers.yaml").write_text(json.dumps({"callers": CALLERS}))
    for name in SERVED:
        document = {
            "objective": name,
            "summary": "A test.",
            "owner": "tests",
            "timeout_ms": 10_000,
            "context": {"country": {"type": "string"}, "city": {"type": "string", "from": "header:X-City"}},
            "rules": [{"id": "default", "serve": name, "parameters": {"top_k": 20}}],
        }
        if name == "quiet":
            document["fallback"] = ["link"]
        if name == "slow":
            hedged = {"id": "hedged", "when": {"country": "SE"}, "serve": "slow", "hedge_after_ms": HEDGE_MS}
            document["rules"] = [hedged, *document["rules"]]
        (root / "objectives" / f"{name}.yaml").write_text(json.dumps(document))
    return root


def tensors(values: Sequence[float], **more: object) -> bytes:
    """Return the body of a request to `/v2`; `more` are further members."""
    tensor = {"name": "X", "datatype": "FP32", "shape": [len(values)], "data": list(values)}
    return json.dumps({"inputs": [tensor], **more}).encode()


def infer(
    objective: str, body: bytes | Sequence[float] = (0.5,), caller: str = "attacker", *headers: tuple[str, str]
) -> bytes:
    """Return a complete request to `/v2`."""
    if not isinstance(body, bytes):
        body = tensors(body)
        if objective == "queue":
            body = body.replace(b'"shape": [', b'"shape": [1, ')
    sent = [("Tidegate-Caller", caller), ("Content-Type", "application/json"), *headers]
    return message("POST", f"/v2/models/{objective}/infer", sent, body)


def v1(path: str, body: bytes, caller: str = "attacker", headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """Return a complete request to `/v1`."""
    sent = [("Tidegate-Caller", caller), ("Content-Type", "application/json"), *headers]
    return message("POST", f"/v1/objectives/{path}", sent, body)


@dataclass(frozen=True, slots=True)
class Place:
    """The running stack, as attackers and other callers see it."""

    stack: RunningStack
    port: int

    @property
    def gateway_pid(self) -> int:
        """The gateway's process."""
        return listener_pid(self.port)

    def server_pids(self) -> set[int]:
        """The processes of the Triton servers."""
        return {server.pid for server in self.stack.servers()}

    def ask(self, data: bytes) -> Reply:
        """Return the answer to a request; fail without one."""
        reply = ask(self.port, data)
        assert reply is not None, "the connection was closed without an answer"
        return reply

    def wait_whole(self) -> None:
        """Wait until every server is ready and every objective answers several times in a row, as before an attack."""
        assert eventually(self.is_full), "a server is missing"
        for objective in SERVED:
            assert eventually(lambda name=objective: self.answers(name)), f"{objective} does not answer"

    def is_full(self) -> bool:
        """Return whether every server is ready."""
        states = [each["state"] for each in self.stack.fleet()["a"]]
        return states == ["ready"] * SERVERS

    def answers(self, objective: str) -> bool:
        """Return whether some requests in a row for an objective are answered; those for the quick ones by nearly every
        server."""
        request = v1("texts/infer", b'{"inputs": {"TEXT": ["a"]}}') if objective == "texts" else infer(objective)
        replies = [ask(self.port, request) for _ in range(1 if objective in ("slow", "queue") else 4 * SERVERS)]
        return all(reply is not None and reply.status == 200 for reply in replies)
