"""Features of customers' orders. Serving and training compute them with this one file, so they cannot drift apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

NAMES = (
    "recency",
    "orders",
    "tenure",
    "value_sum",
    "value_mean",
    "units",
    "gap_mean",
    "last_gap",
    "last_value",
    "orders_90d",
)
RECENT_DAYS = 90
NO_GAP = -1.0

_NEVER = np.iinfo(np.int64).max

Array = npt.NDArray[Any]


def counted(day: Array, units: Array, as_of: Array) -> npt.NDArray[np.bool_]:
    """Which orders count: those of at least one unit (0 units is padding) before the day `as_of`.

    Args:
        day, units: [customers, orders].
        as_of: [customers].
    """
    result: npt.NDArray[np.bool_] = (units.astype(np.int64) > 0) & (
        day.astype(np.int64) < as_of.astype(np.int64)[:, None]
    )
    return result


def features(day: Array, units: Array, value: Array, as_of: Array) -> npt.NDArray[np.float32]:
    """The feature rows (`NAMES`, in order) of customers as of a day; every customer needs an order that counts.

    Args:
        day: [customers, orders], days since any fixed date, in any order; equal days keep the order they come in.
        units: [customers, orders]; 0 is padding.
        value: [customers, orders], in the orders' currency.
        as_of: [customers], the day to look back from.
    """
    valid = counted(day, units, as_of)
    day, now = day.astype(np.int64), as_of.astype(np.int64)
    orders = valid.sum(axis=1)
    by_day = np.argsort(np.where(valid, day, _NEVER), axis=1, kind="stable")
    days = np.take_along_axis(day, by_day, axis=1)
    values = np.take_along_axis(np.where(valid, value.astype(np.float64), 0.0), by_day, axis=1)
    row = np.arange(len(orders))
    first, last, before = days[:, 0], days[row, orders - 1], days[row, np.maximum(orders - 2, 0)]
    total = values.sum(axis=1)
    repeats = orders > 1
    columns = (
        now - last,
        orders,
        now - first,
        total,
        total / orders,
        np.where(valid, units, 0).sum(axis=1),
        np.where(repeats, (last - first) / np.maximum(orders - 1, 1), NO_GAP),
        np.where(repeats, last - before, NO_GAP),
        values[row, orders - 1],
        (valid & (day >= now[:, None] - RECENT_DAYS)).sum(axis=1),
    )
    rows: npt.NDArray[np.float32] = np.stack(columns, axis=1).astype(np.float32)
    return rows
