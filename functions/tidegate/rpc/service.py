"""The methods of `GRPCInferenceService`, and `grpc.health.v1.Health/Check`.

Codes and error texts are Triton's, so that unmodified clients work (tests/rpc compares them with a real Triton). Protocol:
https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_grpc.md and Triton's extensions to
it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import grpc

from tidegate.errors import ContextError, NoRuleError, Refusal, RefusedError, UnavailableError, UnknownObjectiveError
from tidegate.gateway.call import Call
from tidegate.oip.infer_message import read_name
from tidegate.oip.protobuf import LENGTH, Reader, field
from tidegate.rpc.exchange import (
    Code,
    Context,
    Exchange,
    RpcAnswer,
    UnreadError,
    abort_unread,
    failed,
    passed_on,
    unknown_model,
)
from tidegate.rpc.infer import SERVICE, Inference, of_version
from tidegate.rpc.stream import StreamInference
from tidegate.web.context import context_header, oip_context
from tidegate.web.model_answers import check_answer
from tidegate.web.parts import HandlerParts
from tidegate.web.v2 import EXTENSIONS
from tidegate.web.v2_infer import outcome_headers

_HEALTH = "grpc.health.v1.Health"
_TRUE = b"\x08\x01"
"""A message whose field 1 is true, or the first value of an enumeration."""

_NOT_SERVING = b"\x08\x02"
_NAMES = ("", SERVICE.strip("/"))
_READS = ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics")
_MANAGEMENT = (
    "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload", "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister", "CudaSharedMemoryStatus", "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister", "TraceSetting", "LogSettings",
)  # fmt: skip
_SERVER_METADATA = f"{SERVICE}ServerMetadata"
_METADATA_EXTENSIONS = 3
_SERVER_METADATA_MAX_AGE_S = 60.0

_unary = grpc.stream_unary_rpc_method_handler

Answer = Callable[[bytes, Exchange], Awaitable[RpcAnswer]]


class InferenceService:
    """The methods; messages are bytes on both sides.

    Args:
        parts: shared with the handlers over HTTP.
    """

    def __init__(self, parts: HandlerParts) -> None:
        self._parts = parts
        self._server: tuple[float, bytes] | None = None

    def handlers(self) -> Sequence[grpc.GenericRpcHandler]:
        """Return what routes RPCs to their methods; a method that they do not have is UNIMPLEMENTED."""
        answers: dict[str, Answer] = {
            "ModelInfer": Inference(self._parts).__call__,
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ServerMetadata": self._metadata,
            **{name: partial(self._read, name) for name in _READS},
            **{name: partial(_forbidden, name) for name in _MANAGEMENT},
        }
        methods = {
            name: _unary(partial(_answered, answer, self._parts, f"{SERVICE}{name}"))
            for name, answer in answers.items()
        }
        methods["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(StreamInference(self._parts).__call__)
        check = _unary(partial(_answered, self._check, self._parts, f"/{_HEALTH}/Check"))
        return (
            grpc.method_handlers_generic_handler(SERVICE.strip("/"), methods),
            grpc.method_handlers_generic_handler(_HEALTH, {"Check": check}),
        )

    async def _live(self, _message: bytes, _exchange: Exchange) -> RpcAnswer:
        return RpcAnswer(_TRUE)

    async def _ready(self, _message: bytes, _exchange: Exchange) -> RpcAnswer:
        return RpcAnswer(_TRUE if self._parts.service.is_ready() else b"")

    async def _check(self, message: bytes, _exchange: Exchange) -> RpcAnswer:
        """Answer https://github.com/grpc/grpc/blob/master/doc/health-checking.md."""
        if read_name(message).model not in _NAMES:
            return RpcAnswer(code=Code.NOT_FOUND, detail="this service is not served here")
        return RpcAnswer(_TRUE if self._parts.service.is_ready() else _NOT_SERVING)

    async def _metadata(self, _message: bytes, _exchange: Exchange) -> RpcAnswer:
        """Return Triton's own metadata, with only the extensions that work through the gateway."""
        now_s = time.monotonic()
        if self._server is not None and now_s - self._server[0] <= _SERVER_METADATA_MAX_AGE_S:
            return RpcAnswer(self._server[1])
        service = self._parts.service
        engine = service.engines.engine()
        if not engine.objectives:
            raise UnavailableError("the live rules hold no objective")
        decision = engine.representative(next(iter(engine.objectives)))
        call = Call("GET", path=_SERVER_METADATA, appended=b"")
        outcome = await service.dispatcher.dispatch(decision, call, service.dispatcher.deadline_s(decision))
        if outcome.response.status >= 400:
            raise UnavailableError("no server describes itself")
        try:
            message = _offered(outcome.response.body)
        except RefusedError as error:
            # The reader blames the caller, whose message this is not.
            raise UnavailableError("no server describes itself") from error
        self._server = (now_s, message)
        return RpcAnswer(message)

    async def _read(self, name: str, message: bytes, exchange: Exchange) -> RpcAnswer:
        """Answer about a model, by the request's context, or the objective's representative without a usable one."""
        parts, service = self._parts, self._parts.service
        asked = read_name(message)
        if name == "ModelStatistics" and not asked.model:
            raise RefusedError(Refusal.FORBIDDEN, "the statistics of all models are not for callers of the gateway")
        started_s, head = service.now_s(), exchange.head
        try:
            admitted = await service.admit(exchange.ask(asked.model))
        except UnknownObjectiveError as error:
            return _unknown(name, error)
        limits = exchange.limits()
        try:
            context = oip_context(admitted.objective, head, context_header(head), {})
            decided = service.decide(admitted, context.values, started_s, limits)
        except (ContextError, NoRuleError):
            decided = service.represent(admitted, started_s, limits)
        call = Call("GET", headers=head.tracing(), path=f"{SERVICE}{name}", flow=decided.flow, appended=b"")
        try:
            if decided.is_pinned:
                decided = await service.checked(decided)
            if asked.version:
                call = await of_version(parts, decided, call, asked.version)
            outcome = await service.dispatch(decided, call)
            check_answer(outcome.response)
        except Exception as error:  # noqa: BLE001  # failed() renders any error, and logs the unexpected
            exchange.record.fail(error)
            return failed(error, parts.decided.shown(decided.decision))
        return passed_on(outcome.response, outcome.response, outcome_headers(parts, decided, outcome))


async def _answered(answer: Answer, parts: HandlerParts, method: str, _requests: object, context: Context) -> bytes:
    """Answer a unary RPC of a method. It is read as a stream, which on the wire it does not differ from, so that the time
    limit of its message is the server's own. Its answer and the status are sent at once, as those of a stream are not."""
    exchange = Exchange(context, method)
    exchange.end_with_rpc(parts)
    try:
        return await exchange.answer(await _found(answer, exchange))
    except UnreadError:
        await abort_unread(context)
        return b""


async def _found(answer: Answer, exchange: Exchange) -> RpcAnswer:
    """Return the answer to an RPC, whose message is not held any longer."""
    try:
        message = await exchange.receive()
        return await answer(message, exchange) if isinstance(message, bytes) else message
    except Exception as error:  # noqa: BLE001  # failed() renders any error, and logs the unexpected
        exchange.record.fail(error)
        return failed(error)


async def _forbidden(name: str, _message: bytes, _exchange: Exchange) -> RpcAnswer:
    raise RefusedError(Refusal.FORBIDDEN, f"{name} is not for callers of the gateway")


def _unknown(name: str, error: UnknownObjectiveError) -> RpcAnswer:
    """Return Triton's answer about a model that it does not have, which differs by method."""
    match name:
        case "ModelReady":
            return RpcAnswer()
        case "ModelStatistics":
            return RpcAnswer(code=Code.INVALID_ARGUMENT, detail=f"requested model '{error.objective}' is not available")
        case _:
            return unknown_model(error)


def _offered(message: bytes) -> bytes:
    """Return a `ServerMetadataResponse` without the extensions that do not work through the gateway."""
    reader = Reader(message)
    kept = []
    for number, wire_type, start, end in reader.fields(0, len(message)):
        if wire_type == LENGTH and (number != _METADATA_EXTENSIONS or reader.text(start, end) in EXTENSIONS):
            kept.append(field(number, message[start:end]))
    return b"".join(kept)
