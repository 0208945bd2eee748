"""The input and output of a dispatch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from typing import Final

from tidegate.gateway.bindings import Sequence
from tidegate.oip.infer_message import named
from tidegate.oip.paths import model_path
from tidegate.ports import Endpoint, Headers, Hedge, HttpRequest, HttpResponse, Span
from tidegate.ports.tracing import continued
from tidegate.rules.decision import Target


class Call:
    """One request to the model that a decision picks.

    Attributes:
        method: the HTTP method.
        suffix: what follows the model in the path: `/infer`, `/config`, or nothing for the model's metadata.
        headers: sent as they are.
        body: sent as it is.
        version: the version to call of the decision's own target; not used for fallbacks, which are other models.
        path: the whole path, used for every target (`/v2`), instead of one built from the target.
        rest: yields the `rest_bytes` bytes that follow `body`; such a call is sent at most once.
        sequence: binds the call to one endpoint; such a call is sent at most once.
        flow: who sends it, such as a caller or a connection; flows take turns where requests have to wait.
        final: return the first response whatever it says, so that an unknown version is reported as one.
        stream_above_bytes: a larger body of a successful answer is passed on as it arrives; 0: every one, which Triton sends as
            its model produces it; None: none.
        appended: what is appended to `body`, a serialized message, before the model's name; for a call over gRPC, whose `path`
            is the full name of the RPC's method. None for a call over HTTP.
        span: the span of its dispatch, once that has begun and if the request is traced.
    """

    def __init__(
        self,
        method: str,
        suffix: str = "",
        headers: Headers = (),
        body: bytes = b"",
        rest: AsyncIterator[bytes] | None = None,
        rest_bytes: int = 0,
        version: int | None = None,
        path: str | None = None,
        sequence: Sequence | None = None,
        flow: Hashable = None,
        final: bool = False,
        stream_above_bytes: int | None = None,
        appended: bytes | None = None,
    ) -> None:
        self.method: Final = method
        self.suffix: Final = suffix
        self.headers: Final = headers
        self.body: Final = body
        self.rest: Final = rest
        self.rest_bytes: Final = rest_bytes
        self.version: Final = version
        self.path: Final = path
        self.sequence: Final = sequence
        self.flow: Final = flow
        self.final: Final = final
        self.stream_above_bytes: Final = stream_above_bytes
        self.appended: Final = appended
        self.span: Span | None = None

    def with_version(self, version: int, final: bool = False) -> Call:
        """Return the call to a version of the decision's own target."""
        return Call(
            self.method,
            self.suffix,
            self.headers,
            self.body,
            self.rest,
            self.rest_bytes,
            version,
            self.path,
            self.sequence,
            self.flow,
            final,
            self.stream_above_bytes,
            self.appended,
        )

    @property
    def infers(self) -> bool:
        """Whether the model computes the answer, so that the answer says something about the model's health.

        A GET about a model is answered by its server.
        """
        return self.method == "POST"

    @property
    def generates(self) -> bool:
        """Whether the call is one of Triton's generate extension, whose errors have forms of their own."""
        return self.suffix.startswith("/generate")

    @property
    def once(self) -> bool:
        """Whether the call must not be sent again once a part of it was."""
        return self.sequence is not None or self.rest is not None

    @property
    def continues(self) -> bool:
        """Whether the call belongs to a sequence that has begun, so that only the server with its state may answer."""
        return self.sequence is not None and not self.sequence.starts

    @property
    def may_wait_for_sequences(self) -> bool:
        """Whether Triton may let the call wait until another sequence ends, as it does while a model has as many as it can.

        Then a time-out is not a sign that the model hangs. A sequence that has begun does not wait.
        """
        return self.sequence is not None and self.sequence.endpoint is None

    def path_for(self, target: Target, first: bool) -> str:
        """Return the path of this call for a target; `first` is true for the decision's own target."""
        if self.path is not None:
            return self.path
        return model_path(target.model, self._version_of(target, first), self.suffix)

    def message_for(self, target: Target, first: bool, more: bytes = b"") -> bytes:
        """Return the serialized message of a call over gRPC for a target; `more` goes over what was appended."""
        assert self.appended is not None
        return b"".join((self.body, self.appended, more, named(target.model, self._version_of(target, first))))

    def _version_of(self, target: Target, first: bool) -> int | None:
        return self.version if first and self.version is not None else target.version

    def request(self, attempt: Attempt) -> HttpRequest:
        """Return what the transport sends for an attempt. It must not send it again by itself: the dispatcher decides that."""
        path, streams = self.path_for(attempt.target, attempt.first), self.stream_above_bytes
        headers = self.headers if attempt.span is None else continued(self.headers, attempt.span)
        if self.appended is not None:
            message = self.message_for(attempt.target, attempt.first)
            return HttpRequest("POST", path, headers, message, True, stream_above_bytes=streams, is_rpc=True)
        return HttpRequest(self.method, path, headers, self.body, True, self.rest, self.rest_bytes, False, streams)


class Attempt:
    """One place to send a call to. `first` marks the decision's own target, `objective` is the requested one. `span` is its span,
    once it has begun and if the request is traced."""

    def __init__(self, target: Target, shard: str, endpoint: Endpoint, first: bool, objective: str) -> None:
        self.target: Final = target
        self.shard: Final = shard
        self.endpoint: Final = endpoint
        self.first: Final = first
        self.objective: Final = objective
        self.span: Span | None = None

    @property
    def name(self) -> str:
        """The target and its shard, as messages name them."""
        return f"{self.target.name} on {self.shard}"


class Outcome:
    """The answer to a call.

    `attempt` is the one that succeeded and `triton_ms` its duration. `failures` describes the failed attempts before it, in
    order: target, shard and kind of failure. `hedge` says whether the request's hedge won; None: it had none.
    """

    def __init__(
        self,
        response: HttpResponse,
        attempt: Attempt,
        triton_ms: float,
        failures: tuple[str, ...] = (),
        hedge: Hedge | None = None,
    ) -> None:
        self.response: Final = response
        self.attempt: Final = attempt
        self.triton_ms: Final = triton_ms
        self.failures: Final = failures
        self.hedge: Final = hedge

    def after(self, failures: tuple[str, ...], hedge: Hedge | None) -> Outcome:
        """Return the outcome of a call of which other attempts have failed, or that was hedged."""
        return Outcome(self.response, self.attempt, self.triton_ms, failures, hedge)

    @property
    def target(self) -> Target:
        """The target that answered."""
        return self.attempt.target

    @property
    def shard(self) -> str:
        """The shard of the endpoint that answered."""
        return self.attempt.shard

    @property
    def fallback(self) -> bool:
        """Whether another target than the decision's own answered."""
        return not self.attempt.first
