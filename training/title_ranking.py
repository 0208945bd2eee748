"""Title ranking on MovieLens-100K: popularity, PureSVD and EASE, each as an ONNX graph from history to scores.

Cremonesi et al., "Performance of recommender algorithms on top-N recommendation tasks", RecSys 2010 (PureSVD),
https://doi.org/10.1145/1864708.1864721; Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019 (EASE),
https://arxiv.org/abs/1905.03375.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from training.artefacts import Artefacts
from training.measures import interval, rounded
from training.movielens import MovieLens
from training.onnx_graph import FLOAT, Signature, graph, node, run

MIN_LIKES = 10
"""Members with fewer likes have a history, but neither trained on nor tested with."""

HELD_OUT_SHARE = 5
"""One member in five is tested with and not trained on."""

SHOWN_SHARE = 0.8
"""The earlier share of a tested member's likes is the history; the later rest is to be found."""

SVD_RANK = 32
EASE_PENALTIES = (50, 100, 200, 400, 800)
CUTOFF = 10

Matrix = npt.NDArray[np.float32]
History = npt.NDArray[np.int64]
"""Positions of the titles that a member likes, oldest like first."""


@dataclass(frozen=True, slots=True)
class Cases:
    """Tested members: what is shown of each, and what is to be found, both [members, titles] of 0 and 1."""

    shown: Matrix
    hidden: Matrix

    def best(self, scores: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
        """The positions of the best titles that are not shown."""
        masked = np.where(self.shown > 0, -np.inf, scores)
        order: npt.NDArray[np.intp] = np.argsort(-masked, axis=1, kind="stable")
        return order[:, :CUTOFF]

    def recall(self, scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Recall at 10 of each member, of titles by their scores."""
        return self.found(self.best(scores))

    def found(self, best: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """Recall at 10 of each member: titles found among the `best`, of those that could be."""
        hits = np.take_along_axis(self.hidden, best, axis=1).sum(axis=1)
        result: npt.NDArray[np.float64] = hits / np.minimum(CUTOFF, self.hidden.sum(axis=1))
        return result


def build(data: MovieLens, out: Artefacts) -> dict[str, Any]:
    """Write the catalogue, members' histories and the three scorers; return their offline metrics."""
    out.write("title_topk/1/catalogue.json", data.catalogue())
    out.write("title_history/1/titles.npz", _title_ids(data))
    out.write("title_history/facts/member_history.jsonl", _histories(data))

    histories, tested = split(data)
    titles = len(data.titles)
    train, cases = _rows(histories, titles), as_cases(tested, titles)
    popularity = train.mean(axis=0, dtype=np.float64).astype(np.float32)
    penalty = _best_penalty(histories, titles)
    item_weights = _ease(train, penalty)
    _, _, right = np.linalg.svd(train, full_matrices=False)
    factors = np.ascontiguousarray(right[:SVD_RANK].T)
    models = {
        "popularity": _popularity_graph(popularity),
        "svd": _scorer_graph("title_scorer_svd", popularity, [factors, np.ascontiguousarray(factors.T)]),
        "ease": _scorer_graph("title_scorer_ease", popularity, [item_weights]),
    }
    for name, model in models.items():
        out.write(f"title_scorer_{name}/1/model.onnx", model)
    scores = {name: run(model, HISTORY=cases.shown) for name, model in models.items()}
    counts = {"train_members": len(train), "test_members": len(cases.shown), "titles": titles}
    return counts | {"likes": int(data.is_liked.sum()), "ease_penalty": penalty} | _metrics(cases, scores)


def _title_ids(data: MovieLens) -> bytes:
    """The catalogue's ids, in its order: which column of a history a title is."""
    buffer = io.BytesIO()
    np.savez(buffer, ids=np.array([title.id for title in data.titles], np.int64))
    return buffer.getvalue()


def _histories(data: MovieLens) -> bytes:
    """Members' histories as the seed file of the facts that `title_history` looks up."""
    ids = np.array([title.id for title in data.titles])[data.position]
    lines = []
    for member in np.unique(data.member):
        own = data.member == member
        value = {"liked": _sorted(ids[own & data.is_liked]), "rated": _sorted(ids[own])}
        lines.append(json.dumps({"key": str(member), "value": value}, separators=(",", ":")) + "\n")
    return "".join(lines).encode()


def _sorted(ids: npt.NDArray[np.int64]) -> list[int]:
    found: list[int] = np.unique(ids).tolist()
    return found


def split(data: MovieLens) -> tuple[list[History], list[History]]:
    """The histories of members to train on, and of members to test with, whom training never sees."""
    members, likes = np.unique(data.member[data.is_liked], return_counts=True)
    members = members[likes >= MIN_LIKES]
    np.random.default_rng(7).shuffle(members)
    held_out = len(members) // HELD_OUT_SHARE
    histories = [_history(data, member) for member in members]
    return histories[held_out:], histories[:held_out]


def _history(data: MovieLens, member: int) -> History:
    own = np.flatnonzero((data.member == member) & data.is_liked)
    history: History = data.position[own[np.argsort(data.time[own], kind="stable")]]
    return history


def as_cases(histories: Sequence[History], titles: int) -> Cases:
    """Show the earlier likes of members, and hide the later ones."""
    cuts = [max(1, int(len(history) * SHOWN_SHARE)) for history in histories]
    shown = [history[:cut] for history, cut in zip(histories, cuts, strict=True)]
    hidden = [history[cut:] for history, cut in zip(histories, cuts, strict=True)]
    return Cases(_rows(shown, titles), _rows(hidden, titles))


def _rows(histories: list[History], titles: int) -> Matrix:
    matrix = np.zeros((len(histories), titles), np.float32)
    for row, history in enumerate(histories):
        matrix[row, history] = 1
    return matrix


def _ease(likes: Matrix, penalty: float) -> Matrix:
    gram = (likes.T @ likes).astype(np.float64)
    gram[np.diag_indices_from(gram)] += penalty
    inverse = np.linalg.inv(gram)
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return weights.astype(np.float32)


def _best_penalty(train: list[History], titles: int) -> int:
    """The penalty with the best recall on members that are held out of *training*; tested members play no part."""
    held_out = len(train) // HELD_OUT_SHARE
    cases, kept = as_cases(train[:held_out], titles), _rows(train[held_out:], titles)
    recalls = [cases.recall(cases.shown @ _ease(kept, penalty)).mean() for penalty in EASE_PENALTIES]
    return EASE_PENALTIES[int(np.argmax(recalls))]


def _popularity_graph(popularity: Matrix) -> bytes:
    titles = len(popularity)
    nodes = [node("Shape", ["HISTORY"], "shape"), node("Expand", ["popularity", "shape"], "SCORES")]
    signature: Signature = {"HISTORY": (FLOAT, ["batch", titles])}
    return graph(
        "title_scorer_popularity",
        nodes,
        signature,
        {"SCORES": (FLOAT, ["batch", titles])},
        {"popularity": popularity[None]},
    )


def _scorer_graph(name: str, popularity: Matrix, factors: list[Matrix]) -> bytes:
    """HISTORY times the factors; a row whose history is empty gets popularity instead."""
    titles = len(popularity)
    names = [f"factor_{number}" for number in range(len(factors))]
    products = ["HISTORY", *(f"product_{number}" for number in range(len(factors)))]
    nodes = [
        *(node("MatMul", [products[n], names[n]], products[n + 1]) for n in range(len(factors))),
        node("ReduceMax", ["HISTORY"], "most", axes=[1], keepdims=1),
        node("Greater", ["most", "zero"], "has_history"),
        node("Where", ["has_history", products[-1], "popularity"], "SCORES"),
    ]
    constants = {"popularity": popularity[None], "zero": np.zeros(1, np.float32)}
    signature: Signature = {"HISTORY": (FLOAT, ["batch", titles])}
    return graph(
        name,
        nodes,
        signature,
        {"SCORES": (FLOAT, ["batch", titles])},
        constants | dict(zip(names, factors, strict=True)),
    )


def _metrics(cases: Cases, scores: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    recall = {name: cases.recall(values) for name, values in scores.items()}
    metrics: dict[str, Any] = {name: _measure(cases, values) for name, values in scores.items()}
    for other in ("popularity", "svd"):
        metrics[f"recall10_ease_minus_{other}"] = _mean_interval(recall["ease"] - recall[other])
    return metrics


def _mean_interval(gain: npt.NDArray[np.float64]) -> dict[str, float]:
    return interval(len(gain), lambda rows: float(gain[rows].mean()))


def _measure(cases: Cases, scores: npt.NDArray[Any]) -> dict[str, float]:
    best = cases.best(scores)
    hits = np.take_along_axis(cases.hidden, best, axis=1)
    discount = 1 / np.log2(np.arange(2, CUTOFF + 2))
    ideal = np.cumsum(discount)[np.minimum(CUTOFF, cases.hidden.sum(axis=1).astype(int)) - 1]
    return {
        "recall10": rounded(cases.recall(scores).mean()),
        "ndcg10": rounded(((hits * discount).sum(axis=1) / ideal).mean()),
        "hit10": rounded(hits.any(axis=1).mean()),
        "coverage": rounded(len(np.unique(best)) / scores.shape[1]),
    }
