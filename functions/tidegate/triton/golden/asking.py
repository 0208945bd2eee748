"""Asking a loaded model its golden requests, which were pushed with it, or a made-up one: a `GoldenRequests`."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tidegate.errors import EndpointAnswerError, EndpointTimeoutError, ModelConfigError, StackError
from tidegate.ports import (
    Endpoint,
    GoldenOutcome,
    GoldenResult,
    HttpResponse,
    ModelStore,
    SelfTestState,
    Transport,
    ended_stub,
)
from tidegate.ports.model_units import MAX_PATH_BYTES, is_below
from tidegate.rules import Target
from tidegate.triton.checks.findings import ModelFinding
from tidegate.triton.closure import closure
from tidegate.triton.golden.answers import DECOUPLED, UNEXPECTED, reason_of, validate_answer
from tidegate.triton.golden.made_up import made_up_request
from tidegate.triton.golden.requests import GoldenRequest, in_sequence
from tidegate.triton.golden.samples import FOLDER, golden_requests
from tidegate.triton.model_config import CONFIG, parse_config
from tidegate.triton.repository import TritonRepository

TIMEOUT_S = 30.0
"""Longest wait for one answer: the first request of a model may be slow."""

MADE_UP_TIMEOUT_S = 10.0
"""Longest wait for the answer to a made-up request, which proves little: a model that takes longer is taken to hang."""

UNTESTED, PASSED, FAILED = SelfTestState

NO_REQUEST = "it has no golden request"
_ADVICE = "write samples/*.json"
_BROKEN = "which a shard agent's self-test takes for a broken server unless another model answers"
_LENIENT = frozenset({"made-up-refused", "output-not-finite"})
"""Kinds of findings that inputs which mean nothing may well cause."""


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
        # By the digest too: the config of a model that was never live may be replaced.
        self._configs: dict[tuple[str, str], bytes] = {}

    async def ask(self, endpoint: Endpoint, target: Target) -> GoldenResult:
        """See `GoldenRequests.ask`."""
        samples = await self._store.samples(target.model)
        text = await self._config(target.model)
        if not samples or text is None:
            return await self._ask_made_up(endpoint, target)
        config = _parsed(text, target.model)
        try:
            requests = await asyncio.to_thread(_read, target.model, text, samples)
        except ModelConfigError as error:
            return _wrong(str(error), UNTESTED)
        closure = await self._closure(config)
        for request in requests:
            try:
                http = in_sequence(request, closure).http(target.version)
            except ModelConfigError as error:
                return _wrong(str(error), UNTESTED)
            response = await self._transport.send(endpoint, http, self._timeout_s)
            if _is_decoupled(response):
                return _DECOUPLED
            findings = validate_answer(config, request, response)
            if findings:
                reason = "; ".join(f"{finding.file}: {finding.message}" for finding in findings)
                return _wrong(reason, _shown(response, findings), _ended(response))
        return GoldenResult(GoldenOutcome.PROVED, PASSED)

    async def _ask_made_up(self, endpoint: Endpoint, target: Target) -> GoldenResult:
        """Ask what can be made of the config that the server has, completed or not. Raises `EndpointError`."""
        config = await self._served_config(endpoint, target)
        if config is None:
            return _unproved("and the server does not say what it takes", FAILED)
        if not config.input and not config.output:
            return _wrong(
                "the server knows no input and no output of it, so every request fails: declare them in config.pbtxt",
                UNTESTED,
            )
        made_up = made_up_request(target.model, config)
        if made_up is None:
            return _unproved("and its config does not show what to ask", UNTESTED)
        request = in_sequence(made_up, await self._closure(config))
        limit_s = min(MADE_UP_TIMEOUT_S, self._timeout_s)
        try:
            http = request.http(target.version)
            response = await self._transport.send(endpoint, http, limit_s)
        except ModelConfigError as error:
            return _wrong(f"{NO_REQUEST}; asked what its config says, {error}", UNTESTED)
        except EndpointTimeoutError as error:
            # As for a golden request: the server may be wedged by it.
            raise EndpointTimeoutError(
                f"{NO_REQUEST}, and a made-up one was not answered within {limit_s:g} s; {_ADVICE} if it is only slow"
            ) from error
        if _is_decoupled(response):
            return _DECOUPLED
        findings = validate_answer(config, request, response)
        ended = _ended(response)
        if ended:
            reason = f"{NO_REQUEST}, and a made-up one ended its process: {reason_of(response)}"
            return _wrong(reason, FAILED, ended)
        # A 4xx refuses what was sent, which may well mean nothing; a failure of the server's own is a 5xx.
        refused = 400 <= response.status < 500
        wrong = [finding.message for finding in findings if finding.kind not in _LENIENT]
        if wrong:
            reason = f"{NO_REQUEST}; asked what its config says, {'; '.join(wrong)}"
            return _wrong(reason, UNTESTED if refused else FAILED)
        if findings:
            reason = "; ".join(finding.message for finding in findings)
            shown = PASSED if response.status == 200 else UNTESTED if refused else FAILED
            broken = f", {_BROKEN}" if shown is FAILED else ""
            return _unproved(f"and a made-up one got {reason}{broken}", shown)
        return _unproved("and a made-up one was answered, which proves no value", PASSED)

    async def _served_config(self, endpoint: Endpoint, target: Target) -> ModelConfig | None:
        """The config that an endpoint serves a target by; None where it does not say."""
        repository = TritonRepository(self._transport, endpoint, timeout_s=self._timeout_s)
        try:
            served = await repository.config(target.model, target.version)
            return json_format.ParseDict(served, ModelConfig(), ignore_unknown_fields=True)
        except (StackError, EndpointAnswerError, ValueError, json_format.ParseError):
            return None

    async def _closure(self, config: ModelConfig) -> Sequence[ModelConfig]:
        """A config, and the pushed configs of everything that its model calls."""
        found: dict[str, ModelConfig] = {config.name: config}

        async def steps(name: str) -> list[str]:
            if name not in found:
                found[name] = _parsed(await self._config(name), name)
            return [step.model_name for step in found[name].ensemble_scheduling.step]

        await closure([config.name], steps)
        return tuple(found.values())

    async def _config(self, model: str) -> bytes | None:
        """The pushed config of a model; None where there is none (yet)."""
        files = await self._store.files(model, None)
        digest = next((file.sha256 for file in files if file.path == CONFIG), None)
        if digest is None:
            return None
        if (model, digest) not in self._configs:
            text = await self._store.read(model, CONFIG)
            if text is None:
                return None
            self._configs[model, digest] = text
        return self._configs[model, digest]


_DECOUPLED = GoldenResult(
    GoldenOutcome.UNPROVED,
    UNTESTED,
    reason="its responses are decoupled, so that the gateway's infer answers 501; callers resolve it and stream",
    advice="no golden request can prove that: where every target must be proved, serve another model",
)


def _shown(response: HttpResponse, findings: Sequence[ModelFinding]) -> SelfTestState:
    """What a wrong answer to a golden request shows of the server. Golden requests are pushed before the version that they
    are for is live, and anyone may have written to the bucket: one that is refused, or answered with other values than it
    expects, may be what is wrong, on all servers at once."""
    refused = 400 <= response.status < 500
    return UNTESTED if refused or all(finding.kind == UNEXPECTED for finding in findings) else FAILED


def _wrong(reason: str, shown: SelfTestState, ended: str = "") -> GoldenResult:
    return GoldenResult(GoldenOutcome.WRONG, shown, reason, ended=ended)


def _unproved(reason: str, shown: SelfTestState) -> GoldenResult:
    return GoldenResult(GoldenOutcome.UNPROVED, shown, f"{NO_REQUEST}, {reason}", _ADVICE)


def _parsed(text: bytes | None, model: str) -> ModelConfig:
    return parse_config(text, model, f"{model}/{CONFIG}")


def _is_decoupled(response: HttpResponse) -> bool:
    return response.status != 200 and DECOUPLED in reason_of(response)


def _ended(response: HttpResponse) -> str:
    return ended_stub(response.status, response.body) or ""


def _read(model: str, config: bytes, samples: Mapping[str, bytes]) -> tuple[GoldenRequest, ...]:
    with tempfile.TemporaryDirectory(prefix="tidegate-samples-") as folder:
        root = Path(folder) / model
        (root / FOLDER).mkdir(parents=True)
        (root / CONFIG).write_bytes(config)
        for name, content in samples.items():
            if "/" in name or not is_below(name):
                raise ModelConfigError(
                    f"{model}/{FOLDER}/{name[:MAX_PATH_BYTES]!r} is not a file of golden requests: delete it"
                )
            (root / FOLDER / name).write_bytes(content)
        return golden_requests(root)
