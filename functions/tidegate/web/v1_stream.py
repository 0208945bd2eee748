"""`POST /v1/objectives/{objective}/stream`: plain JSON values in, the outputs of each of the model's responses as an event out."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from tidegate.errors import BrokenAnswerError, ModelAnswerError, ModelRefusedError, RefusedError, TidegateError
from tidegate.gateway.call import Call, Outcome
from tidegate.gateway.streams import AnswerReader
from tidegate.oip.error_texts import is_ended_stub
from tidegate.oip.events import MEDIA_TYPE, data_event, error_of, event_data
from tidegate.oip.generate_json import BESIDE_OUTPUTS, encode_generate, with_parameters
from tidegate.oip.metadata import ModelMetadata
from tidegate.strict_json import UnreadableError, parse
from tidegate.web.errors import no_streams, problem
from tidegate.web.head import RequestHead
from tidegate.web.heavy import encode_parts, result
from tidegate.web.http import Answer, compact
from tidegate.web.parts import HandlerParts
from tidegate.web.streams import StreamedAnswer, WholeEvents, streamed
from tidegate.web.v1_infer import (
    INFER_MEMBERS,
    METADATA_MAX_AGE_S,
    REFUSAL_MAX_AGE_S,
    Asked,
    JsonInference,
    decided_members,
    json_length,
)
from tidegate.web.v2_infer import server_timing

MOST_EVENT_BYTES = 1024 * 1024
"""The largest event: its JSON is parsed on the event loop."""


class JsonStream:
    """Answers streams of `/v1`.

    Args:
        parts: dependencies shared by the handlers.
        inference: reads and decides requests, as for `infer`.
    """

    def __init__(self, parts: HandlerParts, inference: JsonInference) -> None:
        self._parts = parts
        self._inference = inference

    async def stream(self, request: Request) -> Answer | StreamedAnswer:
        """Decide, send the inputs, and return the outputs of each response as an event."""
        parts, service = self._parts, self._parts.service
        if not parts.streams:
            raise no_streams()
        head = RequestHead(request.scope["headers"])
        with self._inference.body(request, head) as incoming:
            asked = await self._inference.ask(request, head, incoming, INFER_MEMBERS)
            decided = asked.decided
            shown = parts.decided.shown
            stream = None
            try:
                call = self._call(asked, await self._encode(asked))
                outcome = await service.dispatch(decided, call)
                stream = outcome.response.stream
                json_length(parts.answers.shown(outcome))
            except Exception as error:  # noqa: BLE001  # problem() renders any error, and logs the unexpected
                if stream is not None:
                    stream.close()
                answer = problem(error, shown(decided.decision))
                service.failed(decided, error, answer.status)
                return answer
        headers = (
            (b"content-type", MEDIA_TYPE),
            *shown(decided.decision, outcome.target, outcome.shard),
            (b"server-timing", server_timing(parts, decided, outcome)),
        )
        if stream is None:
            service.answered(decided, call, outcome)
            return Answer(200, headers, _end(asked, outcome))
        return streamed(parts, decided, outcome, call, headers, lambda reader: _Events(parts, asked, outcome, reader))

    def _call(self, asked: Asked, body: bytes) -> Call:
        decided, headers = asked.decided, self._parts.decided
        given = (*headers.parameters(decided.decision), *headers.origin(decided.caller, decided.traffic))
        return Call(
            "POST",
            "/generate_stream",
            [(b"Content-Type", b"application/json"), *asked.trace],
            with_parameters(body, given),
            flow=decided.flow,
            stream_above_bytes=0,
        )

    async def _encode(self, asked: Asked) -> bytes:
        metadata = await self._inference.metadata(asked.decided, METADATA_MAX_AGE_S)
        try:
            return await self._encoded(metadata, asked)
        except RefusedError:
            # Old metadata never refuses a request.
            metadata = await self._inference.metadata(asked.decided, REFUSAL_MAX_AGE_S)
            return await self._encoded(metadata, asked)

    async def _encoded(self, metadata: ModelMetadata, asked: Asked) -> bytes:
        most_values = self._parts.max_v1_values
        if asked.large is None:
            return encode_generate(metadata.inputs, asked.inputs, most_values)
        head = encode_parts(metadata, INFER_MEMBERS, most_values)
        return result(await self._parts.offload.run("encode_generate", head, asked.large))


class _Events:
    """A `Translator` of Triton's events into those of `/v1`: the outputs alone, a problem document, and a last one."""

    def __init__(self, parts: HandlerParts, asked: Asked, outcome: Outcome, reader: AnswerReader) -> None:
        self.broken: TidegateError | None = None
        self._answers = parts.answers
        self._asked = asked
        self._outcome = outcome
        self._reader = reader
        self._events = WholeEvents(parts.budget, MOST_EVENT_BYTES)

    def feed(self, part: bytes) -> bytes:
        shown: list[bytes] = []
        for event in self._events.feed(part):
            text = error_of(event)
            if text is None:
                try:
                    shown.append(data_event(compact({"outputs": _outputs(event)})))
                    continue
                except (UnreadableError, ValueError, TypeError):
                    self.broken = ModelAnswerError("a response of the model has values that JSON cannot carry")
            elif is_ended_stub(text):
                self._reader.stub_ended()
                self.broken = BrokenAnswerError("the model's process has ended")
            else:
                self.broken = ModelRefusedError(500, self._answers.text(self._outcome, text))
            break
        return b"".join(shown)

    def end(self) -> bytes:
        self._events.end()
        return _end(self._asked, self._outcome)

    def error(self, error: TidegateError) -> bytes:
        return data_event(problem(error).body, b"error")


def _outputs(event: bytes) -> dict[str, Any]:
    document: dict[str, Any] = parse(event_data(event))
    return {name: value for name, value in document.items() if name not in BESIDE_OUTPUTS}


def _end(asked: Asked, outcome: Outcome) -> bytes:
    return data_event(decided_members(asked, outcome), b"end")
