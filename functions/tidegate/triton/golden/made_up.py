"""Requests that are made from a model's config alone, where it has no samples, and rows beside a given one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tidegate.triton.golden.requests import GoldenRequest
from tidegate.triton.golden.tensors import NUMPY_TYPES, Array, bfloats, data_type
from tidegate.triton.model_config import CONFIG, has_text_ids

FREE_SIZE = 4
"""What a dimension of any size becomes; all the same, because inputs often have to agree."""


def made_up_request(model: str, config: ModelConfig) -> GoldenRequest | None:
    """A request with plain values for every required input; None where an input's type cannot be made up."""
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
        # Where it batches, Triton counts the rows of the inputs; a config without either leaves both to the server.
        return None
    return GoldenRequest(
        model=model,
        file=f"{model}/{CONFIG}",
        inputs=inputs,
        batches=batches,
        bfloats=bfloats(config.input),
        has_text_id=has_text_ids(config),
        is_sequence=config.HasField("sequence_batching"),
        made_up=True,
    )


def varied(request: GoldenRequest, number: int) -> GoldenRequest:
    """Another row of the same shapes, to stand beside the given one in a batch.

    Numbers that are not whole move and stay between 0 and 1 where they were; everything else changes places only, since
    other values may mean nothing to the model.
    """
    inputs: Mapping[str, Array] = {name: _varied(array, number) for name, array in request.inputs.items()}
    return replace(request, inputs=inputs, expected={})


def _array(tensor: Any) -> Array | None:
    shape = [FREE_SIZE if size == -1 else int(size) for size in tensor.dims]
    kind = NUMPY_TYPES.get(data_type(tensor))
    if kind is None or not shape:
        return None
    if kind is np.object_:
        return np.full(shape, b"1", np.object_)
    if np.issubdtype(kind, np.floating):
        count = int(np.prod(shape))
        values: Array = ((np.arange(count) % 7 + 1) / 8).astype(kind).reshape(shape)
        return values
    return np.ones(shape, kind)


def _varied(array: Array, number: int) -> Array:
    if array.dtype.kind == "f":
        share = array.dtype.type(0.5**number)
        moved: Array = array * share + array.dtype.type(0.5) * (1 - share)
        return moved
    return np.roll(array, number, axis=-1) if array.ndim else array
