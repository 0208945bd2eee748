"""Inputs of a model as a request, and its answer as outputs: nested lists by the model's metadata, or arrays by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from tidegate.client.exchange import Reply
from tidegate.errors import ModelAnswerError, malformed
from tidegate.oip.framing import MalformedAnswerError, RawTensor, read_answer, write_request
from tidegate.oip.metadata import ModelMetadata, Tensor
from tidegate.oip.values import plain_outputs, raw_inputs

MOST_VALUES: Final = 10_000_000
"""Most values in nested lists; arrays have no limit."""

_HEAD_LENGTH: Final = "inference-header-content-length"
_NEEDED: Final = "arrays need tritonclient and numpy: pip install tritonclient[all]"


class Outputs:
    """The outputs of an answer. Nothing is decoded before it is asked for."""

    def __init__(self, tensors: Sequence[RawTensor]) -> None:
        self._tensors = tensors
        self._plain: dict[str, Any] | None = None

    def plain(self) -> dict[str, Any]:
        """Return all outputs as nested lists.

        Raises:
            ModelAnswerError: one is not finite, or not text.
        """
        if self._plain is None:
            self._plain = plain_outputs(self._tensors)
        return self._plain

    def array(self, name: str) -> Any:
        """Return an output as an array of numpy; the elements of `BYTES` are bytes.

        Raises:
            KeyError: there is no such output.
        """
        found = next((tensor for tensor in self._tensors if tensor.name == name), None)
        if found is None:
            raise KeyError(f"no output {name!r}; the outputs are {', '.join(tensor.name for tensor in self._tensors)}")
        numpy, utils = _arrays()
        if not isinstance(found.data, bytes):
            return numpy.array(found.data, dtype=utils.triton_to_np_dtype(found.datatype)).reshape(found.shape)
        if found.datatype == "BYTES":
            return utils.deserialize_bytes_tensor(found.data).reshape(found.shape)
        if found.datatype == "BF16":
            return utils.deserialize_bf16_tensor(found.data).reshape(found.shape)
        return numpy.frombuffer(found.data, dtype=utils.triton_to_np_dtype(found.datatype)).reshape(found.shape)


def needs_metadata(inputs: Mapping[str, Any]) -> bool:
    """Return whether inputs have no datatype of their own."""
    return not all(_is_array(value) for value in inputs.values())


def tensors_of(inputs: Mapping[str, Any], metadata: ModelMetadata | None) -> list[RawTensor]:
    """Return inputs as tensors; `metadata` is that of the model, which only nested lists need.

    Raises:
        RefusedError: an input does not fit the model.
    """
    arrays = {name: value for name, value in inputs.items() if _is_array(value)}
    plain = {name: value for name, value in inputs.items() if name not in arrays}
    raw = [] if metadata is None else raw_inputs(metadata.inputs, plain, MOST_VALUES)
    return [*raw, *(_raw_array(name, value) for name, value in arrays.items())]


def http_request(tensors: Sequence[RawTensor]) -> tuple[bytes, list[tuple[str, str]]]:
    """Return the body of an inference over HTTP, and the headers that describe it."""
    body, head_bytes = write_request(tensors, {})
    return body, [("Content-Type", "application/octet-stream"), ("Inference-Header-Content-Length", str(head_bytes))]


def http_outputs(reply: Reply) -> Outputs:
    """Return the outputs of an answer over HTTP. Raises `ModelAnswerError`: it is not an answer of the protocol."""
    length = reply.headers.get(_HEAD_LENGTH)
    try:
        return Outputs(read_answer(reply.body, None if length is None else int(length)))
    except (ValueError, MalformedAnswerError) as error:
        raise ModelAnswerError("the answer is not in the form of the Open Inference Protocol") from error


def rpc_metadata_request(model: str, version: int | None) -> Any:
    """Return a `ModelMetadataRequest`."""
    return grpc_messages().ModelMetadataRequest(name=model, version=_version(version))


def rpc_metadata(message: Any) -> ModelMetadata:
    """Return the metadata in a `ModelMetadataResponse`."""
    inputs, outputs = (
        tuple(Tensor(each.name, each.datatype, tuple(each.shape)) for each in tensors)
        for tensors in (message.inputs, message.outputs)
    )
    return ModelMetadata(tuple(map(int, message.versions)), inputs, outputs)


def rpc_request(
    model: str, version: int | None, headers: Sequence[tuple[bytes, bytes]], tensors: Sequence[RawTensor]
) -> Any:
    """Return a `ModelInferRequest`; its parameters are those that the headers would make."""
    request = grpc_messages().ModelInferRequest(model_name=model, model_version=_version(version))
    for tensor in tensors:
        request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        request.raw_input_contents.append(tensor.data)
    for name, value in headers:
        request.parameters[name.decode()].string_param = value.decode()
    return request


def rpc_outputs(message: Any) -> Outputs:
    """Return the outputs of a `ModelInferResponse`. Raises `ModelAnswerError`: it has none in raw form."""
    if len(message.raw_output_contents) != len(message.outputs):
        raise ModelAnswerError("the answer has outputs that are not raw")
    described = zip(message.outputs, message.raw_output_contents, strict=True)
    return Outputs([RawTensor(each.name, each.datatype, list(each.shape), data) for each, data in described])


def _version(version: int | None) -> str:
    return "" if version is None else str(version)


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _raw_array(name: str, value: Any) -> RawTensor:
    numpy, utils = _arrays()
    if value.dtype.kind == "U":
        value = value.astype(object)
    datatype = utils.np_to_triton_dtype(value.dtype)
    if datatype is None:
        raise malformed(f"input {name!r}: arrays of {value.dtype} are not supported", input=name)
    if datatype == "BYTES":
        packed = utils.serialize_byte_tensor(value)
        data = packed.item() if packed.size else b""
    else:
        data = numpy.ascontiguousarray(value).astype(value.dtype.newbyteorder("<"), copy=False).tobytes()
    return RawTensor(name, datatype, list(value.shape), data)


def _arrays() -> tuple[Any, Any]:
    try:
        import numpy as np
        from tritonclient import utils
    except ImportError as error:
        raise ImportError(_NEEDED) from error
    return np, utils


def grpc_messages() -> Any:
    """Return the module of the protocol's messages. Raises `ImportError`, with what to install."""
    try:
        from tritonclient.grpc import service_pb2
    except ImportError as error:
        raise ImportError("gRPC needs tritonclient: pip install tritonclient[grpc]") from error
    return service_pb2


def grpc_module() -> Any:
    """Return grpcio. Raises `ImportError`, with what to install."""
    try:
        import grpc
        import grpc.aio
    except ImportError as error:
        raise ImportError("gRPC needs tritonclient: pip install tritonclient[grpc]") from error
    return grpc
