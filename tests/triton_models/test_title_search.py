"""Title search on the real Triton, and the token ids that its tokenizer gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.support.examples import SEARCH

from .conftest import Server

TOKEN_IDS = {
    "": [101, 102],
    "hello world": [101, 7592, 2088, 102],
    "Hello, World!": [101, 7592, 1010, 2088, 999, 102],
    "unaffable": [101, 14477, 20961, 3468, 102],
    "Amélie\tCAFÉ": [101, 25285, 7668, 102],
    "电影": [101, 100, 100, 102],
}
"""Frozen. `hello world` and `unaffable` are those of BERT's own documentation and tests."""


def queries(*texts: str) -> dict[str, np.ndarray[Any, Any]]:
    return {"QUERY": np.array([[text.encode()] for text in texts], np.object_)}


@pytest.mark.parametrize("model", SEARCH)
def test_finds_a_title_by_its_name(server: Server, model: str) -> None:
    answer = server.infer(model, queries("toy story"))
    assert answer["TITLES"][0, 0] == b"Toy Story (1995)"
    assert answer["TITLE_IDS"].shape == answer["TITLE_SCORES"].shape == (1, 10)


def test_lexical_finds_what_is_misspelt(server: Server) -> None:
    assert server.infer("title_search_lexical", queries("teh godfather"))["TITLES"][0, 0] == b"The Godfather (1972)"


def test_semantic_finds_what_is_meant(server: Server) -> None:
    answer = server.infer("title_search_semantic", queries("movie about dinosaurs"))
    assert b"Jurassic Park (1993)" in answer["TITLES"][0].tolist()


@pytest.mark.parametrize("model", SEARCH)
def test_batch_of_three_equals_three_singles(server: Server, model: str) -> None:
    texts = ("space", "a very long query about a detective who solves a murder on a train", "")
    batch = server.infer(model, queries(*texts))
    for row, text in enumerate(texts):
        single = server.infer(model, queries(text))
        np.testing.assert_array_equal(batch["TITLE_IDS"][row], single["TITLE_IDS"][0])
        np.testing.assert_allclose(batch["TITLE_SCORES"][row], single["TITLE_SCORES"][0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("model", SEARCH)
def test_bytes_that_are_no_text_are_searched_for_as_unknown_characters(server: Server, model: str) -> None:
    answer = server.infer(model, {"QUERY": np.array([[b"\xff\xfe alien"]], np.object_)})
    assert np.isfinite(answer["TITLE_SCORES"]).all()


def test_tokenizer_gives_berts_token_ids(server: Server) -> None:
    answer = server.infer("query_tokenizer", queries(*TOKEN_IDS))
    for row, ids in enumerate(TOKEN_IDS.values()):
        assert answer["attention_mask"][row].sum() == len(ids)
        assert answer["input_ids"][row, : len(ids)].tolist() == ids
        assert not answer["input_ids"][row, len(ids) :].any()


def test_tokenizer_cuts_long_queries(server: Server) -> None:
    ids = server.infer("query_tokenizer", queries("dinosaur " * 500))["input_ids"]
    assert ids.shape == (1, 64)
    assert ids[0, -1] == 102
