"""`ModelInfer`: the message passes to Triton with the model's name appended, and so does the answer."""

from __future__ import annotations

import re

from tidegate.byte_budget import FULL
from tidegate.errors import OverloadedError, malformed
from tidegate.gateway.call import Call
from tidegate.gateway.model_checks import with_version
from tidegate.gateway.request import Decided
from tidegate.oip.infer_message import InferMessage, parameter_fields, read_infer, sequence_id_field
from tidegate.rpc.exchange import Exchange, RpcAnswer, failed, passed_on
from tidegate.rules.contract import Responses
from tidegate.web.context import context_header, oip_context
from tidegate.web.errors import failure_of, streams_only
from tidegate.web.parts import HandlerParts
from tidegate.web.v2_infer import outcome_headers

SERVICE = "/inference.GRPCInferenceService/"
INFER = f"{SERVICE}ModelInfer"
STREAM_INFER = f"{SERVICE}ModelStreamInfer"

_VERSION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_LONGEST_SHOWN = 64


class Inference:
    """Answers `ModelInfer`."""

    def __init__(self, parts: HandlerParts) -> None:
        self._parts = parts

    async def __call__(self, message: bytes, exchange: Exchange) -> RpcAnswer:
        """Answer one RPC.

        Raises:
            OverloadedError: the byte budget has no room for the message.
            RequestError: the request cannot be decided.
        """
        budget = self._parts.budget
        if not budget.take(len(message)):
            raise full()
        try:
            found = read_infer(message)
            decided, call = await decide(self._parts, exchange, found, message, INFER)
            return await self._carried_out(decided, call, found)
        finally:
            budget.give(len(message))

    async def _carried_out(self, decided: Decided, call: Call, found: InferMessage) -> RpcAnswer:
        parts, service = self._parts, self._parts.service
        sent = decided
        try:
            sent, call = await checked(parts, decided, call, found)
            outcome = await service.dispatch(sent, call)
            shown = parts.answers.shown(outcome)
        except Exception as error:  # noqa: BLE001  # failed() renders any error, and logs the unexpected
            service.failed(sent, error, failure_of(error).status)
            return failed(error, parts.decided.shown(decided.decision))
        service.answered(sent, call, outcome)
        return passed_on(outcome.response, shown, outcome_headers(parts, decided, outcome))


async def decide(
    parts: HandlerParts, exchange: Exchange, found: InferMessage, message: bytes, path: str
) -> tuple[Decided, Call]:
    """Admit and decide an inference, and return the call of the method `path` that carries it out.

    Raises:
        RequestError: the request cannot be decided.
        WebError: the objective's responses are a stream, and the method is unary.
    """
    service, shown, head = parts.service, parts.decided, exchange.head
    admitted = await service.admit(exchange.ask(found.model))
    if path == INFER and admitted.objective.responses is Responses.STREAM:
        raise streams_only(found.model, "ModelStreamInfer")
    started_s = service.now_s()
    context = oip_context(admitted.objective, head, context_header(head), found.parameters)
    limits = exchange.limits()
    decided = service.decide(admitted, context.values, started_s, limits)
    sequence = context.sequence
    if sequence is not None:
        decided, sequence = service.join(admitted, decided, sequence, limits)
    appended = parameter_fields([*shown.parameters(decided.decision), *shown.origin(decided.caller, decided.traffic)])
    if sequence is not None and sequence.sent is not None:
        appended += sequence_id_field(sequence.sent)
    call = Call(
        "POST",
        headers=head.tracing(),
        body=message,
        path=path,
        sequence=sequence,
        flow=decided.flow,
        stream_above_bytes=0 if path == STREAM_INFER else None,
        appended=appended,
    )
    return decided, call


async def checked(parts: HandlerParts, decided: Decided, call: Call, found: InferMessage) -> tuple[Decided, Call]:
    """Return a decided request and its call as they may be sent; see `Service.checked`."""
    if decided.is_pinned or call.sequence is not None or found.classified:
        decided = await parts.service.checked(decided, call.sequence, found.classified)
    if found.version:
        call = await of_version(parts, decided, call, found.version)
    return decided, call


async def of_version(parts: HandlerParts, decided: Decided, call: Call, version: str) -> Call:
    """Return `call` for the version that a request names; see `with_version`.

    Raises:
        RefusedError: the version is not a positive number, or another than the rules pick.
    """
    if _VERSION.fullmatch(version):
        found = await with_version(parts.service.metadata, call, decided.decision, version, decided.deadline_s)
        if found is not None:
            return found
    raise malformed(
        f"failed to get model version from specified version string '{version[:_LONGEST_SHOWN]}' (details: stol), version "
        "should be an integral value > 0"
    )


def full() -> OverloadedError:
    return OverloadedError(FULL)
