"""The output of an objective that is a ranking."""

from __future__ import annotations

from pathlib import Path

import pytest
from tidegate.errors import RulesError
from tidegate.rules import Engine, compile_directory, load_bundle
from tidegate.rules.contract import Ranking


def engine(folder: Path, ranking: str) -> Engine:
    (folder / "objectives").mkdir(parents=True)
    (folder / "fleet.yaml").write_text("shards: {a: {}}\nmodels: {m: {shards: [a]}}\n")
    (folder / "objectives/o.yaml").write_text(f"objective: o\n{ranking}\nrules: [{{id: all, serve: m}}]\n")
    return load_bundle(compile_directory(folder))


@pytest.mark.parametrize(
    ("text", "ranking"),
    [
        ("ranking: {output: IDS, k: 3}", Ranking("IDS", 3)),
        ("ranking: {output: IDS}", Ranking("IDS", 10)),
        ("", None),
    ],
)
def test_a_bundle_has_the_ranking_of_its_objective(tmp_path: Path, text: str, ranking: Ranking | None) -> None:
    assert engine(tmp_path, text).objectives["o"].ranking == ranking


def test_rules_without_a_ranking_are_what_they_were(tmp_path: Path) -> None:
    texts = ["", "ranking: {output: IDS}", "ranking: {output: IDS, k: 10}", "ranking: {output: IDS, k: 9}"]
    plain, *ranked = [engine(tmp_path / str(number), text).revision for number, text in enumerate(texts)]
    assert b"ranking" not in compile_directory(tmp_path / "0")
    assert plain != ranked[0] == ranked[1] != ranked[2]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("ranking: IDS", "ranking"),
        ("ranking: {k: 3}", "output"),
        ("ranking: {output: ''}", "output"),
        ("ranking: {output: IDS, k: 0}", "k"),
        ("ranking: {output: IDS, k: 1001}", "k"),
        ("ranking: {output: IDS, k: 2.5}", "k"),
        ("ranking: {output: IDS, top: 3}", "top"),
    ],
)
def test_a_ranking_of_another_shape_is_a_mistake_with_its_place(tmp_path: Path, text: str, wrong: str) -> None:
    with pytest.raises(RulesError, match=wrong) as caught:
        engine(tmp_path, text)
    assert caught.value.findings[0].line == 2
