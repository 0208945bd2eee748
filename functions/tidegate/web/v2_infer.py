"""`POST /v2/models/{objective}/infer`: the body passes to Triton unchanged, and so does the answer."""

from __future__ import annotations

from typing import Final

from tidegate.errors import UnknownObjectiveError
from tidegate.gateway.call import Call, Outcome
from tidegate.gateway.model_checks import with_version
from tidegate.gateway.request import Ask, Decided, Limits
from tidegate.oip.inflating import inflated_whole
from tidegate.oip.request_json import (
    MOST_PARSED_BYTES,
    JsonName,
    RequestJson,
    check_json_size,
    examine_request,
    json_end,
)
from tidegate.oip.sequence_id import with_sequence_id
from tidegate.ports import HttpResponse
from tidegate.rules.contract import Responses
from tidegate.web.bodies import Body, ClientGoneError
from tidegate.web.context import context_header, name_to_read, oip_context
from tidegate.web.errors import not_found, oip_failure, streams_only, unknown_model
from tidegate.web.head import RequestHead
from tidegate.web.heavy import examine_parts, examined, result
from tidegate.web.http import LEASE, RECORD, Answer, RawHeaders, Receive, Scope, response_headers
from tidegate.web.milliseconds import add_ms
from tidegate.web.parts import HandlerParts
from tidegate.web.streams import StreamedAnswer, streamed

_LEAST_JUDGED_BYTES: Final = 131_072
"""A body is passed on from this size, if it has come fast enough; from an eighth of a larger body, since what comes at once may
have been sent long before it was read."""


class Inference:
    """Answers inferences of `/v2`."""

    def __init__(self, parts: HandlerParts) -> None:
        self._parts = parts

    async def __call__(
        self, scope: Scope, receive: Receive, objective: str, version: str | None
    ) -> Answer | StreamedAnswer:
        """Decide and infer. Errors that the headers show are raised before any of the body is read.

        Args:
            scope: the request's ASGI scope.
            receive: receives the request's body (ASGI).
            objective: the model in the path.
            version: the version in the path, as text, or None.
        """
        parts, service = self._parts, self._parts.service
        head = RequestHead(scope["headers"])
        try:
            admitted = await service.admit(ask(scope, head, objective))
            if admitted.objective.responses is Responses.STREAM:
                raise streams_only(objective)
            caller_ms = admitted.ask.caller_ms
            values = context_header(head)
            forwarded = head.forwarded()
            with Body(receive, head.announced_bytes, parts.max_body_bytes, parts.budget) as incoming:
                body, rest_bytes = await self._read_body(incoming, head)
                started_s = service.now_s()
                admitted = service.admit_again(admitted)
                wanted = name_to_read(admitted.objective, head)
                found = self._examined(head, body, len(body) + rest_bytes, wanted)
                if found is None:
                    found = await self._examined_elsewhere(head, body, len(body) + rest_bytes, wanted)
                context = oip_context(admitted.objective, head, values, found.parameters)
                limits = Limits(caller_ms, parts.time_left_ms(scope))
                decided = service.decide(admitted, context.values, started_s, limits)
                sequence = context.sequence
                if sequence is not None:
                    decided, sequence = service.join(admitted, decided, sequence, limits)
                    if sequence.sent is not None:
                        assert found.sequence_id_at is not None
                        body = await self._plain(incoming, head, body)
                        size_bytes = len(body)
                        body = with_sequence_id(body, found.sequence_id_at, sequence.sent)
                        forwarded = resized(forwarded, len(body) - size_bytes)
                decision = decided.decision
                # Even a large answer is held to compare it with a shadow's, or while two attempts race for it.
                held = decided.shadows or decision.hedge_after_ms is not None or decision.hedge_at is not None
                forwarded.extend(parts.decided.parameters(decision))
                forwarded.extend(parts.decided.origin(decided.caller, decided.traffic))
                call = Call(
                    "POST",
                    "/infer",
                    forwarded,
                    body,
                    incoming.rest() if rest_bytes else None,
                    rest_bytes,
                    sequence=sequence,
                    flow=decided.flow,
                    stream_above_bytes=None if held else parts.stream_above_bytes,
                )
                return await self._carried_out(decided, call, version, found)
        except UnknownObjectiveError as error:
            return unknown_model(error)

    async def _carried_out(
        self, decided: Decided, call: Call, version: str | None, found: RequestJson
    ) -> Answer | StreamedAnswer:
        service = self._parts.service
        sent, stream = decided, None
        try:
            if decided.is_pinned or call.sequence is not None or found.classified:
                sent = await service.checked(decided, call.sequence, found.classified)
            if version is not None:
                call = await of_version(self._parts, sent, call, version)
            outcome = await service.dispatch(sent, call)
            stream = outcome.response.stream
            response = self._parts.answers.shown(outcome)
        except ClientGoneError:
            raise
        except Exception as error:  # noqa: BLE001  # oip_failure() renders any error, and logs the unexpected
            if stream is not None:
                stream.close()
            answer = oip_failure(error, self._parts.decided.shown(decided.decision))
            service.failed(sent, error, answer.status)
            return answer
        if stream is not None:
            return streamed(self._parts, sent, outcome, call, decided_headers(self._parts, decided, outcome, response))
        service.answered(sent, call, outcome)
        return decided_answer(self._parts, decided, outcome, response)

    async def _read_body(self, incoming: Body, head: RequestHead) -> tuple[bytes, int]:
        """Read the body, or the start of one that is streamed; return it with the number of bytes still to come.

        A large body of binary tensors is streamed, since only its JSON is read here. A slow caller's is not, as it would
        take up a slot at the server.

        Raises:
            RefusedError: the JSON is too large.
        """
        incoming.check_announced()
        announced_bytes = incoming.announced_bytes
        if announced_bytes is None or head.codings:
            return await incoming.whole(), 0
        end = json_end(head.json_lengths, announced_bytes)
        check_json_size(end, self._parts.max_json_bytes)
        if announced_bytes <= self._parts.stream_above_bytes or end > MOST_PARSED_BYTES:
            return await incoming.whole(), 0
        judged_bytes = min(self._parts.stream_above_bytes, max(_LEAST_JUDGED_BYTES, announced_bytes // 8))
        begun = await incoming.start(max(end, judged_bytes), end)
        if incoming.is_fast:
            return begun, incoming.rest_bytes
        return await incoming.whole(begun), 0

    async def _plain(self, incoming: Body, head: RequestHead, body: bytes) -> bytes:
        """Return a body, or the start of one, decompressed.

        Raises:
            OverloadedError: the byte budget has no room for it.
            RefusedError: it is not compressed as its headers say.
        """
        if not head.codings:
            return body
        text = inflated_whole(body, MOST_PARSED_BYTES) if len(body) <= MOST_PARSED_BYTES else None
        if text is None:
            text = result(await self._parts.offload.run("inflate", body))
        incoming.hold(len(text))
        return text

    def _examined(self, head: RequestHead, body: bytes, size_bytes: int, wanted: JsonName) -> RequestJson | None:
        """Examine the JSON of a request; return None if it is so large that it would block other requests."""
        return examine_request(head.json_lengths, head.codings, body, size_bytes, wanted, self._parts.max_json_bytes)

    async def _examined_elsewhere(
        self, head: RequestHead, body: bytes, size_bytes: int, wanted: JsonName
    ) -> RequestJson:
        """Examine large JSON in another process."""
        parts = examine_parts(head.json_lengths, head.codings, wanted, size_bytes, self._parts.max_json_bytes)
        return examined(await self._parts.offload.run("examine", parts, body))


def resized(headers: RawHeaders, added_bytes: int) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request that is forwarded uncompressed, whose JSON has become longer by `added_bytes`."""
    kept = []
    for name, value in headers:
        if name == b"inference-header-content-length":
            kept.append((name, b"%d" % (int(value) + added_bytes)))
        elif name != b"content-encoding":
            kept.append((name, value))
    return kept


def ask(scope: Scope, head: RequestHead, objective: str) -> Ask:
    """Return the `Ask` of a request over HTTP."""
    return Ask(
        objective,
        scope[LEASE],
        scope,
        scope.get("client"),
        head.values(b"tidegate-override"),
        head.values(b"tidegate-traffic"),
        head.timeout_ms(),
        scope.get(RECORD),
    )


async def of_version(parts: HandlerParts, decided: Decided, call: Call, version: str) -> Call:
    """Return `call` with the version in a request's path; see `with_version`.

    Raises:
        WebError: the version has more digits than any model's (404).
    """
    found = await with_version(parts.service.metadata, call, decided.decision, version, decided.deadline_s)
    if found is None:
        raise not_found()
    return found


def decided_answer(parts: HandlerParts, decided: Decided, outcome: Outcome, response: HttpResponse) -> Answer:
    """Return Triton's answer, with the decision in its headers."""
    return Answer(response.status, decided_headers(parts, decided, outcome, response), response.body, response.lease)


def decided_headers(
    parts: HandlerParts, decided: Decided, outcome: Outcome, response: HttpResponse
) -> list[tuple[bytes, bytes]]:
    """Return the headers of Triton's answer that are passed on, with the decision and the timing."""
    return [*response_headers(response.headers), *outcome_headers(parts, decided, outcome)]


def outcome_headers(parts: HandlerParts, decided: Decided, outcome: Outcome) -> list[tuple[bytes, bytes]]:
    """Return the headers that show a decision, and how it was carried out."""
    attempt = outcome.attempt
    shown = parts.decided.shown(decided.decision, attempt.target, attempt.shard)
    headers = [*shown, (b"server-timing", server_timing(parts, decided, outcome))]
    if outcome.hedge is not None:
        headers.append((b"tidegate-hedge", outcome.hedge.encode()))
    return headers


def server_timing(parts: HandlerParts, decided: Decided, outcome: Outcome) -> bytes:
    """Return `Server-Timing` (https://www.w3.org/TR/server-timing/), in milliseconds.

    `decide` covers reading the context and deciding, `dispatch` everything from then to the answer, and `triton` the part
    of `dispatch` that the successful attempt took.
    """
    decide_ms = (decided.decided_s - decided.started_s) * 1000.0
    dispatch_ms = (parts.service.now_s() - decided.decided_s) * 1000.0
    text = [b"decide;dur="]
    add_ms(text, decide_ms)
    text.append(b", dispatch;dur=")
    add_ms(text, dispatch_ms)
    text.append(b", triton;dur=")
    add_ms(text, outcome.triton_ms)
    return b"".join(text)
