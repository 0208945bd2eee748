"""`tidegate models graph`: inputs, steps and outputs of a model as Mermaid and as SVG."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result
from tidegate.cli import main

from tests.models.lint.base import write_base
from tests.support.stack import ROOT

MODELS = ROOT / "triton_models"
SVG = "{http://www.w3.org/2000/svg}"
NODE_LINE = re.compile(r'  ([ios][0-9]+)(?:\["([^"]*)"\]|\(\["([^"]*)"\]\))')
EDGE_LINE = re.compile(r'  ([ios][0-9]+) --> (?:\|"([^"]*)"\| )?([ios][0-9]+)')


def graph(*arguments: object) -> Result:
    """The outcome of the command; an exception that escapes fails the test."""
    return CliRunner().invoke(main, ["models", "graph", *map(str, arguments)], catch_exceptions=False)


def edges(text: str) -> set[tuple[str, str, str]]:
    """The edges of a flowchart as (from, to, label), by the first line of each node's label."""
    names: dict[str, str] = {}
    found = []
    first, *lines = text.splitlines()
    assert first == "flowchart LR"
    for line in lines:
        node, edge = NODE_LINE.fullmatch(line), EDGE_LINE.fullmatch(line)
        assert node or edge, line
        if node:
            names[node[1]] = (node[2] or node[3]).split("<br>")[0]
        elif edge:
            found.append((edge[1], edge[3], edge[2] or ""))
    return {(names[start], names[end], label) for start, end, label in found}


def svg_of(model: str, directory: Path = MODELS) -> ET.Element:
    result = graph(directory, model, "--format", "svg")
    assert result.exit_code == 0, result.stderr
    return ET.fromstring(result.stdout)


def test_mermaid_has_every_tensor_from_inputs_to_outputs() -> None:
    assert edges(graph(MODELS, "title_ranking_ease").stdout) == {
        ("MEMBER_ID", "title_history/1", ""),
        ("title_history/1", "title_scorer_ease/1", "history<br>FP32 [1682]"),
        ("title_history/1", "title_topk/1", "seen<br>BOOL [1682]"),
        ("title_scorer_ease/1", "title_topk/1", "scores<br>FP32 [1682]"),
        ("title_topk/1", "TITLE_IDS", ""),
        ("title_topk/1", "TITLES", ""),
        ("title_topk/1", "TITLE_SCORES", ""),
    }


def test_a_model_that_is_no_ensemble_is_its_own_step() -> None:
    assert edges(graph(MODELS, "query_grams").stdout) == {
        ("QUERY", "query_grams", ""),
        ("query_grams", "GRAMS", ""),
    }


def test_a_picture_does_not_depend_on_the_process() -> None:
    command = [sys.executable, "-m", "tidegate.cli", "models", "graph", str(MODELS), "purchase_propensity_gbdt"]
    drawn = {
        subprocess.run(
            command, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, timeout=300, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(drawn) == 1


def test_the_svg_is_well_formed_named_and_has_its_text_as_text(tmp_path: Path) -> None:
    file = tmp_path / "ranking.svg"
    result = graph(MODELS, "title_ranking_ease", "-o", file)
    assert result.exit_code == 0
    assert result.stdout == f"{file}: svg, {file.stat().st_size} bytes\n"
    root = ET.fromstring(file.read_text(encoding="utf-8"))
    assert root.get("role") == "img"
    title = root.find(f"{SVG}title")
    assert title is not None
    assert title.text == "Model title_ranking_ease"
    shown = {element.text for element in root.iter(f"{SVG}text")}
    assert {"MEMBER_ID", "title_history/1", "python, batches up to 64", "SEEN", "TITLES", "BYTES [-1]"} <= shown


@pytest.mark.parametrize("model", ["purchase_propensity_gbdt", "title_search_semantic", "title_topk"])
def test_nothing_in_the_svg_covers_anything_else(model: str) -> None:
    root = svg_of(model)
    columns: dict[str, list[tuple[float, float]]] = {}
    for box in root.iter(f"{SVG}rect"):
        if box.get("class") == "card":
            top = float(box.get("y", "nan"))
            columns.setdefault(box.get("x", ""), []).append((top, top + float(box.get("height", "nan"))))
    for spans in columns.values():
        spans.sort()
        assert all(below[0] > above[1] for above, below in itertools.pairwise(spans))
        assert spans[0][0] > 0
        assert spans[-1][1] < float(root.get("height", "nan"))


def test_a_tensor_that_skips_a_column_passes_beside_its_steps() -> None:
    """MEAN_ORDER_VALUE goes from the first step to the third; its line must not run through the second."""
    root = svg_of("purchase_propensity_gbdt")
    line = next(path for path in root.iter(f"{SVG}path") if "MEAN_ORDER_VALUE" in "".join(path.itertext()))
    numbers = [float(number) for number in re.findall(r"-?[0-9.]+", line.get("d", ""))]
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    scorer = next(box for box in root.iter(f"{SVG}rect") if "purchase_scorer_gbdt/1" in "".join(box.itertext()))
    left, top = float(scorer.get("x", "nan")), float(scorer.get("y", "nan"))
    right, bottom = left + float(scorer.get("width", "nan")), top + float(scorer.get("height", "nan"))
    inside = [y for x, y in points if left <= x <= right]
    assert inside
    assert all(y < top or y > bottom for y in inside)


def test_json_has_the_text_and_the_file(tmp_path: Path) -> None:
    result = graph(MODELS, "title_topk", "--json", "-o", tmp_path / "topk.mmd")
    document = json.loads(result.stdout)
    assert document["format"] == "mermaid"
    assert document["file"] == str(tmp_path / "topk.mmd")
    assert document["text"] == (tmp_path / "topk.mmd").read_text()
    assert '"SEEN<br>BOOL [1682], optional"' in document["text"]


def test_an_ensemble_in_an_ensemble_and_an_input_that_is_an_output_are_drawn(tmp_path: Path) -> None:
    models = write_base(tmp_path / "models")
    text = (models / "ranker/config.pbtxt").read_text()
    outer = text[: text.index("ensemble_scheduling")].replace('name: "ranker"', 'name: "outer"', 1)
    outer = outer.replace("output [", 'output [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] },', 1)
    (models / "outer/1").mkdir(parents=True)
    (models / "outer/1/.keep").write_text("x")
    (models / "outer/config.pbtxt").write_text(
        outer + 'ensemble_scheduling { step [ { model_name: "ranker" model_version: 1 '
        'input_map { key: "TEXT" value: "TEXT" } output_map { key: "BEST" value: "BEST" } '
        'output_map { key: "SCORES" value: "SCORES" } } ] }\n'
    )
    result = graph(models, "outer")
    assert ("TEXT", "TEXT", "") in edges(result.stdout)
    assert 'ranker/1<br>ensemble of 3 steps"' in result.stdout
    assert svg_of("outer", models).tag == f"{SVG}svg"


def test_weird_names_break_neither_form(tmp_path: Path) -> None:
    models = write_base(tmp_path / "models")
    config = models / "ranker/config.pbtxt"
    config.write_text(config.read_text().replace('"features"', r'"a \"]\n --> <b> & #c | `d` \\"'))
    result = graph(models, "ranker")
    assert result.exit_code == 0, result.stderr
    assert any("#quot;]" in label and "#lt;b#gt;" in label for _, _, label in edges(result.stdout))
    tips = ["".join(path.itertext()) for path in svg_of("ranker", models).iter(f"{SVG}path")]
    assert any("<b> & #c | `d` \\" in tip for tip in tips)


def test_a_config_with_errors_is_not_drawn(tmp_path: Path) -> None:
    models = write_base(tmp_path / "models")
    config = models / "ranker/config.pbtxt"
    config.write_text(config.read_text().replace('value: "features"', 'value: "feature"', 1))
    result = graph(models, "ranker")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "error[ensemble-unwritten]" in result.stderr
    document = json.loads(graph(models, "ranker", "--json").stdout)
    assert document["ok"] is False
    assert document["findings"]


def test_a_missing_artefact_of_a_step_does_not_hinder_the_picture(tmp_path: Path) -> None:
    models = write_base(tmp_path / "models")
    (models / "scorer/1/model.onnx").unlink()
    assert graph(models, "ranker").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MODELS, "title_rankin_ease"), "unknown model 'title_rankin_ease': did you mean"),
        ((MODELS,), "Missing argument 'MODEL'"),
        ((MODELS, "title_topk", "-o", "/proc/picture.svg"), "cannot be written"),
        ((MODELS, "title_topk", "--format", "png"), "'png' is not one of 'mermaid', 'svg'"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[object, ...], message: str) -> None:
    result = graph(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
