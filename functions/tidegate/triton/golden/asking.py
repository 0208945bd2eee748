"""Asking a loaded model its golden requests, which were pushed with it: a `GoldenRequests`."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tidegate.errors import ModelConfigError
from tidegate.ports import Endpoint, ModelStore, Transport
from tidegate.rules import Target
from tidegate.triton.golden.answers import validate_answer
from tidegate.triton.golden.requests import GoldenRequest
from tidegate.triton.golden.samples import FOLDER, golden_requests
from tidegate.triton.model_config import CONFIG, parse_config

TIMEOUT_S = 30.0
"""Longest wait for one answer: the first request of a model may be slow."""


class StoredGoldenRequests:
    """The golden requests of pushed models.

    Args:
        store: holds configs and samples.
        transport: reaches the endpoints.
        timeout_s: longest wait for one answer, in seconds.
    """

    def __init__(self, store: ModelStore, transport: Transport, timeout_s: float = TIMEOUT_S) -> None:
        self._store = store
        self._transport = transport
        self._timeout_s = timeout_s

    async def failure(self, endpoint: Endpoint, target: Target) -> str:
        """See `GoldenRequests.failure`."""
        samples = await self._store.samples(target.model)
        text = await self._store.read(target.model, CONFIG)
        if not samples or text is None:
            return ""
        config = parse_config(text, target.model, f"{target.model}/{CONFIG}")
        try:
            requests = await asyncio.to_thread(_read, target.model, text, samples)
        except ModelConfigError as error:
            return str(error)
        for request in requests:
            response = await self._transport.send(endpoint, request.http(target.version), self._timeout_s)
            findings = validate_answer(config, request, response)
            if findings:
                return "; ".join(f"{finding.file}: {finding.message}" for finding in findings)
        return ""


def _read(model: str, config: bytes, samples: Mapping[str, bytes]) -> tuple[GoldenRequest, ...]:
    with tempfile.TemporaryDirectory(prefix="tidegate-samples-") as folder:
        root = Path(folder) / model
        (root / FOLDER).mkdir(parents=True)
        (root / CONFIG).write_bytes(config)
        for name, content in samples.items():
            (root / FOLDER / Path(name).name).write_bytes(content)
        return golden_requests(root)
