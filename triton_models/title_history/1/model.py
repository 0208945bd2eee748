"""The first step of title ranking: a member's id in, the member's history out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Looks members up in the snapshot `member_history.npz`.

    `HISTORY` has 1 for each title that the member likes, `SEEN` is true for each title that the member has rated at
    all, both in catalogue order. An unknown member has neither; scorers answer an empty history with popularity.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Load the snapshot, and check that it fits the configuration."""
        path = Path(args["model_repository"], args["model_version"], "member_history.npz")
        expected = int(json.loads(args["model_config"])["output"][0]["dims"][0])
        with np.load(path, allow_pickle=False) as snapshot:
            titles = int(snapshot["titles"])
            if titles != expected:
                raise pb_utils.TritonModelException(f"{path.name} has {titles} titles, config.pbtxt says {expected}")
            self.rows = {member: row for row, member in enumerate(snapshot["members"].tolist())}
            nobody = np.zeros((1, titles), np.uint8)
            self.liked = np.concatenate([np.unpackbits(snapshot["liked"], axis=1, count=titles), nobody])
            self.seen = np.concatenate([np.unpackbits(snapshot["seen"], axis=1, count=titles), nobody])
        self.unknown = len(self.rows)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        members = pb_utils.get_input_tensor_by_name(request, "MEMBER_ID").as_numpy().reshape(-1)
        rows = [self.rows.get(member, self.unknown) for member in members]
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("HISTORY", self.liked[rows].astype(np.float32)),
                pb_utils.Tensor("SEEN", self.seen[rows].astype(np.bool_)),
            ]
        )
