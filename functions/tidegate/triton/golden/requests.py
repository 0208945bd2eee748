"""One request to a model, and how it goes over HTTP."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

import numpy as np
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException

from tidegate.errors import ModelConfigError
from tidegate.ports import HttpRequest
from tidegate.triton.golden.tensors import Array
from tidegate.triton.golden.wire import encode
from tidegate.triton.model_config import has_text_ids

ABSOLUTE, RELATIVE = 1e-5, 1e-3
"""How far numbers may differ unless a sample says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRequest:
    """A request to one model.

    Attributes:
        model: the model's name.
        file: where it is from, relative to the model repository.
        inputs: an array for each input; where the model batches, the first size is the number of rows.
        batches: whether the model batches (`max_batch_size` above 0).
        parameters: the request's parameters: texts, numbers, true or false.
        expected: what outputs must be, by name; empty where nothing is expected.
        absolute: how far a number may be from what is expected, or from itself in another batch.
        relative: the same as a share of the number; both together count.
        is_sequence: whether the model takes sequences: the request then is one of its own, with start and end.
        bfloats: the inputs that go out as BF16, whose arrays are float32, since numpy has no such type.
        has_text_id: whether the correlation ID of its sequence is text.
        made_up: whether the inputs were made from the config, so that the model may well refuse them.
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
        """How many rows it asks about; 1 where the model does not batch."""
        if not self.batches:
            return 1
        return min((len(array) for array in self.inputs.values()), default=1)

    def row(self, number: int) -> GoldenRequest:
        """The request for one of its rows alone."""
        if not self.batches:
            return self
        return replace(self, inputs=_row(self.inputs, number), expected=_row(self.expected, number))

    def like(self, other: GoldenRequest) -> bool:
        """Whether it can share a batch with another: same inputs of the same shapes, same parameters."""
        return (
            self.batches
            and self.parameters == other.parameters
            and {name: (array.shape[1:], array.dtype) for name, array in self.inputs.items()}
            == {name: (array.shape[1:], array.dtype) for name, array in other.inputs.items()}
        )

    def http(self, version: int | None = None) -> HttpRequest:
        """The request as HTTP, in the protocol's binary form, to the model or to one version of it.

        Raises:
            ModelConfigError: what is to be sent cannot be packed.
        """
        number = random.getrandbits(62) + 1
        # A text of more than 20 bytes ends a Triton 2.51 where a step takes numbers.
        sequence_id = f"golden-{number % 2**48:x}" if self.has_text_id else number
        sequence = {"sequence_id": sequence_id, "sequence_start": True, "sequence_end": True}
        parameters = {**(sequence if self.is_sequence else {}), **self.parameters}
        try:
            body, header_length = encode(self.inputs, self.bfloats, parameters)
        except (ValueError, InferenceServerException) as error:
            raise ModelConfigError(f"{self.file}: the request cannot be packed: {error}") from error
        headers = (
            (b"content-type", b"application/octet-stream"),
            (b"inference-header-content-length", b"%d" % header_length),
        )
        suffix = "" if version is None else f"/versions/{version}"
        return HttpRequest("POST", f"/v2/models/{quote(self.model, safe='')}{suffix}/infer", headers, body)


def in_sequence(request: GoldenRequest, configs: Iterable[ModelConfig]) -> GoldenRequest:
    """A request as one of a sequence, where its model or a model that it calls takes sequences.

    Args:
        request: a request to the first of the models.
        configs: the configs of the model and of everything that it calls.
    """
    taking = [config for config in configs if config.HasField("sequence_batching")]
    return replace(request, is_sequence=bool(taking), has_text_id=any(map(has_text_ids, taking)))


def joined(requests: Sequence[GoldenRequest]) -> GoldenRequest:
    """One request with the rows of several that are `like` the first; what they expect is left out."""
    first = requests[0]
    inputs = {name: np.concatenate([each.inputs[name] for each in requests]) for name in first.inputs}
    return replace(first, inputs=inputs, expected={})


def _row(arrays: Mapping[str, Array], number: int) -> Mapping[str, Array]:
    return {name: array[number : number + 1] for name, array in arrays.items()}
