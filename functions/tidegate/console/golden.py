"""The inputs of a model's golden request, which the playground begins with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

LARGEST = 16 * 1024
"""Bytes of a golden request that a form still shows."""


def sample_inputs(samples: Mapping[str, bytes]) -> Mapping[str, Any] | None:
    """Return the values of each input of the first golden request that is not large; None: there is none.

    Args:
        samples: golden requests as JSON by file name. A push has checked them; one that cannot be read is passed over.
    """
    for _, content in sorted(samples.items()):
        if len(content) > LARGEST:
            continue
        try:
            inputs = json.loads(content)["inputs"]
            if isinstance(inputs, list):
                return {tensor["name"]: tensor["data"] for tensor in inputs}
            if isinstance(inputs, dict):
                return inputs
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return None
