"""The second step: a score from 0 (negative) to 1 (positive). Put a model of your own here."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

WEIGHTS = np.array([[1.5], [-1.5]], np.float32)


class TritonPythonModel:
    """Logistic regression over the counts of each row."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        counts = pb_utils.get_input_tensor_by_name(request, "COUNTS").as_numpy()
        score = 1 / (1 + np.exp(-(counts @ WEIGHTS)))
        return pb_utils.InferenceResponse([pb_utils.Tensor("SCORE", score.astype(np.float32))])
