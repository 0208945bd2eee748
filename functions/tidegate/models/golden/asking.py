"""`GoldenRequests` of pushed models: sends a loaded model its golden requests, or a made-up one."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from google.protobuf import json_format

from tidegate.errors import EndpointAnswerError, EndpointTimeoutError, ModelConfigError, StackError
from tidegate.model_layout import CONFIG, SAMPLES
from tidegate.model_units import MAX_PATH_BYTES, is_below
from tidegate.models.closure import read_closure
from tidegate.models.config import is_decoupled, parse_config
from tidegate.models.folder import ModelFolder
from tidegate.models.golden.answers import UNEXPECTED, reason_of, validate_answer
from tidegate.models.golden.requests import GoldenRequest, in_sequence, made_up_request
from tidegate.models.golden.samples import MAX_SAMPLE_BYTES, parse_samples
from tidegate.models.golden.streams import stream_request, validate_stream
from tidegate.models.lint.files import decode_text
from tidegate.models.lint.findings import Report
from tidegate.models.schema import ModelConfig
from tidegate.oip.error_texts import DECOUPLED, ended_stub
from tidegate.ports import (
    Endpoint,
    GoldenOutcome,
    GoldenResult,
    HttpResponse,
    ModelStore,
    SelfTestState,
    Transport,
)
from tidegate.rules import Target
from tidegate.triton.repository import TritonRepository

TIMEOUT_S = 30.0
"""Longest wait for one answer. The first request to a model may be slow."""

MADE_UP_TIMEOUT_S = 10.0
"""Longest wait for the answer to a made-up request, which proves little: a slower model counts as hanging."""

UNTESTED, PASSED, FAILED = SelfTestState

NO_REQUEST = "it has no golden request"
_ADVICE = "write samples/*.json"
_BROKEN = "which a shard agent's self-test takes for a broken server unless another model answers"
_LENIENT = frozenset({"made-up-refused", "output-not-finite"})
"""Kinds of findings that meaningless inputs may cause."""


class StoredGoldenRequests:
    def __init__(self, store: ModelStore, transport: Transport, timeout_s: float = TIMEOUT_S) -> None:
        self._store = store
        self._transport = transport
        self._timeout_s = timeout_s
        # By model and digest, as the config of a model that was never live may be replaced.
        self._configs: dict[tuple[str, str], bytes] = {}

    async def ask(self, endpoint: Endpoint, target: Target) -> GoldenResult:
        samples = await self._store.samples(target.model)
        text = await self._config(target.model)
        if not samples or text is None:
            return await self._ask_made_up(endpoint, target)
        config = _parsed(text, target.model)
        closure = await self._closure(config)
        try:
            requests = await asyncio.to_thread(_read, config, samples, streams=is_decoupled(closure))
        except ModelConfigError as error:
            return _wrong(str(error), UNTESTED)
        for request in requests:
            try:
                http = in_sequence(request, closure).http(target.version)
            except ModelConfigError as error:
                return _wrong(str(error), UNTESTED)
            response = await self._transport.send(endpoint, http, self._timeout_s)
            if _is_decoupled(response):
                try:
                    http = stream_request(config, request, target.version)
                except ModelConfigError as error:
                    return _unasked(str(error))
                response = await self._transport.send(endpoint, http, self._timeout_s)
                findings = validate_stream(config, request, response)
            else:
                findings = validate_answer(config, request, response)
            if findings:
                reason = "; ".join(f"{finding.file}: {finding.message}" for finding in findings)
                # Anyone may have written samples to the bucket, before the version that they are for is live. One that is
                # refused, or answered with other values than it expects, may itself be wrong, on all servers at once.
                is_open = _is_refused(response) or all(finding.kind == UNEXPECTED for finding in findings)
                ended = ended_stub(response.status, response.body)
                return _wrong(reason, UNTESTED if is_open else FAILED, ended)
        return GoldenResult(GoldenOutcome.PROVED, PASSED)

    async def _ask_made_up(self, endpoint: Endpoint, target: Target) -> GoldenResult:
        """Send what can be made of the config that the server has, completed or not. Raises `EndpointError`."""
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
            return _wrong(f"{NO_REQUEST}, and none can be made up from its config: {error}", UNTESTED)
        except EndpointTimeoutError as error:
            # As with a golden request, the server may be wedged by it.
            raise EndpointTimeoutError(
                f"{NO_REQUEST}, and a made-up one was not answered within {limit_s:g} s; {_ADVICE} if it is only slow"
            ) from error
        if _is_decoupled(response):
            return _unproved("and its responses are decoupled, which only a golden request can prove", UNTESTED)
        findings = validate_answer(config, request, response)
        if ended := ended_stub(response.status, response.body):
            reason = f"{NO_REQUEST}, and a made-up one ended its process: {reason_of(response)}"
            return _wrong(reason, FAILED, ended)
        # A 4xx refuses the request, which may be meaningless; a failure of the server is a 5xx.
        refused = _is_refused(response)
        wrong = [finding.message for finding in findings if finding.kind not in _LENIENT]
        if wrong:
            reason = f"{NO_REQUEST}, and a made-up one got {'; '.join(wrong)}"
            return _wrong(reason, UNTESTED if refused else FAILED)
        if findings:
            reason = "; ".join(finding.message for finding in findings)
            shown = PASSED if response.status == 200 else UNTESTED if refused else FAILED
            broken = f", {_BROKEN}" if shown is FAILED else ""
            return _unproved(f"and a made-up one got {reason}{broken}", shown)
        return _unproved("and a made-up one was answered, which proves no value", PASSED)

    async def _served_config(self, endpoint: Endpoint, target: Target) -> ModelConfig | None:
        """Return the config that an endpoint serves a target by; None if it does not give one."""
        repository = TritonRepository(self._transport, endpoint, timeout_s=self._timeout_s)
        try:
            served = await repository.config(target.model, target.version)
            return json_format.ParseDict(served, ModelConfig(), ignore_unknown_fields=True)
        except (StackError, EndpointAnswerError, ValueError, json_format.ParseError):
            return None

    async def _closure(self, config: ModelConfig) -> Sequence[ModelConfig]:
        """Return a config, and the pushed configs of everything that its model calls."""
        found: dict[str, ModelConfig] = {config.name: config}

        async def called(names: Collection[str]) -> list[str]:
            for name in names:
                if name not in found:
                    found[name] = _parsed(await self._config(name), name)
            return [
                step.model_name for name in names for step in found[name].ensemble_scheduling.step if step.model_name
            ]

        await read_closure([config.name], called)
        return tuple(found.values())

    async def _config(self, model: str) -> bytes | None:
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


def _unasked(reason: str) -> GoldenResult:
    advice = "give it inputs of one row with at most one free dimension"
    return GoldenResult(GoldenOutcome.UNPROVED, UNTESTED, f"its responses are decoupled, and {reason}", advice)


def _is_refused(response: HttpResponse) -> bool:
    return 400 <= response.status < 500


def _wrong(reason: str, shown: SelfTestState, ended: str | None = None) -> GoldenResult:
    return GoldenResult(GoldenOutcome.WRONG, shown, reason, ended=ended)


def _unproved(reason: str, shown: SelfTestState) -> GoldenResult:
    return GoldenResult(GoldenOutcome.UNPROVED, shown, f"{NO_REQUEST}, {reason}", _ADVICE)


def _parsed(text: bytes | None, model: str) -> ModelConfig:
    return parse_config(text, model, f"{model}/{CONFIG}")


def _is_decoupled(response: HttpResponse) -> bool:
    return response.status != 200 and DECOUPLED in reason_of(response)


def _read(config: ModelConfig, samples: Mapping[str, bytes], *, streams: bool) -> tuple[GoldenRequest, ...]:
    report, texts = Report(config.name), dict[str, str]()
    for name, content in sorted(samples.items()):
        file = f"{SAMPLES}/{name}"
        if "/" in name or not is_below(name):
            place = f"{config.name}/{SAMPLES}/{name[:MAX_PATH_BYTES]!r}"
            raise ModelConfigError(f"{place} is not a file of golden requests: delete it")
        if len(content) > MAX_SAMPLE_BYTES:
            raise ModelConfigError(f"{config.name}/{file} is larger than {MAX_SAMPLE_BYTES:,} bytes")
        text = decode_text(content, file, report)
        texts |= {} if text is None else {file: text}
    requests = parse_samples(ModelFolder(config.name, config, ()), texts, report, streams=streams)
    if report.findings:
        raise ModelConfigError("\n".join(map(str, report.findings)))
    return requests
