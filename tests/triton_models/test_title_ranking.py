"""Title ranking on the real Triton: a member's id in, titles that the member has not seen out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from tests.support.examples import RANKING

from .conftest import Server

KNOWN = ("1", "42", "943")
UNKNOWN = "nobody-of-that-id"
TITLES = 1682


def members(*ids: str) -> dict[str, np.ndarray[Any, Any]]:
    return {"MEMBER_ID": np.array([[member.encode()] for member in ids], np.object_)}


@pytest.fixture(scope="module")
def rated(artefacts: Path) -> dict[str, set[int]]:
    """The ids of the titles that each member has rated, as they were seeded."""
    lines = (artefacts / "title_history/facts/member_history.jsonl").read_text("utf-8").splitlines()
    return {row["key"]: set(row["value"]["rated"]) for row in map(json.loads, lines)}


@pytest.fixture(scope="module")
def catalogue(artefacts: Path) -> set[int]:
    return {title["id"] for title in json.loads((artefacts / "title_topk/1/catalogue.json").read_text("utf-8"))}


@pytest.mark.parametrize("model", RANKING)
def test_ranks_ten_unseen_titles_by_score(server: Server, rated: dict[str, set[int]], model: str) -> None:
    answer = server.infer(model, members("42"))
    assert {name: (array.shape, array.dtype.kind) for name, array in answer.items()} == {
        "TITLE_IDS": ((1, 10), "i"),
        "TITLES": ((1, 10), "O"),
        "TITLE_SCORES": ((1, 10), "f"),
    }
    assert (np.diff(answer["TITLE_SCORES"][0]) <= 0).all()
    assert len(set(answer["TITLE_IDS"][0].tolist())) == 10
    assert not rated["42"] & set(answer["TITLE_IDS"][0].tolist())


@pytest.mark.parametrize("model", RANKING)
def test_whole_catalogue_is_every_unseen_title_then_padding(
    server: Server, rated: dict[str, set[int]], catalogue: set[int], model: str
) -> None:
    answer = server.infer(model, members("1"), {"top_k": TITLES})
    unseen = TITLES - len(rated["1"])
    assert set(answer["TITLE_IDS"][0, :unseen].tolist()) == catalogue - rated["1"]
    assert not answer["TITLE_IDS"][0, unseen:].any()
    assert set(answer["TITLES"][0, unseen:].tolist()) == {b""}
    assert np.isfinite(answer["TITLE_SCORES"]).all()


@pytest.mark.parametrize("model", RANKING)
def test_batch_of_three_equals_three_singles(server: Server, model: str) -> None:
    batch = server.infer(model, members("42", UNKNOWN, "943"))
    for row, member in enumerate(("42", UNKNOWN, "943")):
        single = server.infer(model, members(member))
        np.testing.assert_array_equal(batch["TITLE_IDS"][row], single["TITLE_IDS"][0])
        np.testing.assert_array_equal(batch["TITLES"][row], single["TITLES"][0])
        np.testing.assert_allclose(batch["TITLE_SCORES"][row], single["TITLE_SCORES"][0], rtol=1e-4, atol=1e-6)


def test_members_without_likes_get_popularity_from_every_ensemble(server: Server) -> None:
    popular = server.infer("title_ranking_popularity", members(UNKNOWN, ""))
    assert popular["TITLES"][0, 0] == b"Star Wars (1977)"
    for model in RANKING:
        answer = server.infer(model, members("42", UNKNOWN, ""))
        for name, rows in popular.items():
            np.testing.assert_array_equal(answer[name][1:], rows)


def test_models_differ_for_a_known_member(server: Server) -> None:
    rankings = {tuple(server.infer(model, members("42"))["TITLE_IDS"][0].tolist()) for model in RANKING}
    assert len(rankings) == len(RANKING)


def test_rule_parameter_sets_how_many(server: Server) -> None:
    answer = server.infer("title_ranking_ease", members("42"), headers={"Tidegate-Param-top_k": "20"})
    assert answer["TITLE_IDS"].shape == (1, 20)


def test_rule_parameter_is_found_in_any_case_and_wins_over_the_body(server: Server) -> None:
    answer = server.infer("title_ranking_ease", members("42"), {"top_k": 5}, {"TIDEGATE-PARAM-TOP_K": "3"})
    assert answer["TITLE_IDS"].shape == (1, 3)
    assert server.infer("title_ranking_ease", members("42"), {"top_k": 5})["TITLE_IDS"].shape == (1, 5)


@pytest.mark.parametrize("text", ["0", "-1", "1683", "ten", "3.0", "", "1e1", "9" * 40])
def test_malformed_rule_parameter_is_refused_by_name(server: Server, text: str) -> None:
    headers = {"Tidegate-Param-top_k": text}
    with pytest.raises(
        InferenceServerException, match="'Tidegate-Param-top_k' must be an integer from 1 to 1682"
    ) as it:
        server.infer("title_ranking_svd", members("42"), headers=headers)
    assert it.value.status() == "400"


@pytest.mark.parametrize("value", [0, 1683, True, "many"])
def test_malformed_body_parameter_is_refused_by_name(server: Server, value: Any) -> None:
    with pytest.raises(InferenceServerException, match="'top_k' must be an integer from 1 to 1682"):
        server.infer("title_search_lexical", {"QUERY": np.array([[b"alien"]], np.object_)}, {"top_k": value})
