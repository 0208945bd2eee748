"""The first step of semantic title search: queries in, token ids out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from wordpiece import encode, load_vocabulary


class TritonPythonModel:
    """Encodes each query; a request's rows are padded to its longest, and the attention mask says where they end."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the vocabulary."""
        self.vocabulary = load_vocabulary(Path(args["model_repository"], args["model_version"], "vocab.txt"))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        queries = pb_utils.get_input_tensor_by_name(request, "QUERY").as_numpy().reshape(-1)
        rows = [encode(query.decode("utf-8", "replace"), self.vocabulary) for query in queries]
        lengths = np.array([len(row) for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        ids = np.zeros(mask.shape, np.int64)
        ids[mask] = np.concatenate(rows)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("input_ids", ids), pb_utils.Tensor("attention_mask", mask.astype(np.int64))]
        )
