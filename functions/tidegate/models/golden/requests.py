"""One request to a model: from a sample or made from its config alone, and how it goes over HTTP."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tidegate.errors import ModelConfigError
from tidegate.model_layout import CONFIG
from tidegate.models.config import data_type, has_text_ids
from tidegate.models.lint.findings import ModelFinding
from tidegate.models.schema import ModelConfig
from tidegate.oip.arrays import NUMPY_TYPES, Array, encode
from tidegate.oip.datatypes import datatype_of_config
from tidegate.oip.framing import BINARY, HEAD_LENGTH
from tidegate.oip.paths import model_path
from tidegate.ports import HttpRequest

ABSOLUTE, RELATIVE = 1e-5, 1e-3
"""How far numbers may differ unless a sample says otherwise."""

FREE_SIZE = 4
"""Size in place of every free dimension: the same for all, as inputs often have to agree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRequest:
    """A request to one model.

    Attributes:
        file: where it is from, relative to the model repository.
        inputs: an array for each input; if the model batches, the first size is the number of rows.
        batches: whether the model batches (`max_batch_size` above 0).
        parameters: the request's parameters: texts, numbers and booleans.
        expected: the expected outputs, by name.
        absolute: how far a number may be from the expected one, or from the same row's in another batch.
        relative: the same as a share of the number; the two are added.
        is_sequence: whether to send it as a whole sequence, with start and end.
        has_text_id: whether the correlation ID of that sequence is text.
        bfloats: the inputs that are sent as BF16, whose arrays are float32, since numpy has no such type.
        made_up: whether the inputs were made from the config, so that the model may refuse them.
    """

    model: str
    file: str
    inputs: Mapping[str, Array]
    batches: bool
    parameters: Mapping[str, Any] = field(default_factory=dict)
    expected: Mapping[str, Array] = field(default_factory=dict)
    absolute: float = ABSOLUTE
    relative: float = RELATIVE
    is_sequence: bool = False
    has_text_id: bool = False
    bfloats: frozenset[str] = frozenset()
    made_up: bool = False

    @property
    def rows(self) -> int:
        """The number of rows; 1 if the model does not batch."""
        return min((len(array) for array in self.inputs.values()), default=1) if self.batches else 1

    def row(self, number: int) -> GoldenRequest:
        """Return the request for one of its rows alone."""

        def cut(arrays: Mapping[str, Array]) -> Mapping[str, Array]:
            return {name: array[number : number + 1] for name, array in arrays.items()}

        return replace(self, inputs=cut(self.inputs), expected=cut(self.expected)) if self.batches else self

    def like(self, other: GoldenRequest) -> bool:
        """Return whether the two can share a batch."""
        return (
            self.batches
            and self.parameters == other.parameters
            and {name: (array.shape[1:], array.dtype) for name, array in self.inputs.items()}
            == {name: (array.shape[1:], array.dtype) for name, array in other.inputs.items()}
        )

    def finding(self, kind: str, message: str, hint: str = "") -> ModelFinding:
        return ModelFinding(self.file, 0, kind, message, hint, self.model)

    def http(self, version: int | None = None) -> HttpRequest:
        """Return the request as HTTP, with binary tensors, to the model or to one version of it.

        Raises:
            ModelConfigError: Triton has no data type for an input.
        """
        number = random.getrandbits(62) + 1
        # A text of more than 20 bytes ends a Triton 2.51 where a step takes numbers.
        sequence_id = f"golden-{number % 2**48:x}" if self.has_text_id else number
        sequence = {"sequence_id": sequence_id, "sequence_start": True, "sequence_end": True}
        parameters = {**(sequence if self.is_sequence else {}), **self.parameters}
        try:
            body, head_length = encode(self.inputs, self.bfloats, parameters)
        except ValueError as error:
            raise ModelConfigError(f"{self.file}: the request cannot be packed: {error}") from error
        headers = (BINARY, (HEAD_LENGTH, b"%d" % head_length))
        return HttpRequest("POST", model_path(self.model, version, "/infer"), headers, body)


def in_sequence(request: GoldenRequest, configs: Iterable[ModelConfig]) -> GoldenRequest:
    """Return a request as a sequence if its model, or one that it calls, takes sequences: those of `configs`."""
    taking = [config for config in configs if config.HasField("sequence_batching")]
    return replace(request, is_sequence=bool(taking), has_text_id=any(map(has_text_ids, taking)))


def joined(requests: Sequence[GoldenRequest]) -> GoldenRequest:
    """Return one request with the rows of several that are `like` the first, without their expected outputs."""
    first = requests[0]
    inputs = {name: np.concatenate([each.inputs[name] for each in requests]) for name in first.inputs}
    return replace(first, inputs=inputs, expected={})


def made_up_request(model: str, config: ModelConfig) -> GoldenRequest | None:
    """Return a request with plain values for every required input; None if that takes more than the config says."""
    batches = config.max_batch_size > 0
    inputs: dict[str, Array] = {}
    for tensor in config.input:
        if tensor.optional:
            continue
        array = _array(tensor)
        if array is None:
            return None
        inputs[tensor.name] = array[None] if batches else array
    if not inputs and (batches or config.input or not config.output):
        # If it batches, Triton counts the rows of the inputs; a config without tensors leaves them to the server.
        return None
    file = f"{model}/{CONFIG}"
    request = GoldenRequest(
        model=model, file=file, inputs=inputs, batches=batches, bfloats=bfloats(config.input), made_up=True
    )
    return in_sequence(request, [config])


def varied(request: GoldenRequest, number: int) -> GoldenRequest:
    """Return another row of the same shapes, to send in a batch with the given one.

    Floats change, and stay between 0 and 1 if they were; everything else only changes places, since other values may mean
    nothing to the model.
    """
    inputs: dict[str, Array] = {}
    for name, array in request.inputs.items():
        if array.dtype.kind == "f":
            share = array.dtype.type(0.5**number)
            inputs[name] = array * share + array.dtype.type(0.5) * (1 - share)
        else:
            inputs[name] = np.roll(array, number, axis=-1) if array.ndim else array
    return replace(request, inputs=inputs, expected={})


def bfloats(tensors: Iterable[Any]) -> frozenset[str]:
    """Return the names of the declared tensors whose data type is BF16."""
    return frozenset(tensor.name for tensor in tensors if data_type(tensor) == "TYPE_BF16")


def wire_type(tensor: Any) -> str:
    """Return the protocol's name of a declared tensor's data type, such as `FP32`."""
    return datatype_of_config(data_type(tensor))


def _array(tensor: Any) -> Array | None:
    shape = [FREE_SIZE if size == -1 else int(size) for size in tensor.dims]
    kind = NUMPY_TYPES.get(wire_type(tensor))
    if kind is None or not shape:
        return None
    if kind is np.object_:
        return np.full(shape, b"1", np.object_)
    if np.issubdtype(kind, np.floating):
        count = int(np.prod(shape))
        values: Array = ((np.arange(count) % 7 + 1) / 8).astype(kind).reshape(shape)
        return values
    return np.ones(shape, kind)
