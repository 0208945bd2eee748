"""A pushed model with golden requests, and a server that answers them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from google.protobuf import json_format, text_format
from tidegate.errors import EndpointResetError, EndpointTimeoutError
from tidegate.models.golden.asking import StoredGoldenRequests
from tidegate.ports import Done, Endpoint, HttpRequest, HttpResponse
from tidegate.testing import MemoryModelStore
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tests.triton.misbehaving import CONFIG

PLAIN = CONFIG.format(name="asked", batch=8, dims="2", more="")
SAMPLE = {"inputs": {"X": [0.5, 1.5]}}
ANSWER = {"outputs": [{"name": "Y", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}


class Server:
    """A `Transport` to a server that has one model: its config, and one answer to every inference."""

    def __init__(self, config: str, status: int, answer: Any) -> None:
        self.config, self.status, self.answer = config, status, answer
        self.asked: list[HttpRequest] = []
        self.ends = False
        self.stream: HttpResponse | None = None
        self.served: tuple[int, tuple[()], bytes] | None = None

    def hang_up(self, endpoint: Endpoint) -> None:
        """See `Transport.hang_up`."""

    async def send(
        self, endpoint: Endpoint, request: HttpRequest, timeout_s: float, done: Done | None = None
    ) -> HttpResponse:
        """See `Transport.send`."""
        await asyncio.sleep(0)
        if request.path.endswith("/config"):
            if self.served is not None:
                return HttpResponse(*self.served)
            served = json_format.MessageToJson(text_format.Parse(self.config, ModelConfig()))
            return HttpResponse(200, (), served.encode())
        self.asked.append(request)
        if self.ends:
            raise EndpointResetError("the server ended")
        if self.stream is not None and request.path.endswith("/generate_stream"):
            return self.stream
        if self.answer is None:
            raise EndpointTimeoutError("no whole response")
        return HttpResponse(self.status, (), json.dumps(self.answer).encode())

    async def aclose(self) -> None:
        """Nothing is open."""


async def golden_requests(
    folder: Path, server: Server, samples: Any = None, *, store: MemoryModelStore | None = None
) -> StoredGoldenRequests:
    """Push the model of a server, with the golden requests in `samples`."""
    store = store or MemoryModelStore()
    model = folder / "asked"
    (model / "1").mkdir(parents=True)
    (model / "1/model.py").write_text("x = 1\n")
    (model / "config.pbtxt").write_text(server.config)
    if samples is not None:
        (model / "samples").mkdir()
        (model / "samples/a.json").write_text(json.dumps(samples))
    await store.push("asked", model, lambda *_: None)
    return StoredGoldenRequests(store, server)
