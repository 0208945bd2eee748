"""Purchase propensity on CDNOW: will this customer order again within 180 days?

Fader and Hardie, "Forecasting Repeat Sales at CDNOW", 2001, https://doi.org/10.1287/inte.31.3s.94.9683. Probabilities
are calibrated by Platt scaling on customers that are neither trained on nor tested with.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import load_model_from_string
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.artefacts import Artefacts, step_code
from training.measures import interval, rounded
from training.onnx_graph import FLOAT, OPSET, node, rewired, run
from training.wheels import Wheels

EPOCH = datetime.date(1997, 1, 1)
HORIZON_DAYS = 180
TRAINED_AS_OF = (180, 270, 365)
TESTED_AS_OF = 365
BASE_FEATURES = 2
"""The baseline sees recency and frequency alone: the first two features."""

AUC_RESAMPLES = 200

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Orders:
    """Orders by customer, [customers, orders]; 0 units is padding."""

    day: npt.NDArray[np.int64]
    units: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]

    def take(self, customers: npt.NDArray[np.intp]) -> Orders:
        """The orders of some customers."""
        return Orders(self.day[customers], self.units[customers], self.value[customers])


@dataclass(frozen=True, slots=True)
class Table:
    """Features of customers as of a day, whether each ordered within the horizon, and what it spent."""

    features: npt.NDArray[np.float32]
    is_repeat: npt.NDArray[np.bool_]
    spend: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling: probability = sigmoid(slope * logit(raw) + offset)."""

    slope: float
    offset: float


def build(wheels: Wheels, out: Artefacts) -> dict[str, Any]:
    """Write the two scorers; return their offline metrics, measured on what was written."""
    orders = _load(wheels)
    customers = np.arange(len(orders.day))
    np.random.default_rng(11).shuffle(customers)
    train_part, calibration_part, test_part = np.split(
        customers, [int(0.6 * len(customers)), int(0.8 * len(customers))]
    )
    train = _table(orders.take(train_part), TRAINED_AS_OF)
    held_out = _table(orders.take(calibration_part), (TESTED_AS_OF,))
    test = _table(orders.take(test_part), (TESTED_AS_OF,))

    base = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    base.fit(train.features[:, :BASE_FEATURES], train.is_repeat)
    trees = HistGradientBoostingClassifier(
        max_iter=150, learning_rate=0.05, max_leaf_nodes=15, min_samples_leaf=100, l2_regularization=1.0, random_state=0
    ).fit(train.features, train.is_repeat)

    probabilities = {}
    for name, classifier, columns in (("base", base, BASE_FEATURES), ("gbdt", trees, train.features.shape[1])):
        model = _scorer_graph(classifier, columns, train.features.shape[1], _calibrate(classifier, columns, held_out))
        out.write(f"purchase_scorer_{name}/1/model.onnx", model)
        probabilities[name] = run(model, FEATURES=test.features)[:, 0]
    counts = {"customers": len(customers), "orders": int((orders.units > 0).sum()), "test_customers": len(test.spend)}
    return counts | {"repeat_share": rounded(test.is_repeat.mean())} | _metrics(test, probabilities)


def _load(wheels: Wheels) -> Orders:
    text = wheels.read("lifetimes", "lifetimes/datasets/CDNOW_master.txt").decode()
    rows = [line.split() for line in text.splitlines()[1:] if line.strip()]
    customer = np.array([int(row[0]) for row in rows])
    day = np.array([(datetime.date.fromisoformat(row[1]) - EPOCH).days for row in rows])
    _, row_of, count = np.unique(customer, return_inverse=True, return_counts=True)
    by_customer = np.argsort(row_of, kind="stable")
    place = (row_of[by_customer], np.concatenate([np.arange(n) for n in count]))
    shape = (len(count), int(count.max()))
    orders = Orders(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape))
    orders.day[place] = day[by_customer]
    orders.units[place] = np.array([int(row[2]) for row in rows])[by_customer]
    orders.value[place] = np.array([float(row[3]) for row in rows])[by_customer]
    return orders


def _table(orders: Orders, as_of_days: Sequence[int]) -> Table:
    code = step_code("order_features/1/features.py")
    parts = []
    for as_of in as_of_days:
        days = np.full(len(orders.day), as_of)
        known = orders.take(np.flatnonzero(code.counted(orders.day, orders.units, days).any(axis=1)))
        rows = code.features(known.day, known.units, known.value, days[: len(known.day)])
        later = (known.units > 0) & (known.day >= as_of) & (known.day < as_of + HORIZON_DAYS)
        parts.append(Table(rows, later.any(axis=1), np.where(later, known.value, 0).sum(axis=1)))
    return Table(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.is_repeat for part in parts]),
        np.concatenate([part.spend for part in parts]),
    )


def _calibrate(classifier: Any, columns: int, held_out: Table) -> Calibration:
    raw = np.clip(classifier.predict_proba(held_out.features[:, :columns])[:, 1], 1e-6, 1 - 1e-6)
    scaling = LogisticRegression(C=1e6).fit(np.log(raw / (1 - raw))[:, None], held_out.is_repeat)
    return Calibration(float(scaling.coef_[0, 0]), float(scaling.intercept_[0]))


def _scorer_graph(classifier: Any, columns: int, features: int, calibration: Calibration) -> bytes:
    """The classifier over its columns of FEATURES, with the calibration made part of the graph."""
    signature = [("RAW", FloatTensorType([None, columns]))]
    exported = to_onnx(
        classifier, initial_types=signature, options={"zipmap": False}, target_opset={"": OPSET, "ai.onnx.ml": 3}
    )
    model = load_model_from_string(exported.SerializeToString())
    model.ir_version = 9
    both_classes = model.graph.output[1].name
    after = [
        node("Gather", [both_classes, "second_class"], "raw", axis=1),
        node("Clip", ["raw", "least", "most"], "clipped"),
        node("Sub", ["one", "clipped"], "rest"),
        node("Div", ["clipped", "rest"], "odds"),
        node("Log", ["odds"], "logit"),
        node("Mul", ["logit", "slope"], "scaled"),
        node("Add", ["scaled", "offset"], "shifted"),
        node("Sigmoid", ["shifted"], "PROPENSITY"),
    ]
    scalars = {"least": 1e-6, "most": 1 - 1e-6, "one": 1.0, "slope": calibration.slope, "offset": calibration.offset}
    constants: dict[str, npt.NDArray[Any]] = {name: np.array(value, np.float32) for name, value in scalars.items()}
    return rewired(
        model,
        before=[node("Gather", ["FEATURES", "columns"], "RAW", axis=1)],
        after=after,
        inputs={"FEATURES": (FLOAT, ["batch", features])},
        outputs={"PROPENSITY": (FLOAT, ["batch", 1])},
        constants=constants | {"columns": np.arange(columns), "second_class": np.array([1])},
    )


def _metrics(test: Table, probabilities: dict[str, Floats]) -> dict[str, Any]:
    def gain(rows: npt.NDArray[np.intp]) -> float:
        truth = test.is_repeat[rows]
        return float(
            roc_auc_score(truth, probabilities["gbdt"][rows]) - roc_auc_score(truth, probabilities["base"][rows])
        )

    metrics: dict[str, Any] = {name: _measure(test, values) for name, values in probabilities.items()}
    return metrics | {"auc_gbdt_minus_base": interval(len(test.spend), gain, AUC_RESAMPLES)}


def _measure(test: Table, probability: Floats) -> dict[str, float]:
    top = np.argsort(-probability, kind="stable")[: len(probability) // 10]
    return {
        "auc": rounded(roc_auc_score(test.is_repeat, probability)),
        "average_precision": rounded(average_precision_score(test.is_repeat, probability)),
        "brier": rounded(brier_score_loss(test.is_repeat, probability)),
        "top_decile_lift": rounded(test.is_repeat[top].mean() / test.is_repeat.mean()),
        "top_decile_spend_share": rounded(test.spend[top].sum() / test.spend.sum()),
    }
