"""The stack that is harmed: two shards of two servers, and an objective whose fallback lives on the other shard."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tidegate.aws.clients import AwsClients, AwsConfig

from tests.support.processes import PROC, pids
from tests.support.quiet_client import SERIAL, QuietClient, quiet_client
from tests.support.stack import RunningStack, eventually, running_stack
from tests.support.wire import ask, message

PREFERRED = "worker"
FALLBACK = "spare"
REPLICAS = {"a": 2, "b": 2}
SLEEP_S = 3.0
TIMEOUT_MS = 4000
VARIABLES = {
    "TIDEGATE_RECONCILE_INTERVAL_S": "2",
    "TIDEGATE_HUNG_AFTER_S": "5",
    # What a revision does not need is unloaded soon: a request that comes too late would fail.
    "TIDEGATE_KEEP_REVISIONS": "0",
    "TIDEGATE_DRAIN_TIMEOUT_S": "2",
}

PER_S = 50
CONNECTIONS = 16
"""Enough that requests go on at their rate while some of them wait for a time-out."""

CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: 0
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ -1 ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ -1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
parameters {{ key: "mode" value {{ string_value: "{mode}" }} }}
"""

# It reads its mode at every request, so that it can be broken and repaired without a load.
MODEL = f"""\
import json
import os
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.mode = Path(json.loads(args["model_config"])["parameters"]["mode"]["string_value"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
        mode = self.mode.read_text()
        if mode == "sleep":
            time.sleep({SLEEP_S})
        if mode == "exit":
            os._exit(3)
        if mode == "error":
            raise RuntimeError("broken")
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", x * np.float32("nan") if mode == "nan" else x)])
"""


@dataclass(frozen=True, slots=True)
class Place:
    """The running stack, what can be done to it, and where its files are."""

    stack: RunningStack
    root: Path

    @property
    def port(self) -> int:
        """The gateway's port."""
        port = urlsplit(self.stack.url).port
        assert port is not None
        return port

    @contextmanager
    def callers(self) -> Iterator[Sequence[QuietClient]]:
        """Send requests at a constant rate for as long as the block lasts."""
        with quiet_client(self.port, request(), per_s=PER_S, connections=CONNECTIONS) as client:
            yield [client]

    def servers(self, shard: str) -> list[int]:
        """Return the processes of a shard's servers that are ready."""
        return [each["pid"] for each in self.stack.fleet()[shard] if each["state"] == "ready"]

    def signal(self, servers: list[int], number: signal.Signals) -> None:
        """Send a signal to servers, and to the processes of their models."""
        for pid in servers:
            os.killpg(pid, number)

    def wait_ready(self, shards: Mapping[str, int] = REPLICAS, but: frozenset[int] = frozenset()) -> float:
        """Wait until that many servers of each shard are ready, the processes in `but` not counted. Return when, in seconds of
        the monotonic clock."""

        def ready() -> bool:
            return all(len(set(self.servers(shard)) - but) >= count for shard, count in shards.items())

        assert eventually(ready, most_s=0.2), f"servers are missing: {self.stack.fleet()}"
        return time.monotonic()

    def wait_served(self) -> float:
        """Wait until a server of the preferred model, asked directly, answers. Return when."""
        data = request().replace(b"/chaos/", f"/{PREFERRED}/".encode())
        ports = [urlsplit(each["url"]).port or 0 for each in self.stack.fleet()["a"]]

        def served() -> bool:
            return any((reply := ask(port, data)) is not None and reply.status == 200 for port in ports)

        assert eventually(served, most_s=0.1), "no server answers"
        return time.monotonic()

    def set_mode(self, mode: str) -> None:
        """Set what the preferred model does."""
        draft = self.root / "mode.draft"
        draft.write_text(mode)
        draft.replace(self.root / "mode")

    def set_clock(self, offset_s: float) -> None:
        """Shift the wall clock of Tidegate's processes."""
        (self.root / "clock").write_text(f"{offset_s:<31}")

    def revision(self) -> str:
        """Return the live revision of the rules."""
        return str(self.stack.get("/v1/fleet")["revision"])

    def is_live_after(self, revision: str) -> bool:
        """Return whether another revision is live than that one."""
        return self.revision() != revision

    def store(self) -> int:
        """Return the process of the local S3 and DynamoDB."""
        parent = f" {self.stack.process.pid} "
        for pid in pids():
            try:
                command = (PROC / str(pid) / "cmdline").read_text(errors="replace")
                if "tidegate.aws.local_server" in command and parent in (PROC / str(pid) / "stat").read_text():
                    return pid
            except OSError:
                continue
        raise AssertionError("the stack has no local store")

    def bucket(self) -> tuple[Any, str]:
        """Return a client of the stack's S3, and its bucket."""
        control = self.stack.get("/v1/fleet")["control"]
        clients = AwsClients(AwsConfig(endpoint_url=control["endpoint_url"], region="us-east-1"))
        return clients.client("s3"), control["bucket"]

    def answers(self) -> bool:
        """Return whether the preferred model answers on every server, as far as some requests in a row show."""
        replies = [ask(self.port, request()) for _ in range(3 * REPLICAS["a"])]
        return all(
            reply is not None and reply.status == 200 and reply.headers.get("tidegate-model") == PREFERRED
            for reply in replies
        )

    def wait_whole(self) -> None:
        """Wait until nothing is left of an earlier harm."""
        self.wait_ready()
        assert eventually(self.answers, most_s=0.2), "the preferred model does not answer"


def request() -> bytes:
    """Return the request of every caller, in bytes; no two have the same id."""
    body = {"id": SERIAL.decode(), "inputs": [{"name": "X", "datatype": "FP32", "shape": [1], "data": [0.5]}]}
    return message("POST", "/v2/models/chaos/infer", [("Content-Type", "application/json")], json.dumps(body).encode())


def write_rules(
    folder: Path,
    top_k: int = 0,
    shards: Mapping[str, int] = REPLICAS,
    worker: Sequence[str] = ("a",),
    spare: Sequence[str] = ("b",),
    **members: Any,
) -> Path:
    """Write the rules.

    Args:
        folder: gets them.
        top_k: makes another revision of them.
        shards: the number of servers of each.
        worker: the shards of the preferred model.
        spare: those of the fallback.
        members: further ones of the objective's file.
    """
    (folder / "objectives").mkdir(parents=True, exist_ok=True)
    fleet = {
        "shards": {name: {"replicas": count} for name, count in shards.items()},
        "models": {PREFERRED: {"shards": [*worker]}, FALLBACK: {"shards": [*spare]}},
    }
    _replace(folder / "fleet.yaml", fleet)
    objective = {
        "objective": "chaos",
        "summary": "Survives.",
        "owner": "chaos",
        "timeout_ms": TIMEOUT_MS,
        "context": {"country": {"type": "string"}},
        "fallback": [FALLBACK],
        "rules": [{"id": "default", "serve": PREFERRED, "parameters": {"top_k": top_k}}],
        **members,
    }
    _replace(folder / "objectives" / "chaos.yaml", objective)
    return folder


def _replace(file: Path, content: Any) -> None:
    draft = file.with_name(f".{file.name}")
    draft.write_text(json.dumps(content))
    draft.rename(file)


def _write_models(root: Path) -> Path:
    for name, mode in ((PREFERRED, "mode"), (FALLBACK, "sound")):
        folder = root / "models" / name
        (folder / "1").mkdir(parents=True)
        (folder / "samples").mkdir()
        (folder / "config.pbtxt").write_text(CONFIG.format(name=name, mode=root / mode))
        (folder / "1" / "model.py").write_text(MODEL)
        (folder / "samples" / "a.json").write_text(json.dumps({"inputs": {"X": [0.5]}}))
    return root / "models"


@contextmanager
def running_place(root: Path) -> Iterator[Place]:
    """Run the stack for as long as the block lasts, with its files below `root`."""
    (root / "sound").write_text("sound")
    (root / "mode").write_text("sound")
    (root / "clock").write_text("0")
    variables = {
        **VARIABLES,
        "CHAOS_CLOCK": str(root / "clock"),
        "PYTHONPATH": f"{Path(__file__).parents[1] / 'functions'}{os.pathsep}{Path(__file__).parent / 'clock'}",
    }
    rules = write_rules(root / "rules")
    with running_stack(rules, _write_models(root), root / "errors", variables=variables) as stack:
        yield Place(stack, root)
