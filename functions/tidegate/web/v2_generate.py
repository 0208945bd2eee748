"""`POST /v2/models/{objective}/generate` and `generate_stream`: Triton's generate extension.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_generate.md. The body is plain JSON. It
passes to Triton unchanged, except that a rule's parameters are added to it: Triton reads none from headers here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tidegate.errors import UnknownObjectiveError
from tidegate.gateway.call import Call
from tidegate.gateway.request import Decided, Limits
from tidegate.oip.generate_json import read_generate, with_parameters
from tidegate.oip.request_json import MOST_PARSED_BYTES
from tidegate.web.bodies import Body, ClientGoneError
from tidegate.web.context import context_header, oip_context
from tidegate.web.errors import no_streams, oip_failure, unknown_model, wrong_coding
from tidegate.web.head import RequestHead
from tidegate.web.heavy import result
from tidegate.web.http import Answer, Receive, Scope
from tidegate.web.parts import HandlerParts
from tidegate.web.streams import StreamedAnswer, TritonEvents, streamed
from tidegate.web.v2_infer import ask, decided_answer, decided_headers, of_version

_NOT_FORWARDED: Final = frozenset({b"accept-encoding", b"inference-header-content-length"})


class Generation:
    """Answers `generate` and `generate_stream`."""

    def __init__(self, parts: HandlerParts) -> None:
        self._parts = parts

    async def __call__(
        self, scope: Scope, receive: Receive, objective: str, version: str | None, action: str
    ) -> Answer | StreamedAnswer:
        """Decide and generate. Errors that the headers show are raised before any of the body is read.

        Args:
            scope: the request's ASGI scope.
            receive: receives the request's body (ASGI).
            objective: the model in the path.
            version: the version in the path, as text, or None.
            action: `generate` or `generate_stream`.
        """
        parts, service = self._parts, self._parts.service
        streams = action == "generate_stream"
        if streams and not parts.streams:
            raise no_streams()
        head = RequestHead(scope["headers"])
        try:
            admitted = await service.admit(ask(scope, head, objective))
            caller_ms = admitted.ask.caller_ms
            values = context_header(head)
            if head.codings:
                raise wrong_coding("the body must not be compressed: Triton reads no compressed body here")
            forwarded = [header for header in head.forwarded() if header[0] not in _NOT_FORWARDED]
            most_bytes = min(parts.max_json_bytes, parts.max_body_bytes)
            with Body(receive, head.announced_bytes, most_bytes, parts.budget, "max_json_bytes") as incoming:
                body = await incoming.whole()
                started_s = service.now_s()
                admitted = service.admit_again(admitted)
                parameters = await self._parameters(body)
                context = oip_context(admitted.objective, head, values, parameters)
                limits = Limits(caller_ms, parts.time_left_ms(scope))
                decided = service.decide(admitted, context.values, started_s, limits)
                given = (
                    *parts.decided.parameters(decided.decision),
                    *parts.decided.origin(decided.caller, decided.traffic),
                )
                call = Call(
                    "POST",
                    f"/{action}",
                    forwarded,
                    with_parameters(body, given),
                    flow=decided.flow,
                    stream_above_bytes=0 if streams else None,
                )
                return await self._carried_out(decided, call, version)
        except UnknownObjectiveError as error:
            return unknown_model(error)

    async def _carried_out(self, decided: Decided, call: Call, version: str | None) -> Answer | StreamedAnswer:
        parts, service = self._parts, self._parts.service
        sent, stream = decided, None
        try:
            if decided.is_pinned:
                sent = await service.checked(decided)
            if version is not None:
                call = await of_version(parts, sent, call, version)
            outcome = await service.dispatch(sent, call)
            stream = outcome.response.stream
            response = parts.answers.shown(outcome)
        except ClientGoneError:
            raise
        except Exception as error:  # noqa: BLE001  # oip_failure() renders any error, and logs the unexpected
            if stream is not None:
                stream.close()
            answer = oip_failure(error, parts.decided.shown(decided.decision))
            service.failed(decided, error, answer.status)
            return answer
        if stream is None:
            service.answered(decided, call, outcome)
            return decided_answer(parts, decided, outcome, response)
        headers = decided_headers(parts, decided, outcome, response)
        return streamed(parts, decided, outcome, call, headers, lambda reader: TritonEvents(parts, outcome, reader))

    async def _parameters(self, body: bytes) -> Mapping[str, Any]:
        """Check the JSON of a request, and return its parameters. Large JSON is offloaded."""
        if len(body) <= MOST_PARSED_BYTES:
            return read_generate(body)
        found: Mapping[str, Any] = json.loads(result(await self._parts.offload.run("generate", body)))
        return found
