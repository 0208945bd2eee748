"""The first step of lexical title search: queries in, counts of their character n-grams out."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from grams import grams


class TritonPythonModel:
    """Counts each query's character n-grams. Bytes that are no UTF-8 count as unknown characters."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        queries = pb_utils.get_input_tensor_by_name(request, "QUERY").as_numpy().reshape(-1)
        rows = np.stack([grams(query.decode("utf-8", "replace")) for query in queries])
        return pb_utils.InferenceResponse([pb_utils.Tensor("GRAMS", rows)])
