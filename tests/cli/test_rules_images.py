"""Manifests of images are part of the rules directory: `tidegate rules check` reads them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.rules_runner import FLEET, rules, write

NAMED = FLEET.replace("{replicas: 1}", '{replicas: 1, image: {name: "own:1", manifest: images/own.yaml}}')


def test_a_manifest_that_a_shard_names_is_read(tmp_path: Path) -> None:
    write(tmp_path, {"fleet.yaml": NAMED, "images/own.yaml": "image: own:1\nbackends: [python]\n"})
    told = rules("check", tmp_path)
    assert told.exit_code == 0, told.output
    assert "images/own.yaml" not in told.output


@pytest.mark.parametrize("fleet", [FLEET, NAMED], ids=["unnamed", "named"])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("image: own:1\nmodles: [a]\n", 2),
        ("image: own:1\ncomplete: [all]\n", 2),
        ("modules: [a]\n", 1),
        ("\0 no YAML", 1),
        ("image: [\n", 1),
        ("", 1),
    ],
)
def test_a_malformed_manifest_is_refused_with_its_line(fleet: str, text: str, line: int, tmp_path: Path) -> None:
    told = rules("check", write(tmp_path, {"fleet.yaml": fleet, "images/own.yaml": text}))
    assert told.exit_code == 1
    assert f"images/own.yaml:{line}:" in told.output
    assert "error[author-error]" in told.output
    assert "error" not in told.output.replace("error[author-error]", "").partition("\n1 error")[0]


def test_a_manifest_that_no_shard_names_is_reported(tmp_path: Path) -> None:
    write(tmp_path, {"images/own.yaml": "image: own:1\n"})
    told = rules("check", tmp_path)
    assert told.exit_code == 0
    assert "images/own.yaml:1:1: warning[no-effect]" in told.output


def test_a_manifest_of_another_image_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"fleet.yaml": NAMED, "images/own.yaml": "image: own:2\n"})
    told = rules("check", tmp_path)
    assert told.exit_code == 1
    assert "fleet.yaml:1:" in told.output
    assert "'own:1'" in told.output
    assert "'own:2'" in told.output
