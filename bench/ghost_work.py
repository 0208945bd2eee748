"""What Triton still computes for an abandoned request: counted by a slow model that keeps a journal."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import grpc
from tidegate.ports import Endpoint, ModelLoad
from tidegate.triton.installation import find_installation
from tidegate.triton.server import TritonLauncher, TritonServer
from tidegate.triton.transport import PooledTransport
from tritonclient.grpc import service_pb2, service_pb2_grpc

WORK_MS = 300
"""How long the model takes for a request."""

LEFT_MS = 100
"""When the caller leaves, after it has sent its request."""

AHEAD = 4
"""Requests before one that is queued. Triton hands a few of them on to the model before it has time for them."""

JOURNAL = "TIDEGATE_BENCH_JOURNAL"
TIMES = 3

MODEL = f'''\
import os
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Takes {WORK_MS} ms for each request. It writes to a journal which request it begins, ends, or leaves unfinished."""

    def initialize(self, args):
        self.name = args["model_name"]

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        name = pb_utils.get_input_tensor_by_name(request, "X")
        which = int(name.as_numpy().flat[0])
        self.note("begins", which)
        end = time.monotonic() + {WORK_MS} / 1000
        while time.monotonic() < end:
            time.sleep(0.01)
            if self.name == "attentive" and request.is_cancelled():
                self.note("stops", which)
                return pb_utils.InferenceResponse(error=pb_utils.TritonError("cancelled", pb_utils.TritonError.CANCELLED))
        self.note("ends", which)
        return pb_utils.InferenceResponse([pb_utils.Tensor("Y", name.as_numpy())])

    def note(self, what, which):
        with open(os.environ["{JOURNAL}"], "a") as journal:
            journal.write(f"{{which}} {{self.name}} {{what}}\\n")
'''

CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: {batch}
input [ {{ name: "X" data_type: TYPE_INT32 dims: [ 1 ] }} ]
output [ {{ name: "Y" data_type: TYPE_INT32 dims: [ 1 ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
{more}"""

MODELS = {
    "slow": "",
    "attentive": "",
    "batched": "dynamic_batching {}\n",
    "strict": "dynamic_batching { default_queue_policy {\n"
    "  timeout_action: REJECT default_timeout_microseconds: 10000000 allow_timeout_override: true } }\n",
    "first": "",
    "second": "",
}
"""The models by name, and what their configurations have besides: `attentive` asks whether its request is cancelled, `strict`
heeds a request's `timeout` in its queue, `batched` has a queue without a policy, and `first` and `second` are the steps of the ensemble `both`."""

ENSEMBLE = """\
name: "both"
platform: "ensemble"
max_batch_size: 0
input [ { name: "X" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "Y" data_type: TYPE_INT32 dims: [ 1 ] } ]
ensemble_scheduling { step [
  { model_name: "first" model_version: 1 input_map { key: "X" value: "X" } output_map { key: "Y" value: "between" } },
  { model_name: "second" model_version: 1 input_map { key: "X" value: "between" } output_map { key: "Y" value: "Y" } }
] }
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One way to leave.

    Attributes:
        title: the row in the table.
        model: the model that is asked.
        leave: asks and leaves.
        queued: whether another request occupies the model meanwhile, so that this one waits in Triton's queue.
    """

    title: str
    model: str
    leave: Callable[[TritonServer, str, int], Awaitable[object]]
    queued: bool = False


def run() -> str:
    """Measure, and give the table as Markdown."""
    return asyncio.run(_run())


async def _run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        models, journal = Path(folder, "models"), Path(folder, "journal")
        _write(models)
        journal.touch()
        transport = PooledTransport()
        launcher = TritonLauncher(
            find_installation(), models, transport, lambda: False, variables={JOURNAL: str(journal)}
        )
        server = await launcher.launch("ghost")
        try:
            for name in (*MODELS, "both"):
                await server.repository.load(ModelLoad(name, (1,)), 30.0)
            numbers = itertools.count(1)
            rows = [await _row(server, case, numbers, journal) for case in CASES]
        finally:
            await server.stop()
            await transport.aclose()
    return _report(rows)


def _write(models: Path) -> None:
    for name, more in MODELS.items():
        (models / name / "1").mkdir(parents=True)
        (models / name / "config.pbtxt").write_text(CONFIG.format(name=name, more=more, batch=int("dynamic" in more)))
        (models / name / "1" / "model.py").write_text(MODEL)
    (models / "both" / "1").mkdir(parents=True)
    (models / "both" / "config.pbtxt").write_text(ENSEMBLE)


async def _row(
    server: TritonServer, case: Case, numbers: itertools.count[int], journal: Path
) -> tuple[Case, Counter[str]]:
    """Leave `TIMES` times, and count what the model's journal says of these requests."""
    seen: Counter[str] = Counter()
    for _ in range(TIMES):
        which = next(numbers)
        async with asyncio.TaskGroup() as ahead:
            for _ in range(AHEAD if case.queued else 0):
                ahead.create_task(_exchange(server.endpoint, case.model, next(numbers)))
            await asyncio.sleep(0.05)
            await case.leave(server, case.model, which)
        # One more request, behind the other in the queue: once it is answered, the journal is complete.
        await _exchange(server.endpoint, case.model, next(numbers))
        lines = [line.split() for line in journal.read_text().splitlines()]
        seen.update(f"{model} {what}" for number, model, what in lines if int(number) == which)
    return case, seen


def _shape(model: str) -> list[int]:
    return [1, 1] if "dynamic" in MODELS.get(model, "") else [1]


def _request(model: str, which: int, timeout_us: int | None = None) -> bytes:
    parameters = {} if timeout_us is None else {"parameters": {"timeout": timeout_us}}
    inputs = [{"name": "X", "shape": _shape(model), "datatype": "INT32", "data": [which]}]
    body = json.dumps({"inputs": inputs, **parameters}).encode()
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _exchange(endpoint: Endpoint, model: str, which: int, timeout_us: int | None = None) -> bytes:
    """Ask, and return the head of the answer."""
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    writer.write(_request(model, which, timeout_us))
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return head


async def _close(server: TritonServer, model: str, which: int) -> None:
    _, writer = await asyncio.open_connection(server.endpoint.host, server.endpoint.port)
    writer.write(_request(model, which))
    await asyncio.sleep(LEFT_MS / 1000)
    writer.transport.abort()


async def _close_early(server: TritonServer, model: str, which: int) -> None:
    _, writer = await asyncio.open_connection(server.endpoint.host, server.endpoint.port)
    writer.write(_request(model, which)[:-1])
    await asyncio.sleep(LEFT_MS / 1000)
    writer.transport.abort()


async def _timeout(server: TritonServer, model: str, which: int) -> None:
    await _exchange(server.endpoint, model, which, LEFT_MS * 1000)


async def _cancel(server: TritonServer, model: str, which: int) -> None:
    async with _grpc(server) as stub:
        call = stub.ModelInfer(_message(model, which))
        await asyncio.sleep(LEFT_MS / 1000)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call


async def _deadline(server: TritonServer, model: str, which: int) -> None:
    async with _grpc(server) as stub:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await stub.ModelInfer(_message(model, which), timeout=LEFT_MS / 1000)


@contextlib.asynccontextmanager
async def _grpc(server: TritonServer):  # type: ignore[no-untyped-def]  # the stub has no types
    async with grpc.aio.insecure_channel(f"{server.endpoint.host}:{server.grpc_port}") as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def _message(model: str, which: int) -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name=model)
    tensor = message.inputs.add(name="X", datatype="INT32", shape=_shape(model))
    tensor.contents.int_contents.append(which)
    return message


CASES = (
    Case("HTTP connection closed before the whole body", "slow", _close_early),
    Case("HTTP connection closed while the request is queued", "slow", _close, queued=True),
    Case("… of a dynamic batcher", "batched", _close, queued=True),
    Case("HTTP connection closed while the model computes", "slow", _close),
    Case("… and the model asks `is_cancelled()`", "attentive", _close),
    Case("… in the first step of an ensemble", "both", _close),
    Case("HTTP `timeout` ends in the queue, no queue policy", "batched", _timeout, queued=True),
    Case("HTTP `timeout` ends in the queue, with a queue policy", "strict", _timeout, queued=True),
    Case("HTTP `timeout` ends while the model computes, with a queue policy", "strict", _timeout),
    Case("gRPC call cancelled while the request is queued", "slow", _cancel, queued=True),
    Case("… of a dynamic batcher", "batched", _cancel, queued=True),
    Case("gRPC call cancelled while the model computes", "slow", _cancel),
    Case("… and the model asks `is_cancelled()`", "attentive", _cancel),
    Case("… in the first step of an ensemble", "both", _cancel),
    Case("gRPC deadline ends while the request is queued", "slow", _deadline, queued=True),
    Case("… of a dynamic batcher", "batched", _deadline, queued=True),
    Case("gRPC deadline ends while the model computes", "slow", _deadline),
    Case("… and the model asks `is_cancelled()`", "attentive", _deadline),
)


def _report(rows: list[tuple[Case, Counter[str]]]) -> str:
    lines = ["| a caller leaves | executions begun | of these whole |", "|---|---|---|"]
    for case, seen in rows:
        parts = ("first", "second") if case.model == "both" else (case.model,)
        begun, whole = (
            ", ".join(
                f"{seen[f'{part} {what}']} of {TIMES}" + (f" ({part})" if len(parts) > 1 else "") for part in parts
            )
            for what in ("begins", "ends")
        )
        lines.append(f"| {case.title} | {begun} | {whole} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(run())
