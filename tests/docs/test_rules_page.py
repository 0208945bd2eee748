"""Every example of docs/rules.md and the rule of the README compile, and the Python on the page runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from pydantic import BaseModel
from tidegate.cli import main as commands
from tidegate.language import case_documents as cases
from tidegate.language import documents
from tidegate.rules import compile_directory, load_bundle

from tests.docs.blocks import ROOT, Block, blocks

PAGE = [block for block in blocks("docs/rules.md") if block.language in ("yaml", "python")]
YAML = [block for block in PAGE if block.language == "yaml"]
FILES = {block.text.splitlines()[0].removeprefix("# "): block.text for block in YAML if block.text.startswith("# ")}
FRAGMENTS = [block for block in YAML if not block.text.startswith("# ")]


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def test_the_pages_files_make_a_rules_directory(tmp_path: Path) -> None:
    assert sorted(FILES) == ["cases/ranking.yaml", "fleet.yaml", "layers.yaml", "objectives/ranking.yaml"]
    engine = load_bundle(compile_directory(write(tmp_path, FILES)))
    assert engine.decide("ranking", {"member_id": "1", "is_kids": True}).rule == "kids"
    assert engine.decide("ranking", {"member_id": "1"}).model == "ranking_v1"


def test_the_pages_cases_pass(tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["rules", "test", str(write(tmp_path, FILES))])
    assert done.exit_code == 0, done.output
    assert "3 passed" in done.output


def test_every_key_of_every_file_is_on_the_page() -> None:
    text = (ROOT / "docs/rules.md").read_text(encoding="utf-8") + (ROOT / "docs/callers.md").read_text(encoding="utf-8")
    models = [each for module in (documents, cases) for each in vars(module).values() if isinstance(each, type)]
    keys = {
        field.alias or name
        for each in models
        if issubclass(each, BaseModel)
        for name, field in each.model_fields.items()
    }
    assert len(keys) > 40
    missing = sorted(key for key in keys if not re.search(rf"\b{re.escape(key)}\b", text))
    assert not missing


@pytest.mark.parametrize("block", FRAGMENTS, ids=str)
def test_a_fragment_fits_the_pages_objective(block: Block, tmp_path: Path) -> None:
    objective = yaml.safe_load(FILES["objectives/ranking.yaml"])
    objective["rules"] = yaml.safe_load(block.text) + objective["rules"]
    files = FILES | {"objectives/ranking.yaml": yaml.safe_dump(objective, sort_keys=False)}
    engine = load_bundle(compile_directory(write(tmp_path, files)))
    traced = engine.explain("ranking", {"member_id": "1"}).rules
    assert [rule.rule for rule in traced] == [rule["id"] for rule in objective["rules"]]


@pytest.mark.parametrize("block", [block for block in PAGE if block.language == "python"], ids=str)
def test_the_pages_python_runs(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    exec(compile(block.text, str(block), "exec"), {"__name__": "page"})


def test_the_readmes_rule_compiles(tmp_path: Path) -> None:
    rule = next(block.text for block in blocks("README.md") if block.language == "yaml")
    beside = {
        name: (ROOT / "routing_rules" / name).read_text(encoding="utf-8") for name in ("fleet.yaml", "layers.yaml")
    }
    files = {**beside, "objectives/title_ranking.yaml": rule}
    files |= {f"images/{path.name}": path.read_text() for path in (ROOT / "routing_rules/images").iterdir()}
    engine = load_bundle(compile_directory(write(tmp_path, files)))
    decision = engine.decide("title_ranking", {"member_id": "1", "country": "US", "app_version": "8.10"})
    assert decision.rule == "svd-canary"
