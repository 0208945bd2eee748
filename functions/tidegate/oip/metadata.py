"""A model's metadata: its versions and tensors.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md#model-metadata
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.errors import ModelAnswerError, ModelRefusedError


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output of a model. `datatype` is the protocol's name; -1 in `shape` is any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def as_dict(self) -> dict[str, object]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    versions: tuple[int, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


def read_metadata(status: int, body: bytes, model: str) -> ModelMetadata:
    """Parse a server's answer to a request for a model's metadata.

    Raises:
        ModelRefusedError: the answer is an error.
        ModelAnswerError: the answer is not metadata.
    """
    try:
        document = json.loads(body)
        if status != 200:
            raise ModelRefusedError(status, str(document["error"]))
        versions = tuple(sorted(int(version) for version in document.get("versions", ())))
        inputs = tuple(_tensor(tensor) for tensor in document["inputs"])
        outputs = tuple(_tensor(tensor) for tensor in document["outputs"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelAnswerError(f"the metadata of model {model!r} is not readable ({status})") from error
    return ModelMetadata(versions, inputs, outputs)


def _tensor(document: Mapping[str, Any]) -> Tensor:
    shape = tuple(int(size) for size in document["shape"])
    return Tensor(str(document["name"]), str(document["datatype"]), shape)
