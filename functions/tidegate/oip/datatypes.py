"""Datatypes of tensors: https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md"""

from __future__ import annotations

from collections.abc import Mapping

ELEMENT_BYTES: Mapping[str, int] = {
    "BOOL": 1,
    "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8,
    "UINT8": 1, "UINT16": 2, "UINT32": 4, "UINT64": 8,
    "FP16": 2, "BF16": 2, "FP32": 4, "FP64": 8,
}  # fmt: skip
"""Size of one element. BYTES is missing: its elements vary in size, each with a 4-byte length before it."""

FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})


def datatype_of_config(name: str) -> str:
    """Return the protocol's name for a data type of a model config: `FP32` for `TYPE_FP32`, `BYTES` for `TYPE_STRING`."""
    plain = name.removeprefix("TYPE_")
    return "BYTES" if plain == "STRING" else plain
