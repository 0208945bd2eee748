"""The last step of title ranking and title search: scores over the catalogue in, the best titles out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import triton_python_backend_utils as pb_utils
from request_parameters import ParameterError, RequestParameters


def best(scores: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    """The positions of the `count` highest scores of each row, highest first; equal scores in catalogue order."""
    order: npt.NDArray[np.intp] = np.argsort(-scores, axis=1, kind="stable")
    return order[:, :count]


class TritonPythonModel:
    """Picks the best `top_k` titles of each row and leaves out those that `SEEN` marks, where it is sent.

    A row always has `top_k` columns, so that its answer does not depend on the rows beside it. Where fewer titles are
    left unseen, it ends in padding: id 0, an empty title, score 0.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Load the catalogue, and check that it fits the configuration."""
        config = json.loads(args["model_config"])
        path = Path(args["model_repository"], args["model_version"], "catalogue.json")
        catalogue = json.loads(path.read_text("utf-8"))
        expected = int(config["input"][0]["dims"][0])
        if len(catalogue) != expected:
            have = len(catalogue)
            raise pb_utils.TritonModelException(f"{path.name} has {have} titles, config.pbtxt says {expected}")
        self.ids = np.array([title["id"] for title in catalogue], np.int64)
        self.titles = np.array([title["title"].encode() for title in catalogue], np.object_)
        defaults = {key: value["string_value"] for key, value in config["parameters"].items()}
        try:
            self.top_k = RequestParameters(json.dumps(defaults)).integer("top_k", None, 1, expected)
        except ParameterError as error:
            raise pb_utils.TritonModelException(f"config.pbtxt: {error}") from error

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            top_k = RequestParameters(request.parameters()).integer("top_k", self.top_k, 1, len(self.ids))
        except ParameterError as error:
            refusal = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=refusal)
        scores = pb_utils.get_input_tensor_by_name(request, "SCORES").as_numpy()
        seen = pb_utils.get_input_tensor_by_name(request, "SEEN")
        if seen is not None:
            scores = np.where(seen.as_numpy(), np.float32(-np.inf), scores)
        top = best(scores, top_k)
        top_scores = np.take_along_axis(scores, top, axis=1)
        left_out = np.isneginf(top_scores)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("TITLE_IDS", np.where(left_out, 0, self.ids[top])),
                pb_utils.Tensor("TITLES", np.where(left_out, b"", self.titles[top]).astype(np.object_)),
                pb_utils.Tensor("TITLE_SCORES", np.where(left_out, np.float32(0), top_scores)),
            ]
        )
