"""The Protocols of a request: the live rules, endpoints, the transport to them, and what is reported of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple, Protocol

from tidegate.byte_budget import ByteLease
from tidegate.rules import Engine, Traffic
from tidegate.rules.decision import Decision, Target
from tidegate.shadows.copy import ShadowCopy
from tidegate.shadows.counts import Drop
from tidegate.shadows.exchange import Pair

Headers = Sequence[tuple[bytes, bytes]]
"""HTTP headers in order, with names in any case."""


class Endpoint(NamedTuple):
    """The HTTP port of one Triton server, and its shard."""

    shard: str
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.url} of shard {self.shard!r}"


class HttpRequest:
    """A request to one endpoint; `path` is percent-encoded.

    `send_once` forbids sending it again when a pooled connection turns out dead. `rest` yields the `rest_bytes` bytes that
    follow `body`; a request that has it is sent once. `apart` asks for a new connection. The body of a successful response of
    more than `stream_above_bytes` bytes is streamed: with 0 that of every one, with None of none.

    `is_rpc` marks a call over gRPC, to the endpoint's port for that: `path` is the method's full name, `headers` are its
    metadata, and `body` is the one serialized message. With `stream_above_bytes`, the method streams; each part of the body of
    its response is a message.
    """

    def __init__(
        self,
        method: str,
        path: str,
        headers: Headers = (),
        body: bytes = b"",
        send_once: bool = False,
        rest: AsyncIterator[bytes] | None = None,
        rest_bytes: int = 0,
        apart: bool = False,
        stream_above_bytes: int | None = None,
        is_rpc: bool = False,
    ) -> None:
        self.method: Final = method
        self.path: Final = path
        self.headers: Final = headers
        self.body: Final = body
        self.send_once: Final = send_once
        self.rest: Final = rest
        self.rest_bytes: Final = rest_bytes
        self.apart: Final = apart
        self.stream_above_bytes: Final = stream_above_bytes
        self.is_rpc: Final = is_rpc


Done = Callable[[float | None], None]
"""Called once, when an endpoint is done with a request: with the seconds until a successful response (if it is streamed, until
its head), else None. Not called for a request that was never sent, as there was no connection for it."""


class AnswerStream(Protocol):
    """The body of a response, as it arrives. Close it, unless it has ended or failed: it holds a connection."""

    async def next(self, within_s: float) -> bytes:
        """Return what has arrived of the body since the last call; nothing once it is complete.

        Raises:
            EndpointTimeoutError: nothing arrived within `within_s` seconds. The stream must be closed.
            EndpointError: the connection ended before the whole body had come.
        """

    def close(self) -> None:
        """Drop the rest of the body. One that has not ended is cut off at once, which Triton takes as a cancellation."""


class HttpResponse:
    """A response: header names in lower case, `body` not decompressed.

    The answer to an RPC has the status that Triton gives the same answer over HTTP, and an error of it the same body; its
    header `grpc-status` is the code (https://grpc.github.io/grpc/core/md_doc_statuscodes.html), without which it succeeded.
    `lease` counts a large body in the gateway's `ByteBudget` while it is referenced. With `stream`, the body is read from that,
    and `body` is empty.
    """

    def __init__(
        self,
        status: int,
        headers: Headers,
        body: bytes,
        lease: ByteLease | None = None,
        stream: AnswerStream | None = None,
    ) -> None:
        self.status: Final = status
        self.headers: Final = headers
        self.body: Final = body
        self.lease: Final = lease
        self.stream: Final = stream

    def with_head(self, status: int, headers: Headers) -> HttpResponse:
        """Return the response with another status and other headers."""
        return HttpResponse(status, headers, self.body, self.lease, self.stream)

    def header(self, name: bytes) -> bytes | None:
        """Return the first value of a header, by its name in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None


class Transport(Protocol):
    async def send(
        self, endpoint: Endpoint, request: HttpRequest, timeout_s: float, done: Done | None = None
    ) -> HttpResponse:
        """Send one request; a pooled connection that is dead before any byte of the response is replaced at once.

        A request whose caller has left (time-out, cancellation) is cut off at once, by which the server learns of it. `done` is
        called before this returns or raises, or when the stream of the response ends.

        Raises:
            EndpointRefusedError: the endpoint refuses connections, or cannot be reached.
            EndpointResetError: the connection ended before the whole response was received.
            EndpointTimeoutError: no whole response within `timeout_s` seconds, or no connection in the time for that.
            EndpointBusyError: no connection was free in time, or responses hold too many bytes together.
            EndpointAnswerTooLargeError: the response is too large.
        """

    def hang_up(self, endpoint: Endpoint) -> None:
        """Fail all requests under way at an endpoint with `EndpointTimeoutError`, as it is known not to answer."""


class SuspectKind(StrEnum):
    DEAD_STUB = "dead-stub"
    """The process of a Python model has ended, and Triton does not start another."""
    HUNG = "hung"
    """The model does not answer in its usual time."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A model on one endpoint that failed for callers; the process that runs the endpoint examines it."""

    endpoint: Endpoint
    model: str
    kind: SuspectKind


class Offload(Protocol):
    """Runs work on large requests in other processes."""

    async def run(self, work: str, *parts: bytes | memoryview) -> bytes:
        """Run the function that is registered under the name `work`. Raises `OverloadedError`: no process is free."""


class ShadowSink(Protocol):
    """Takes copies of requests for shadows, and has them sent: over HTTP, and with `takes_rpcs` over gRPC."""

    takes_rpcs: bool

    def refusal(self, pair: Pair) -> Drop | None:
        """Return why no copy of a pair is taken now, or None, so that none has to be made."""

    def offer(self, copy: ShadowCopy) -> Drop | None:
        """Take a copy, without waiting; return why not, if it is not taken."""


class ShadowPause(NamedTuple):
    """A shadow that failed several times in a row gets no copies until a time in Unix seconds, and then one."""

    failures: int
    until: float


class ShadowPauses(Protocol):
    """The pauses of shadows, by their models, that several processes share. Every method raises `StoreError`."""

    async def pause_of(self, shadow: str) -> ShadowPause | None:
        """Return the pause of a shadow, which may be over; None: it has none."""

    async def pause(self, shadow: str, pause: ShadowPause) -> None:
        """Replace the pause of a shadow."""

    async def try_again(self, shadow: str, pause: ShadowPause, until: float) -> bool:
        """Take the one attempt after a pause, which then lasts `until`; return False if another process took it."""

    async def resume(self, shadow: str) -> None:
        """End the pause of a shadow."""


class EndpointDirectory(Protocol):
    def endpoints(self, shard: str) -> Sequence[Endpoint]:
        """Return the endpoints of a shard that take requests; empty for an unknown shard."""


class EngineSource(Protocol):
    def engine(self) -> Engine:
        """Return the engine of the live bundle; a request asks for it once."""

    def catching_up(self) -> Awaitable[None] | None:
        """Return a bounded wait for newer rules, which a request awaits before it asks for the engine; None if it is recent."""


class FleetStatus(Protocol):
    async def status(self) -> Mapping[str, Any]:
        """Return the fleet as JSON values: see docs/control-plane.md, "Fleet status"."""


class StreamEnd(StrEnum):
    """How an answer ended that was passed on as it arrived."""

    COMPLETE = "complete"
    CALLER_LEFT = "caller-left"
    BROKEN = "broken"
    """The caller got its start, and an error or a closed connection instead of the rest."""


class Hedge(StrEnum):
    """Whose answer the caller got of a request that was hedged."""

    WON = "won"
    """The hedge's."""
    LOST = "lost"
    """The first attempt's."""


class Served:
    """One decided request, its HTTP `status`, its origin, and the target and shard that answered it: never a value of the
    context.

    `decide_ms` includes reading the context, `dispatch_ms` is all after it, and `triton_ms` the answering attempt (0: none); for
    an answer that was passed on as it arrived, until its first byte. `stream_end` says how such an answer ended, and
    `stream_ms` how long after its first byte. `hedge` is None for a request without a hedge, or without an answer. `trace_id` is
    that of its trace, 32 hexadecimal digits, if that is recorded.
    """

    def __init__(
        self,
        decision: Decision,
        status: int,
        target: Target | None = None,
        shard: str | None = None,
        failed_attempts: int = 0,
        decide_ms: float = 0.0,
        dispatch_ms: float = 0.0,
        triton_ms: float = 0.0,
        caller: str | None = None,
        traffic: Traffic = Traffic.REAL,
        stream_end: StreamEnd | None = None,
        stream_ms: float = 0.0,
        hedge: Hedge | None = None,
        trace_id: str | None = None,
    ) -> None:
        self.decision: Final = decision
        self.status: Final = status
        self.target: Final = target
        self.shard: Final = shard
        self.failed_attempts: Final = failed_attempts
        self.decide_ms: Final = decide_ms
        self.dispatch_ms: Final = dispatch_ms
        self.triton_ms: Final = triton_ms
        self.caller: Final = caller
        self.traffic: Final = traffic
        self.stream_end: Final = stream_end
        self.stream_ms: Final = stream_ms
        self.hedge: Final = hedge
        self.trace_id: Final = trace_id

    @property
    def is_fallback(self) -> bool:
        target, decided = self.target, self.decision.target
        return target is not None and target is not decided and target != decided


Observe = Callable[[Served], None]

CountRequest = Callable[[str, str, int | str | None, float], None]
"""Counts a request of a caller, whatever became of it: its method ("" for an RPC), its route or the RPC's method, its HTTP status or
gRPC code (None: the caller has left), and the seconds that it took."""
