"""The last step of the playlist: a member's history in, titles out, one response for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from playlist import Chain, playlist
from request_parameters import ParameterError, RequestParameters

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
MOST_TITLES = 100
MOST_TEMPERATURE = 5.0
MOST_SEED = 2**32


class TritonPythonModel:
    """Sends `length` titles for each row, each as soon as it is drawn; the responses of a batch have a title of every row.

    A row with fewer titles left ends in padding: id 0 and an empty title.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Load the chain and the catalogue, and check that they fit the configuration."""
        config = json.loads(args["model_config"])
        path = Path(args["model_repository"], args["model_version"], "chain.npz")
        expected = int(config["input"][0]["dims"][0])
        with np.load(path, allow_pickle=False) as stored:
            self.ids, titles = stored["ids"], stored["titles"]
            self.chain = Chain(stored["likes"], stored["followers"], float(stored["prior"]))
        if len(self.ids) != expected:
            raise pb_utils.TritonModelException(f"{path.name} has {len(self.ids)} titles, config.pbtxt says {expected}")
        self.titles = [title.encode() for title in titles.tolist()]
        self.defaults = {key: value["string_value"] for key, value in config["parameters"].items()}
        try:
            self._parameters("{}")
        except ParameterError as error:
            raise pb_utils.TritonModelException(f"config.pbtxt: {error}") from error

    def execute(self, requests: list[Any]) -> None:
        """Answer each request by itself, one after the other."""
        for request in requests:
            self._answer(request, request.get_response_sender())

    def _answer(self, request: Any, sender: Any) -> None:
        try:
            length, temperature, seed = self._parameters(request.parameters())
        except ParameterError as error:
            refusal = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            sender.send(pb_utils.InferenceResponse(error=refusal), flags=FINAL)
            return
        history = pb_utils.get_input_tensor_by_name(request, "HISTORY").as_numpy() > 0
        seen = pb_utils.get_input_tensor_by_name(request, "SEEN").as_numpy()
        rows = [playlist(self.chain, *row, temperature, seed) for row in zip(history, seen, strict=True)]
        for _ in range(length):
            if sender.is_cancelled():
                break
            sender.send(self._response([next(row, None) for row in rows]))
        sender.send(flags=FINAL)

    def _response(self, drawn: list[int | None]) -> Any:
        ids = [[0 if each is None else self.ids[each]] for each in drawn]
        titles = [[b"" if each is None else self.titles[each]] for each in drawn]
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("TITLE_ID", np.array(ids, np.int64)),
                pb_utils.Tensor("TITLE", np.array(titles, np.object_)),
            ]
        )

    def _parameters(self, text: str) -> tuple[int, float, int]:
        """The length, the temperature and the seed of a request. Raises `ParameterError`."""
        sent = RequestParameters(text)
        configured = RequestParameters(json.dumps(self.defaults))
        return (
            sent.integer("length", configured.integer("length", None, 1, MOST_TITLES), 1, MOST_TITLES),
            sent.number(
                "temperature", configured.number("temperature", None, 0, MOST_TEMPERATURE), 0, MOST_TEMPERATURE
            ),
            sent.integer("seed", configured.integer("seed", None, 0, MOST_SEED), 0, MOST_SEED),
        )
