"""The last step: the label of a score."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

PARAMETER = "tidegate-param-threshold"
THRESHOLD = 0.6


class TritonPythonModel:
    """Labels each score "positive", "negative" or "neutral"; a rule's parameter `threshold` (0.5 to 1) says how sure it
    must be."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        score = pb_utils.get_input_tensor_by_name(request, "SCORE").as_numpy()
        threshold = _threshold(request.parameters())
        label = np.where(score >= threshold, b"positive", np.where(score <= 1 - threshold, b"negative", b"neutral"))
        return pb_utils.InferenceResponse([pb_utils.Tensor("LABEL", label.astype(np.object_))])


def _threshold(parameters: str) -> float:
    sent = {name.lower(): value for name, value in json.loads(parameters or "{}").items()}
    return float(sent.get(PARAMETER, THRESHOLD))
