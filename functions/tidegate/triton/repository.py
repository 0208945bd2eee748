"""Triton's model repository and health endpoints, for one server.

The protocol: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar

from tidegate.errors import (
    EndpointAnswerError,
    EndpointResetError,
    EndpointTimeoutError,
    ModelHangsError,
    ModelLoadError,
    StackError,
)
from tidegate.model_layout import KEEP, version_of
from tidegate.oip.error_texts import POLL_FAILED, reason
from tidegate.oip.paths import (
    REPOSITORY_INDEX,
    SERVER_LIVE,
    SERVER_READY,
    STATISTICS,
    load_path,
    model_path,
    unload_path,
)
from tidegate.ports import Endpoint, HttpRequest, HttpResponse, Loaded, ModelLoad, ModelTimes, Transport
from tidegate.strict_json import member

T = TypeVar("T")

JSON = ((b"content-type", b"application/json"),)
MANAGEMENT = "tidegate-management"
"""The restricted-access key of the management endpoints, whose value is the secret; over HTTP it is a header."""

RESTRICTED_APIS = ("model-repository", "shared-memory", "trace", "logging")
"""The APIs that need the secret, over HTTP and gRPC, as each can change the server for all callers."""

MOST_REASON = 4_000
"""Characters of a server's message that are passed on."""

LOG_READ_BYTES = 256 * 1024
MOST_METADATA_BYTES = 1 << 24
"""gRPC sends the reason of a refused load as metadata, with up to three bytes for each byte of the text. A longer reason than
the limit, by default 16 KiB, is lost as a whole."""

CHANNEL = (("grpc.max_metadata_size", MOST_METADATA_BYTES), ("grpc.absolute_max_metadata_size", MOST_METADATA_BYTES))

_TIMED = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
_TRAILING = " \n;"
"""Triton appends these to the reasons of several models."""


@dataclass(frozen=True, slots=True)
class ServerLog:
    """The log of a server that this process started: an unnamed file, which is closed with the server."""

    file: BinaryIO

    def size(self) -> int:
        return 0 if self.file.closed else os.fstat(self.file.fileno()).st_size

    def text(self, start: int) -> str:
        if self.file.closed:
            return ""
        return os.pread(self.file.fileno(), LOG_READ_BYTES, start).decode(errors="replace")


@dataclass(frozen=True, slots=True)
class TritonRepository:
    """A `ModelRepository` over gRPC if the server has a port for it, else over HTTP.

    `timeout_s` bounds every call but loads. `secret` opens the management endpoints of a server that restricts them for the key
    `tidegate-management`. The server's `log` has the reasons of refused loads.

    Every method may raise `EndpointError`: the server could not be reached, did not answer in time, or answered something
    that the protocol does not have (`EndpointAnswerError`).
    """

    transport: Transport
    endpoint: Endpoint
    grpc_port: int | None = None
    timeout_s: float = 5.0
    secret: str | None = field(default=None, repr=False)
    log: ServerLog | None = field(default=None, repr=False)

    async def server_live(self) -> bool:
        """Return whether the server answers."""
        return (await self._send("GET", SERVER_LIVE)).status == 200

    async def server_ready(self) -> bool:
        """Return whether the server is up and no model on it is unloading."""
        return (await self._send("GET", SERVER_READY)).status == 200

    async def model_ready(self, model: str, version: int | None = None) -> bool:
        return (await self._send("GET", model_path(model, version, "/ready"))).status == 200

    async def config(self, model: str, version: int | None = None) -> Mapping[str, Any]:
        """Return a loaded model's config as Triton completed it."""
        return self._read(await self._send("GET", model_path(model, version, "/config")), "a model's config", _object)

    async def unloading(self) -> bool:
        """Return whether a model is being unloaded. It costs a listing of the whole repository."""
        response = await self._send("POST", REPOSITORY_INDEX, b"{}")
        return self._read(response, "a repository index", _unloading)

    async def loaded(self) -> Loaded:
        """See `ModelRepository.loaded`.

        It asks for statistics, which Triton answers from memory in under a millisecond, for exactly the versions that are READY:
        not for one that is being loaded or unloaded, nor for an ensemble without one of its steps. The index lists the bucket
        instead, some 5 ms for each model.
        """
        return self._read(await self._send("GET", STATISTICS), "statistics of models", _loaded)

    async def finished(self) -> Mapping[str, int]:
        return self._read(await self._send("GET", STATISTICS), "statistics of models", _finished)

    async def times(self) -> Mapping[tuple[str, int], ModelTimes]:
        """See `ModelRepository.times`: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md"""
        return self._read(await self._send("GET", STATISTICS), "statistics of models", _times)

    async def load(self, load: ModelLoad, timeout_s: float) -> None:
        """See `ModelRepository.load`; a loaded model that has not changed costs a few milliseconds.

        A load over HTTP occupies one of Triton's HTTP threads until it is done, and blocks every inference whose connection
        belongs to that thread (measured: 10 of 16 connections). So gRPC is preferred.

        Raises:
            ModelLoadError: Triton refused the model, with its reason, or did not finish within `timeout_s` seconds
                (then `hung` is true: the server is wedged and must be replaced).
        """
        start = 0 if self.log is None else self.log.size()
        if self.grpc_port is None:
            refusal = await self._load_over_http(load, timeout_s)
        else:
            refusal = await self._load_over_grpc(f"{self.endpoint.host}:{self.grpc_port}", load, timeout_s)
        if refusal is not None:
            logged = "" if self.log is None else logged_reason(self.log.text(start), load.model)
            why = logged if logged and POLL_FAILED in refusal else refusal
            raise ModelLoadError(load.model, f"Triton refused it: {_shortened(why.rstrip(_TRAILING))}")

    async def _load_over_http(self, load: ModelLoad, timeout_s: float) -> str | None:
        """Return Triton's reason, or None once the model is loaded."""
        files = {path: b64encode(content).decode() for path, content in _folder_of(load).items()}
        body = json.dumps({"parameters": {"config": load.config, **files}} if load.config else {}).encode()
        try:
            response = await self._send("POST", load_path(load.model), body, timeout_s)
        except EndpointTimeoutError as error:
            raise ModelHangsError(load.model, timeout_s) from error
        return None if response.status == 200 else _reason(response)

    async def _load_over_grpc(self, address: str, load: ModelLoad, timeout_s: float) -> str | None:
        from tritonclient.grpc.aio import InferenceServerClient
        from tritonclient.utils import InferenceServerException

        headers = {f"triton-grpc-protocol-{MANAGEMENT}": self.secret} if self.secret else None
        async with InferenceServerClient(address, channel_args=CHANNEL) as client:
            try:
                await client.load_model(
                    load.model, headers, config=load.config, files=_folder_of(load), client_timeout=timeout_s
                )
            except InferenceServerException as error:
                if error.status() == "StatusCode.DEADLINE_EXCEEDED":
                    raise ModelHangsError(load.model, timeout_s) from error
                if error.status() in ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED"):
                    raise EndpointResetError(f"{self.endpoint.url} ended the load: {error.message()}") from error
                return str(error.message())
        return None

    async def unload(self, model: str) -> None:
        """Unload a model, but not its steps; requests under way finish."""
        response = await self._send("POST", unload_path(model), b"{}")
        if response.status != 200:
            raise StackError(f"{self.endpoint.url} refused to unload {model!r}: {_reason(response)}")

    async def _send(self, method: str, path: str, body: bytes = b"", timeout_s: float | None = None) -> HttpResponse:
        secret = ((MANAGEMENT.encode(), self.secret.encode()),) if self.secret else ()
        request = HttpRequest(method, path, (*(JSON if body else ()), *secret), body)
        return await self.transport.send(self.endpoint, request, self.timeout_s if timeout_s is None else timeout_s)

    def _read(self, response: HttpResponse, what: str, read: Callable[[Any], T]) -> T:
        if response.status != 200:
            raise StackError(f"{self.endpoint.url} answered {response.status}: {_reason(response)}")
        try:
            return read(json.loads(response.body))
        # RecursionError: nested deeper than Python parses.
        except (ValueError, TypeError, RecursionError) as error:
            raise EndpointAnswerError(f"{self.endpoint.url} answered no {what}: {error}") from error


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"it is a {type(value).__name__}, not an object")
    return value


def _unloading(value: Any) -> bool:
    return any(_object(entry).get("state") == "UNLOADING" for entry in value)


def _loaded(value: Any) -> Loaded:
    versions: dict[str, set[int]] = {}
    for entry in member(value, "model_stats", list):
        versions.setdefault(member(entry, "name", str), set()).add(_version(entry))
    return {model: frozenset(found) for model, found in versions.items()}


def _finished(value: Any) -> Mapping[str, int]:
    counts: Counter[str] = Counter()
    for entry in member(value, "model_stats", list):
        stats = member(entry, "inference_stats", dict)
        counts[member(entry, "name", str)] += sum(
            int(member(stats, each, dict).get("count", 0)) for each in ("success", "fail")
        )
    return counts


def _times(value: Any) -> Mapping[tuple[str, int], ModelTimes]:
    found = {}
    for entry in member(value, "model_stats", list):
        stats = member(entry, "inference_stats", dict)
        total, failed, queue, *computed = (member(stats, name, dict) for name in _TIMED)
        found[member(entry, "name", str), _version(entry)] = ModelTimes(
            _whole(total, "count"),
            _whole(total, "ns"),
            _whole(queue, "ns"),
            _whole(failed, "count"),
            _whole(entry, "execution_count"),
            *(_whole(each, "ns") for each in computed),
        )
    return found


def _version(entry: Any) -> int:
    version = version_of(member(entry, "version", str))
    if version is None:
        raise ValueError(f"a model has the version {entry['version'][:40]!a}")
    return version


def _whole(value: Any, name: str) -> int:
    return int(value.get(name, 0))


def logged_reason(text: str, model: str) -> str:
    """Return the reason in a log why Triton refused a model's files, or an empty text."""
    named = re.findall(rf"Poll failed for model directory '{re.escape(model)}': (.*?)\"?$", text, re.MULTILINE)
    parsed = re.findall(r"Error parsing text-format inference\.ModelConfig: (.*)$", text, re.MULTILINE)
    return "; ".join(dict.fromkeys([*named[-1:], *(parsed[-1:] if "text proto" in "".join(named) else [])]))


def _folder_of(load: ModelLoad) -> dict[str, bytes]:
    """Return the files of an ensemble, whose folder has nothing but the config, so that Triton does not read its repository, which
    takes 66 requests to S3. Other models, for which nothing is returned, are loaded from their folders."""
    if not load.steps or load.config is None or '"label_filename"' in load.config:
        return {}
    return {f"file:{version}/{KEEP}": b"\n" for version in load.versions}


def _reason(response: HttpResponse) -> str:
    return _shortened(reason(response.body) or f"status {response.status} without a reason")


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_REASON else f"{text[:MOST_REASON]} …"
