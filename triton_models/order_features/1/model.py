"""The first step of purchase propensity: customers' orders in, feature rows out."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from features import NAMES, counted, features

MEAN_VALUE = NAMES.index("value_mean")


class OrdersError(ValueError):
    """The orders of a row cannot be turned into features; the message names the input and the row."""


class TritonPythonModel:
    """Computes the scorer's features of each customer (row) as of a day."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        names = ("ORDER_DAY", "ORDER_UNITS", "ORDER_VALUE", "AS_OF")
        day, units, value, as_of = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in names)
        try:
            _check(day, units, value, as_of[:, 0])
        except OrdersError as error:
            refusal = pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=refusal)
        rows = features(day, units, value, as_of[:, 0])
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("FEATURES", rows),
                pb_utils.Tensor("MEAN_ORDER_VALUE", np.ascontiguousarray(rows[:, MEAN_VALUE : MEAN_VALUE + 1])),
            ]
        )


def _check(day: Any, units: Any, value: Any, as_of: Any) -> None:
    if not day.shape == units.shape == value.shape:
        shapes = f"{list(day.shape)}, {list(units.shape)} and {list(value.shape)}"
        raise OrdersError(f"ORDER_DAY, ORDER_UNITS and ORDER_VALUE must have one shape, not {shapes}")
    valid = counted(day, units, as_of)
    without_orders = np.flatnonzero(~valid.any(axis=1))
    if without_orders.size:
        raise OrdersError(f"row {without_orders[0]}: no order of at least one unit (ORDER_UNITS) before the day AS_OF")
    not_finite = np.flatnonzero((valid & ~np.isfinite(value)).any(axis=1))
    if not_finite.size:
        raise OrdersError(f"row {not_finite[0]}: ORDER_VALUE must be finite")
