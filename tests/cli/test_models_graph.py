"""`tidegate models graph`: inputs, steps and outputs of a model as Mermaid text."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tidegate.cli import main

from tests.models.lint.base import write_base
from tests.support.stack import ROOT

MODELS = ROOT / "triton_models"
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


def test_weird_names_break_nothing(tmp_path: Path) -> None:
    models = write_base(tmp_path / "models")
    config = models / "ranker/config.pbtxt"
    config.write_text(config.read_text().replace('"features"', r'"a \"]\n --> <b> & #c | `d` \\"'))
    result = graph(models, "ranker")
    assert result.exit_code == 0, result.stderr
    assert any("#quot;]" in label and "#lt;b#gt;" in label for _, _, label in edges(result.stdout))


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
        ((MODELS, "title_topk", "-o", "/proc/picture.mmd"), "cannot be written"),
        ((MODELS, "title_topk", "-o", "picture.svg"), "name it .md or .mmd"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[object, ...], message: str) -> None:
    result = graph(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
