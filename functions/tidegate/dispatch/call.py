"""What goes into a dispatch and what comes out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from tidegate.ports import Endpoint, Headers, HttpResponse
from tidegate.rules.decision import Target


@dataclass(frozen=True, slots=True)
class Call:
    """One call to whatever model a decision names.

    Attributes:
        method: the HTTP method.
        suffix: what follows the model in the path: `/infer`, `/config`, or nothing for its metadata.
        headers: sent as they are.
        body: sent as it is.
        version: asks for that version of the decision's own target, and only of that: a fallback is another model.
        path: where given, used as it stands for every target (`/v2`).
        rest: brings the bytes that follow `body`, `rest_bytes` in all; the call is then sent exactly once.
        sequence_id: binds the call to one endpoint; it is then sent exactly once.
        flow: who sends it, such as its caller or connection; where requests have to wait, flows take turns.
        final: the first response is the caller's answer whatever it says, so that an unknown version stays one.
    """

    method: str
    suffix: str = ""
    headers: Headers = ()
    body: bytes = b""
    rest: AsyncIterator[bytes] | None = None
    rest_bytes: int = 0
    version: int | None = None
    path: str | None = None
    sequence_id: str | None = None
    flow: object = None
    final: bool = False

    @property
    def infers(self) -> bool:
        """Whether the model computes the answer, which then shows how it does. What is asked of a model with GET is answered
        by its server."""
        return self.method == "POST"

    @property
    def once(self) -> bool:
        """Whether it must not be sent again once bytes of it were."""
        return self.sequence_id is not None or self.rest is not None

    def path_for(self, target: Target, first: bool) -> str:
        """The path of this call for a target; `first` says that it is the decision's own."""
        if self.path is not None:
            return self.path
        version = self.version if first and self.version is not None else target.version
        if version is None:
            return f"/v2/models/{target.model}{self.suffix}"
        return f"/v2/models/{target.model}/versions/{version}{self.suffix}"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One place to send a call to. `first` marks the decision's own target, `objective` is what was asked for."""

    target: Target
    shard: str
    endpoint: Endpoint
    first: bool
    objective: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to a call.

    `attempt` is the one that answered and `triton_ms` its duration; `failures` says in words, in order, what had failed
    before (target, shard and kind of failure).
    """

    response: HttpResponse
    attempt: Attempt
    triton_ms: float
    failures: tuple[str, ...] = ()

    def with_response(self, response: HttpResponse) -> Outcome:
        """The same, with another response."""
        return replace(self, response=response)

    @property
    def target(self) -> Target:
        """The target that answered."""
        return self.attempt.target

    @property
    def shard(self) -> str:
        """The shard of the endpoint that answered."""
        return self.attempt.shard

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that answered."""
        return self.attempt.endpoint

    @property
    def fallback(self) -> bool:
        """Whether another target than the decision's own answered."""
        return not self.attempt.first

    @property
    def attempts(self) -> int:
        """How many places were considered, the answering one included."""
        return len(self.failures) + 1
