"""Purchase propensity on the real Triton: a customer's orders in, a decision out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from tests.support.examples import PURCHASE
from training.artefacts import step_code

from .conftest import Server

FEATURES = step_code("order_features/1/features.py")
REGULAR = [(30 * month, 2, 40.0) for month in range(12)]
LAPSED = [(10, 1, 15.0)]
NEWCOMER = [(300, 1, 90.0), (310, 1, 70.0)]


def orders(*customers: list[tuple[int, int, float]], as_of: int = 365) -> dict[str, np.ndarray[Any, Any]]:
    longest = max(map(len, customers))
    rows = [customer + [(0, 0, 0.0)] * (longest - len(customer)) for customer in customers]
    day, units, value = (np.array([[order[part] for order in row] for row in rows]) for part in range(3))
    return {
        "ORDER_DAY": day.astype(np.int32),
        "ORDER_UNITS": units.astype(np.int32),
        "ORDER_VALUE": value.astype(np.float32),
        "AS_OF": np.full((len(customers), 1), as_of, np.int32),
    }


@pytest.mark.parametrize("model", PURCHASE)
def test_regular_customers_are_held_and_lapsed_ones_are_not(server: Server, model: str) -> None:
    answer = server.infer(model, orders(REGULAR, LAPSED))
    assert {name: (array.shape, array.dtype.kind) for name, array in answer.items()} == {
        "DECISION": ((2, 1), "O"),
        "PROPENSITY": ((2, 1), "f"),
        "EXPECTED_VALUE": ((2, 1), "f"),
    }
    assert answer["PROPENSITY"][0, 0] > 0.6 > 0.3 > answer["PROPENSITY"][1, 0] > 0
    assert answer["DECISION"][0, 0] == b"hold"
    np.testing.assert_allclose(answer["EXPECTED_VALUE"], answer["PROPENSITY"] * [[40], [15]], rtol=1e-5)


@pytest.mark.parametrize("model", PURCHASE)
def test_batch_of_three_equals_three_singles(server: Server, model: str) -> None:
    batch = server.infer(model, orders(REGULAR, LAPSED, NEWCOMER))
    for row, customer in enumerate((REGULAR, LAPSED, NEWCOMER)):
        single = server.infer(model, orders(customer))
        assert batch["DECISION"][row, 0] == single["DECISION"][0, 0]
        np.testing.assert_allclose(batch["PROPENSITY"][row], single["PROPENSITY"][0], rtol=1e-5)


def test_parameters_move_the_decision(server: Server) -> None:
    def decision(parameters: dict[str, Any], headers: dict[str, str]) -> bytes:
        result: bytes = server.infer(PURCHASE[1], orders(LAPSED), parameters, headers)["DECISION"][0, 0]
        return result

    assert decision({"offer_cost": 0.5}, {}) == b"offer"
    assert decision({"offer_cost": "1e6"}, {}) == b"none"
    assert decision({"offer_cost": 0.5}, {"Tidegate-Param-offer_cost": "1000"}) == b"none"
    assert decision({}, {"Tidegate-Param-margin": "0", "Tidegate-Param-offer_cost": "0"}) == b"none"


@pytest.mark.parametrize(
    ("name", "text", "right"),
    [("margin", "1.5", "from 0 to 1"), ("margin", "half", "from 0 to 1"), ("offer_cost", "-1", "of at least 0")]
    + [("offer_cost", text, "of at least 0") for text in ("nan", "inf", "1e999")],
)
def test_malformed_parameters_are_refused_by_name(server: Server, name: str, text: str, right: str) -> None:
    with pytest.raises(InferenceServerException, match=f"'Tidegate-Param-{name}' must be a number {right}") as error:
        server.infer(PURCHASE[0], orders(REGULAR), headers={f"Tidegate-Param-{name}": text})
    assert error.value.status() == "400"


def test_unusable_orders_are_refused_by_row(server: Server) -> None:
    with pytest.raises(InferenceServerException, match="row 1: no order of at least one unit"):
        server.infer(PURCHASE[0], orders(REGULAR, [(400, 1, 10.0)]))
    with pytest.raises(InferenceServerException, match="row 0: ORDER_VALUE must be finite"):
        server.infer(PURCHASE[0], orders([(1, 1, float("nan"))]))
    ragged = orders(REGULAR) | {"ORDER_DAY": np.zeros((1, 3), np.int32)}
    with pytest.raises(InferenceServerException, match="must have one shape"):
        server.infer(PURCHASE[0], ragged)


def one_by_one(customer: list[tuple[int, int, float]], as_of: int) -> list[float]:
    """The features of one customer, straight from their definitions."""
    counted = sorted((o for o in customer if o[1] > 0 and o[0] < as_of), key=lambda order: order[0])
    days = [order[0] for order in counted]
    values = [order[2] for order in counted]
    gaps = [later - earlier for earlier, later in pairwise(days)]
    return [
        as_of - days[-1],
        len(days),
        as_of - days[0],
        sum(values),
        sum(values) / len(values),
        sum(order[1] for order in counted),
        sum(gaps) / len(gaps) if gaps else -1,
        gaps[-1] if gaps else -1,
        values[-1],
        sum(day >= as_of - 90 for day in days),
    ]


ORDER = st.tuples(st.integers(-500, 500), st.integers(0, 5), st.integers(0, 1000).map(float))


@settings(max_examples=100, deadline=None)
@given(
    customers=st.lists(st.lists(ORDER, max_size=8).map(lambda rest: [*rest, (-1, 1, 5.0)]), min_size=1, max_size=4),
    as_of=st.integers(0, 400),
)
def test_features_of_a_batch_are_those_of_each_customer(
    customers: list[list[tuple[int, int, float]]], as_of: int
) -> None:
    sent = orders(*customers, as_of=as_of)
    rows = FEATURES.features(sent["ORDER_DAY"], sent["ORDER_UNITS"], sent["ORDER_VALUE"], sent["AS_OF"][:, 0])
    np.testing.assert_allclose(rows, [one_by_one(customer, as_of) for customer in customers], rtol=1e-6)
