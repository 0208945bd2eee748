"""The last step of purchase propensity: a probability and a mean order value in, a decision out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from request_parameters import ParameterError, RequestParameters

HOLD_FROM = 0.6
"""The probability from which a customer is taken to order without an offer."""


class TritonPythonModel:
    """Decides "hold" (orders anyway), "offer" (what an offer may win is worth more than it costs) or "none".

    The parameters `margin` (the share of an order's value that is profit, 0–1) and `offer_cost` (in the orders'
    currency) come with the request, else from the configuration.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Read the defaults from the configuration."""
        config = json.loads(args["model_config"])
        defaults = {key: value["string_value"] for key, value in config["parameters"].items()}
        try:
            self.margin, self.offer_cost = _parameters(json.dumps(defaults), None, None)
        except ParameterError as error:
            raise pb_utils.TritonModelException(f"config.pbtxt: {error}") from error

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        try:
            margin, offer_cost = _parameters(request.parameters(), self.margin, self.offer_cost)
        except ParameterError as error:
            refusal = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=refusal)
        propensity = pb_utils.get_input_tensor_by_name(request, "PROPENSITY").as_numpy()
        mean_value = pb_utils.get_input_tensor_by_name(request, "MEAN_ORDER_VALUE").as_numpy()
        is_worth_it = (1 - propensity) * mean_value * margin > offer_cost
        decision = np.where(propensity >= HOLD_FROM, b"hold", np.where(is_worth_it, b"offer", b"none"))
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("DECISION", decision.astype(np.object_)),
                pb_utils.Tensor("EXPECTED_VALUE", (propensity * mean_value).astype(np.float32)),
            ]
        )


def _parameters(text: str, margin: float | None, offer_cost: float | None) -> tuple[float, float]:
    sent = RequestParameters(text)
    return sent.number("margin", margin, 0, 1), sent.number("offer_cost", offer_cost, 0)
