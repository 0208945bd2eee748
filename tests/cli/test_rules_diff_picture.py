"""`tidegate rules diff --svg`: the flows from old to new targets."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from tidegate.analysis.pictures.flows_svg import MOST_TARGETS

from tests.cli.diffed import FLEET, directory, with_rules
from tests.cli.rules_runner import rules

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return directory(tmp_path / "old")


def test_the_picture_shows_flows_as_thick_as_they_are(old: Path, tmp_path: Path) -> None:
    new = directory(
        tmp_path / "new",
        fleet=FLEET | {"aliases": {"base@champion": "best"}},
        rules=with_rules({"parameters": {"top_k": 30}}, {}, {}),
    )
    file = tmp_path / "flows.svg"
    assert rules("diff", old, new, "--svg", file).exit_code == 1
    root = ET.fromstring(file.read_text("utf-8"))
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == "Flows from old to new targets"
    assert "ranking: 63.33 % of the traffic moves" in (root.findtext(f"{SVG}desc") or "")
    thickness = {}
    for path in root.iter(f"{SVG}path"):
        points = [float(number) for number in re.findall(r"-?[0-9.]+", path.get("d", ""))]
        thickness[path.findtext(f"{SVG}title")] = points[9] - points[7]
    assert thickness == {
        "base → best: 63.33 %": pytest.approx(240 * 0.6333, abs=0.1),
        "better, with other settings: 33.33 %": pytest.approx(240 / 3, abs=0.1),
        "better, unchanged: 3.33 %": pytest.approx(240 / 30, abs=0.1),
    }
    bars = [bar for bar in root.iter(f"{SVG}rect") if bar.get("width") == "14"]
    assert sum(float(bar.get("height", "nan")) for bar in bars) == pytest.approx(480, abs=0.1)
    height = float(root.get("height", "nan"))
    assert all(0 < float(each.get("y", "nan")) < height for each in [*bars, *root.iter(f"{SVG}text")])


def test_the_picture_stays_readable_with_many_targets_and_says_when_nothing_moves(tmp_path: Path) -> None:
    models = {f"model_{number}": {"shards": ["cpu"]} for number in range(MOST_TARGETS + 4)}
    fleet = {"shards": {"cpu": {}}, "models": models}
    split = {model: number + 1 for number, model in enumerate(models)}
    old = directory(tmp_path / "old", fleet=fleet, rules=[{"id": "all", "split": split}])
    turned = dict(zip(split, reversed(split.values()), strict=True))
    new = directory(tmp_path / "new", fleet=fleet, rules=[{"id": "all", "split": turned}])
    file = tmp_path / "flows.svg"
    assert rules("diff", old, new, "--svg", file).exit_code == 1
    texts = [text.text for text in ET.fromstring(file.read_text("utf-8")).iter(f"{SVG}text")]
    assert texts.count("(all other targets)") == 2
    assert len(texts) < 80
    assert rules("diff", old, old, "--svg", file).exit_code == 0
    assert "Nothing moves: every request is served as before." in file.read_text("utf-8")
    assert rules("diff", old, old, "--svg", tmp_path / "no/where.svg").exit_code == 2
