"""The first step: how many words of a text are positive, and how many negative."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

GOOD = frozenset({"beautiful", "good", "great", "happy", "lovely", "nice"})
BAD = frozenset({"awful", "bad", "boring", "sad", "terrible", "ugly"})
WORD = re.compile(r"\w+")


class TritonPythonModel:
    """Counts the words of each text (row)."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
        counts = np.array([_counts(text.decode("utf-8", "replace")) for (text,) in texts], np.float32).reshape(-1, 2)
        return pb_utils.InferenceResponse([pb_utils.Tensor("COUNTS", counts)])


def _counts(text: str) -> tuple[int, int]:
    words = WORD.findall(text.lower())
    return sum(word in GOOD for word in words), sum(word in BAD for word in words)
