"""Triton's model repository and health endpoints, for one server.

The protocol: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

from tidegate.errors import EndpointAnswerError, EndpointResetError, EndpointTimeoutError, ModelLoadError, StackError
from tidegate.ports import Endpoint, HttpRequest, HttpResponse, ModelLoad, ModelState, Transport
from tidegate.ports.model_units import KEEP

T = TypeVar("T")

POLL_FAILED = "failed to poll from model repository"
"""What Triton answers where it refuses a model's files; why, only its log says."""

JSON = ((b"content-type", b"application/json"),)
MANAGEMENT = "tidegate-management"
"""Key that opens a server's management endpoints with its secret, a header over HTTP."""

RESTRICTED_APIS = ("model-repository", "shared-memory", "trace", "logging")
"""What only the secret opens, over HTTP and gRPC: each lets whoever reaches the port change the server for all callers."""

MOST_REASON = 4_000
"""Characters of a server's own words that are passed on."""

MOST_METADATA_BYTES = 1 << 24
"""Bytes of the reason of a refused load, which gRPC sends as metadata, with up to three for each byte of the text. Of one
that is longer than this side takes, by default 16 KiB, nothing at all is known."""

CHANNEL = (("grpc.max_metadata_size", MOST_METADATA_BYTES), ("grpc.absolute_max_metadata_size", MOST_METADATA_BYTES))

_TRAILING = " \n;"
"""What Triton ends the reasons of several models with."""

_VERSION = re.compile(r"[1-9][0-9]{0,17}")


class ServerLog(Protocol):
    """The log of a server that this process started."""

    def size(self) -> int:
        """Its length now, in bytes."""
        ...

    def text(self, start: int) -> str:
        """What was written from a position on."""
        ...


@dataclass(frozen=True, slots=True)
class TritonRepository:
    """The model repository of one Triton server.

    `timeout_s` bounds every call but the loads, which bring their own; `grpc_port` is the server's gRPC door (None: none).
    `secret` opens the management endpoints of a server that was started with `--http-restricted-api` and
    `--grpc-restricted-protocol` for the key `tidegate-management`. With the server's `log` a refused load says why.

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
        """Whether the server answers at all."""
        return (await self._send("GET", "/v2/health/live")).status == 200

    async def server_ready(self) -> bool:
        """Whether the server takes requests. It says so even while a load hangs."""
        return (await self._send("GET", "/v2/health/ready")).status == 200

    async def model_ready(self, model: str, version: int | None = None) -> bool:
        """Whether a model (a version of it) can be called."""
        return (await self._send("GET", f"{_path(model, version)}/ready")).status == 200

    async def metadata(self, model: str, version: int | None = None) -> Mapping[str, Any]:
        """A loaded model's metadata: its inputs, outputs and versions."""
        return self._read(await self._send("GET", _path(model, version)), "a model's metadata", _object)

    async def config(self, model: str, version: int | None = None) -> Mapping[str, Any]:
        """A loaded model's config, as Triton completed it."""
        return self._read(await self._send("GET", f"{_path(model, version)}/config"), "a model's config", _object)

    async def index(self) -> tuple[ModelState, ...]:
        """Every model in the repository, one entry per version that was ever loaded.

        A model that was not loaded, or was refused, has an entry without version and state.
        """
        response = await self._send("POST", "/v2/repository/index", b"{}")
        return self._read(response, "a repository index", _index)

    async def loaded(self) -> tuple[ModelState, ...]:
        """Every version that is READY, ensembles included, sorted by model.

        It asks for statistics, which Triton answers from memory in under a millisecond and gives for exactly these: a
        version on its way in or out, and an ensemble without one of its steps, is left out. The index lists the bucket
        of the repository instead, some 5 ms for each model in it.
        """
        return self._read(await self._send("GET", "/v2/models/stats"), "statistics of models", _loaded)

    async def finished(self) -> Mapping[str, int]:
        """See `ModelRepository.finished`."""
        return self._read(await self._send("GET", "/v2/models/stats"), "statistics of models", _finished)

    async def load(self, load: ModelLoad, timeout_s: float) -> None:
        """Load a model and wait for it; a loaded model that has not changed costs a few milliseconds.

        It goes through gRPC where the server has it: an HTTP load occupies one of Triton's HTTP threads until it is done,
        and every inference whose connection belongs to that thread waits as long (measured: 10 of 16 connections).

        An ensemble comes with its config alone, as `_folder_of` says.

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
            reason = logged if logged and POLL_FAILED in refusal else refusal
            raise ModelLoadError(load.model, f"Triton refused it: {_shortened(reason.rstrip(_TRAILING))}")

    async def _load_over_http(self, load: ModelLoad, timeout_s: float) -> str | None:
        """None when the model is loaded, else Triton's reason."""
        files = {path: b64encode(content).decode() for path, content in _folder_of(load).items()}
        body = json.dumps({"parameters": {"config": load.config, **files}} if load.config else {}).encode()
        path = f"/v2/repository/models/{quote(load.model, safe='')}/load"
        try:
            response = await self._send("POST", path, body, timeout_s)
        except EndpointTimeoutError as error:
            raise _hung(load, timeout_s) from error
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
                    raise _hung(load, timeout_s) from error
                if error.status() in ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED"):
                    raise EndpointResetError(f"{self.endpoint.url} ended the load: {error.message()}") from error
                return str(error.message())
        return None

    async def unload(self, model: str) -> None:
        """Unload a model; Triton lets the requests that it already has finish. Its steps stay."""
        path = f"/v2/repository/models/{quote(model, safe='')}/unload"
        response = await self._send("POST", path, b"{}")
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
        raise TypeError(f"it is {_kind(value)}, not an object")
    return value


def _index(value: Any) -> tuple[ModelState, ...]:
    return tuple(
        ModelState(
            _text(entry, "name"),
            _version(entry) if entry.get("version") else None,
            _text(entry, "state") if "state" in entry else "",
            _text(entry, "reason") if "reason" in entry else "",
        )
        for entry in map(_object, _list(value))
    )


def _loaded(value: Any) -> tuple[ModelState, ...]:
    entries = _list(_object(value).get("model_stats"))
    return tuple(ModelState(_text(entry, "name"), _version(entry), "READY") for entry in map(_object, entries))


def _finished(value: Any) -> Mapping[str, int]:
    counts: Counter[str] = Counter()
    for entry in map(_object, _list(_object(value).get("model_stats"))):
        stats = _object(entry.get("inference_stats"))
        counts[_text(entry, "name")] += sum(
            int(_object(stats.get(each)).get("count", 0)) for each in ("success", "fail")
        )
    return counts


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"where it has a list of models there is {_kind(value)}")
    return value


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise TypeError(f"the {name} of a model is {_kind(value)}, not text")
    return value


def _version(entry: Mapping[str, Any]) -> int:
    text = _text(entry, "version")
    if not _VERSION.fullmatch(text):
        raise ValueError(f"a model has the version {text[:40]!a}")
    return int(text)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def logged_reason(text: str, model: str) -> str:
    """Why Triton refused a model's files, as its log says it; empty where the log does not."""
    named = re.findall(rf"Poll failed for model directory '{re.escape(model)}': (.*?)\"?$", text, re.MULTILINE)
    parsed = re.findall(r"Error parsing text-format inference\.ModelConfig: (.*)$", text, re.MULTILINE)
    return "; ".join(dict.fromkeys([*named[-1:], *(parsed[-1:] if "text proto" in "".join(named) else [])]))


def _folder_of(load: ModelLoad) -> dict[str, bytes]:
    """Files to load an ensemble with, in place of its folder, which holds nothing but the config: Triton then does not
    ask its repository, which where that is S3 is 66 requests. Empty for what is loaded from its folder."""
    if not load.steps or load.config is None or '"label_filename"' in load.config:
        return {}
    return {f"file:{version}/{KEEP}": b"\n" for version in load.versions}


def _hung(load: ModelLoad, timeout_s: float) -> ModelLoadError:
    return ModelLoadError(load.model, f"did not finish loading within {timeout_s:g} s", hung=True)


def _path(model: str, version: int | None) -> str:
    return f"/v2/models/{quote(model, safe='')}" + ("" if version is None else f"/versions/{version}")


def _reason(response: HttpResponse) -> str:
    try:
        text = str(json.loads(response.body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        text = response.body.decode(errors="replace") or f"status {response.status} without a reason"
    return _shortened(text)


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_REASON else f"{text[:MOST_REASON]} …"
