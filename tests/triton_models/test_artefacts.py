"""What somebody puts in the place of an artefact, or beside one, is theirs: no build and no `make clean` takes it away."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from training.__main__ import main
from training.artefacts import (
    STAMP,
    Artefacts,
    changed_artefacts,
    remove_built,
    remove_outdated,
    stale_because,
    write_stamp,
)

from .conftest import ROOT


@pytest.fixture
def built(tmp_path: Path) -> Path:
    artefacts = Artefacts(tmp_path / "models")
    artefacts.write("scorer/1/model.onnx", b"built")
    artefacts.write("history/facts/members.jsonl", b"built")
    write_stamp(artefacts, {})
    return artefacts.root


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_a_clean_removes_what_was_built_and_nothing_else(built: Path) -> None:
    for path in ("scorer/config.pbtxt", "scorer/2/model.onnx", "mine/1/model.onnx", "mine/1/weights.npz"):
        (built / path).parent.mkdir(parents=True, exist_ok=True)
        (built / path).write_bytes(b"mine")
    assert remove_built(built) == ()
    assert files(built) == {"scorer/config.pbtxt", "scorer/2/model.onnx", "mine/1/model.onnx", "mine/1/weights.npz"}
    assert not (built / "history/facts").exists()


def test_a_clean_keeps_an_artefact_that_was_changed(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (built / "scorer/1/model.onnx").write_bytes(b"retrained")
    assert main(["--clean", "--out", str(built)]) == 0
    assert files(built) == {"scorer/1/model.onnx"}
    assert "scorer/1/model.onnx" in capsys.readouterr().out


@pytest.mark.parametrize("stamp", ["", "[]", '{"artefacts": 1}', '{"artefacts": {"../outside": "x"}}'])
def test_a_clean_without_a_readable_stamp_removes_no_artefact(built: Path, stamp: str) -> None:
    outside = built.parent / "outside"
    outside.write_bytes(b"")
    (built / STAMP).write_text(stamp)
    assert remove_built(built) == ()
    assert files(built) == {"scorer/1/model.onnx", "history/facts/members.jsonl"}
    assert outside.exists()


def test_a_build_keeps_an_artefact_that_was_changed(built: Path) -> None:
    (built / "scorer/1/model.onnx").write_bytes(b"retrained")
    assert stale_because(built) is None, "it is no reason to build"
    assert changed_artefacts(built) == ("scorer/1/model.onnx",)
    again = Artefacts(built)
    again.write("scorer/1/model.onnx", b"built anew")
    again.write("history/facts/members.jsonl", b"built anew")
    write_stamp(again, {})
    assert (built / "scorer/1/model.onnx").read_bytes() == b"retrained"
    assert (built / "history/facts/members.jsonl").read_bytes() == b"built anew"
    assert changed_artefacts(built) == ("scorer/1/model.onnx",)
    forced = Artefacts(built, forced=True)
    forced.write("scorer/1/model.onnx", b"built anew")
    assert (built / "scorer/1/model.onnx").read_bytes() == b"built anew"


def test_a_build_that_does_not_make_an_artefact_any_more_keeps_one_that_was_changed(built: Path) -> None:
    (built / "scorer/1/model.onnx").write_bytes(b"retrained")
    remove_outdated(Artefacts(built))
    assert files(built) == {"scorer/1/model.onnx", STAMP}


def test_git_ignores_what_is_built_and_nothing_else(artefacts: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    shutil.copy(ROOT / "triton_models" / ".gitignore", tmp_path)
    built = list(json.loads((artefacts / STAMP).read_text("utf-8"))["artefacts"])
    mine = [
        "mine/1/model.onnx",
        "mine/1/weights.npz",
        "mine/1/vocab.txt",
        "mine/1/catalogue.json",
        "title_encoder/2/model.onnx",
    ]
    asked = subprocess.run(
        ["git", "-C", tmp_path, "check-ignore", "--stdin"],
        input="\n".join([*built, STAMP, *mine]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.stdout.splitlines() == [*built, STAMP]
