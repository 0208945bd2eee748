"""Carrying a decision out: the places of its target, then of its fallbacks, until one answers or the time is over."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, SupportsFloat

from tidegate.client.config import ClientConfig, Protocol
from tidegate.client.exchange import Ask, Reply, Request, Rpc
from tidegate.client.rules import Places
from tidegate.client.tensors import (
    Outputs,
    http_outputs,
    http_request,
    needs_metadata,
    rpc_metadata,
    rpc_metadata_request,
    rpc_outputs,
    rpc_request,
    tensors_of,
)
from tidegate.errors import (
    DeadlineError,
    EndpointError,
    EndpointRefusedError,
    EndpointTimeoutError,
    ModelRefusedError,
    RefusedError,
    UnavailableError,
    malformed,
)
from tidegate.oip.error_texts import reason, unserved_model
from tidegate.oip.metadata import ModelMetadata, read_metadata
from tidegate.oip.parameters import origin_headers, parameter_headers
from tidegate.oip.paths import model_path
from tidegate.rules.contract import Traffic
from tidegate.rules.decision import Decision, Target

ROUTING_HEADER: Final = "Tidegate-Routing-Key"
"""The header that a proxy in front of the shards routes by; its value is the shard."""

METADATA_S: Final = 60.0
DOWN_S: Final = 2.0
"""How long a server that refused a connection, or did not answer in time, is tried after others."""

RETRY_SHARE: Final = 0.2
MOST_RETRIES: Final = 10.0
"""What has been sent may be sent again for a fifth of the requests, and ten saved up: callers must not double the load of servers that are
slow."""

_LEAST_S: Final = 0.001


class Attempt(NamedTuple):
    """A try at one server; `fallback` is 0 for the decision's own target, else the number of the fallback from 1."""

    target: Target
    fallback: int
    shard: str
    address: str


class Inference:
    """A model's answer.

    Attributes:
        decision: the decision of the rules.
        target: the target that answered: the decision's own, or a fallback.
        fallback: 0, or the number of the fallback from 1.
        shard, address: where it answered.
        failures: what was tried before, in words.
    """

    __slots__ = ("_outputs", "address", "decision", "failures", "fallback", "shard", "target")

    def __init__(self, decision: Decision, attempt: Attempt, outputs: Outputs, failures: Sequence[str]) -> None:
        self.decision = decision
        self.target, self.fallback, self.shard, self.address = attempt
        self.failures = tuple(failures)
        self._outputs = outputs

    def __repr__(self) -> str:
        return f"Inference(target={self.target.name!r}, fallback={self.fallback}, shard={self.shard!r}, address={self.address!r})"

    @property
    def outputs(self) -> dict[str, Any]:
        """All outputs by name, as nested lists.

        Raises:
            ModelAnswerError: one is not finite, or not text: see `array`.
        """
        return self._outputs.plain()

    def array(self, name: str) -> Any:
        """Return one output as an array of numpy, without lists in between. Raises `KeyError`: there is no such output."""
        return self._outputs.array(name)


class Caller:
    """The state that a client's calls share: metadata of models, servers that were down, and the retries that are left."""

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._metadata: dict[tuple[str, int | None], tuple[ModelMetadata, float]] = {}
        self._down: dict[str, float] = {}
        self._retries = MOST_RETRIES

    def call(
        self,
        decision: Decision,
        places: Places,
        inputs: Mapping[str, Any],
        timeout_ms: float | None,
        began_s: float,
        traffic: Traffic | None = None,
        caller: str | None = None,
    ) -> Generator[Ask, Reply, Inference]:
        """Steps: try the decision's places in turn. The time counts from `began_s`, by the monotonic clock; `traffic` is None
        where the caller's class is unknown, which the model is then not told.

        Raises:
            DeadlineError: the time passed before a server answered.
            ModelRefusedError: the model answered with an error.
            RefusedError: an input does not fit the model, or the time is none.
            UnavailableError: no server answered, or none is known.
        """
        if not isinstance(inputs, Mapping):
            raise malformed(f"inputs must be a mapping of names to values, not a {type(inputs).__name__}")
        if timeout_ms is not None and not (isinstance(timeout_ms, SupportsFloat) and 0 < timeout_ms < math.inf):
            raise malformed(f"timeout_ms must be a finite number above 0, not {timeout_ms!r}")
        limits = (timeout_ms, decision.timeout_ms)
        limit_ms = min((each for each in limits if each is not None), default=self._config.timeout_ms)
        deadline_s = began_s + limit_ms / 1000
        origin = () if traffic is None else origin_headers(caller, traffic)
        headers = [*parameter_headers(decision.parameters), *origin]
        failures: list[str] = []
        failed: ModelRefusedError | None = None
        left_out: Target | None = None
        self._retries = min(MOST_RETRIES, self._retries + RETRY_SHARE)
        attempts = list(self._attempts(decision, places))
        for number, attempt in enumerate(attempts):
            if attempt.target is left_out:
                continue
            left_s = deadline_s - time.monotonic()
            if left_s <= _LEAST_S:
                break
            # The next target needs time, too.
            limit_s = left_s / 2 if number + 1 < len(attempts) else left_s
            try:
                outputs = yield from self._try(attempt, headers, inputs, limit_s)
            except EndpointError as error:
                failures.append(str(error))
                if isinstance(error, EndpointRefusedError | EndpointTimeoutError):
                    self._down[attempt.address] = time.monotonic() + DOWN_S
                if error.sent and not self._may_retry():
                    break
            except _NotServedError as error:
                failures.append(f"{attempt.address}: {error}")
            except ModelRefusedError as error:
                if error.status != 500:
                    raise
                # The model would fail on its other servers, too.
                failed, left_out = failed or error, attempt.target
                failures.append(f"{attempt.address}: model {attempt.target.model!r} failed")
            else:
                return Inference(decision, attempt, outputs, failures)
        raise self._failure(decision, failures, failed, deadline_s)

    def _failure(
        self, decision: Decision, failures: list[str], failed: ModelRefusedError | None, deadline_s: float
    ) -> Exception:
        if failed is not None:
            return failed
        name = decision.objective
        if deadline_s - time.monotonic() <= _LEAST_S:
            return DeadlineError(f"no target of objective {name!r} answered before the deadline", tuple(failures))
        shards = ", ".join(decision.shards)
        if failures:
            what = f"no server of objective {name!r} answers: shards {shards}; {failures[-1]}"
            return UnavailableError(what, tuple(failures))
        kind = " for gRPC" if self._config.protocol is Protocol.GRPC else ""
        return UnavailableError(
            f"no server of objective {name!r} has a known address{kind}: shards {shards}; where the gateway names none, give shards or proxy"
        )

    def _may_retry(self) -> bool:
        """Take one of the retries of requests that a server may have acted on."""
        if self._retries < 1.0:
            return False
        self._retries -= 1.0
        return True

    def _attempts(self, decision: Decision, places: Places) -> Iterator[Attempt]:
        proxy = self._config.proxy
        now_s = time.monotonic()
        for fallback, target in enumerate((decision.target, *decision.fallbacks)):
            for shard in target.shards:
                found = list(places.get(shard, ())) if proxy is None else [proxy]
                random.shuffle(found)
                found.sort(key=lambda address: self._down.get(address, 0.0) > now_s)
                for address in found:
                    yield Attempt(target, fallback, shard, address)

    def _try(
        self,
        attempt: Attempt,
        headers: Sequence[tuple[bytes, bytes]],
        inputs: Mapping[str, Any],
        limit_s: float,
    ) -> Generator[Ask, Reply, Outputs]:
        target = attempt.target
        began_s = time.monotonic()
        plain = needs_metadata(inputs)
        metadata = (yield from self._metadata_of(attempt, METADATA_S, limit_s)) if plain else None
        try:
            tensors = tensors_of(inputs, metadata)
        except RefusedError:
            if not plain:
                raise
            # The model may have changed since.
            metadata = yield from self._metadata_of(attempt, 0.0, limit_s)
            tensors = tensors_of(inputs, metadata)
        left_s = max(_LEAST_S, limit_s - (time.monotonic() - began_s))
        routed = [] if self._config.proxy is None else [(ROUTING_HEADER, attempt.shard)]
        if self._config.protocol is Protocol.GRPC:
            message = rpc_request(target.model, target.version, headers, tensors)
            reply = yield Rpc(attempt.address, "ModelInfer", message, _lower(routed), left_s)
            _check(reply, target)
            return rpc_outputs(reply.message)
        body, described = http_request(tensors)
        sent = [*described, *((name.decode(), value.decode()) for name, value in headers), *routed]
        path = model_path(target.model, target.version, "/infer")
        reply = yield Request(attempt.address, "POST", path, sent, body, left_s)
        _check(reply, target)
        return http_outputs(reply)

    def _metadata_of(self, attempt: Attempt, most_s: float, limit_s: float) -> Generator[Ask, Reply, ModelMetadata]:
        """Steps: get the metadata of a target's model, unless it is known and at most `most_s` old."""
        target = attempt.target
        key = (target.model, target.version)
        known = self._metadata.get(key)
        now_s = time.monotonic()
        if known is not None and now_s - known[1] < most_s:
            return known[0]
        routed = [] if self._config.proxy is None else [(ROUTING_HEADER, attempt.shard)]
        if self._config.protocol is Protocol.GRPC:
            message = rpc_metadata_request(target.model, target.version)
            reply = yield Rpc(attempt.address, "ModelMetadata", message, _lower(routed), limit_s)
            _check(reply, target)
            metadata = rpc_metadata(reply.message)
        else:
            reply = yield Request(attempt.address, "GET", model_path(*key), routed, timeout_s=limit_s)
            _check(reply, target)
            metadata = read_metadata(reply.status, reply.body, target.model)
        if len(self._metadata) >= 1024:
            self._metadata.clear()
        self._metadata[key] = (metadata, now_s)
        return metadata


def _lower(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    # gRPC's metadata has no capitals.
    return [(name.lower(), value) for name, value in headers]


class _NotServedError(Exception):
    """The server does not serve the model now, or a proxy does not reach it."""


def _check(reply: Reply, target: Target) -> None:
    """Check an answer.

    Raises:
        ModelRefusedError: it is the model's error.
        _NotServedError: another place may serve.
    """
    if reply.status < 400:
        return
    text = reason(reply.body)
    if reply.status in (502, 503, 504) or unserved_model(text) == target.model:
        raise _NotServedError(text[:200])
    raise ModelRefusedError(reply.status, text)
