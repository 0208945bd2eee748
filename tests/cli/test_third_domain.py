"""A domain that somebody adds beside the examples is checked, tested and placed like them, and not judged by our style."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tidegate.cli import main

from tests.support import third_domain
from tests.support.examples import MODELS, OBJECTIVES, RULES
from tests.support.parts import ROOT, need


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's rules and models with a third domain."""
    root = tmp_path_factory.mktemp("project")
    shutil.copytree(RULES, root / RULES.name)
    shutil.copytree(MODELS, root / MODELS.name, ignore=shutil.ignore_patterns("__pycache__"))
    third_domain.add(root / RULES.name, root / MODELS.name)
    return root


def tidegate(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments], catch_exceptions=False)


def test_its_rules_are_sound_and_its_cases_pass(project: Path) -> None:
    rules = project / RULES.name
    assert tidegate("rules", "check", rules, "--strict").exit_code == 0
    tested = json.loads(tidegate("rules", "test", rules, "--require-coverage", "--json").stdout)
    assert tested["ok"]
    assert {*OBJECTIVES, "churn_risk"} <= {each["objective"] for each in tested["coverage"]}


def test_its_models_are_sound(project: Path) -> None:
    need("onnx", "example models")
    result = tidegate("models", "check", project / MODELS.name, third_domain.MODEL, third_domain.ENSEMBLE)
    assert result.exit_code == 0, result.stderr


def test_its_models_are_placed(project: Path) -> None:
    planned = tidegate("fleet", "plan", "--rules", project / RULES.name, "--models", project / MODELS.name)
    assert planned.exit_code == 0, planned.stderr


def test_nobody_formats_its_model(project: Path) -> None:
    need("ruff")
    shutil.copy(ROOT / "pyproject.toml", project)
    for command in (["format", "--check"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "."], cwd=project, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout
