"""What `make` answers on a Python that the project does not support, and the commands of CONTRIBUTING.md."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.stack import ROOT


def fake_python(folder: Path, version: tuple[int, int, int]) -> Path:
    """An interpreter that says that it has another version."""
    script = folder / "python"
    program = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}" "$2"\n')
    script.chmod(0o755)
    return script


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # What an outer `make` hands on in MAKEFLAGS is not for this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("goal", ["demo", "test-python"])
@pytest.mark.parametrize("version", [(3, 10, 14), (3, 14, 0), (2, 7, 18)])
def test_a_python_that_is_not_supported_is_answered_with_those_that_are(
    goal: str, version: tuple[int, int, int], tmp_path: Path
) -> None:
    python, venv = fake_python(tmp_path, version), tmp_path / "venv"
    done = make(goal, f"PYTHON={python}", f"VENV={venv}")
    line, *rest = [each for each in done.stderr.splitlines() if not each.startswith("make")]
    assert done.returncode != 0
    assert not rest
    assert all(named in line for named in ("3.11", "3.12", "3.13", str(python), f"make {goal} PYTHON="))
    assert not venv.exists()


def test_a_python_that_does_not_exist_is_named(tmp_path: Path) -> None:
    done = make("env", "PYTHON=python3.99", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert "python3.99" in done.stderr


CONTRIBUTING = re.findall(r"`(make [^`]+)`", " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split()))


@pytest.mark.parametrize("command", CONTRIBUTING)
def test_a_command_of_the_contributors_page_would_run(command: str) -> None:
    arguments = shlex.split(command)[1:]
    done = make("--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    for each in arguments:
        if each.startswith("ONLY="):
            assert f"pytest -n 6 --require-all {each.removeprefix('ONLY=')}\n" in done.stdout


def test_the_contributors_page_shows_how_to_run_a_part() -> None:
    assert any("ONLY=" in command for command in CONTRIBUTING)


def test_a_clean_takes_away_what_was_built_alone(tmp_path: Path) -> None:
    """In a copy of the project's parts that it needs, which has neither an environment nor a git repository."""
    for name in ("Makefile", "training"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    models = tmp_path / "triton_models"
    contents = {
        "a/1/model.onnx": b"built",
        "a/1/more.onnx": b"mine",
        "b/1/model.onnx": b"mine",
        "a/1/__pycache__/x.pyc": b"",
    }
    for path, content in contents.items():
        (models / path).parent.mkdir(parents=True, exist_ok=True)
        (models / path).write_bytes(content)
    stamp = {
        "artefacts": {"a/1/model.onnx": sha256(b"built").hexdigest(), "b/1/model.onnx": sha256(b"built").hexdigest()}
    }
    (models / ".artefacts.json").write_text(json.dumps(stamp))
    done = subprocess.run(
        ["make", "clean", f"PYTHON={sys.executable}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {each.relative_to(models).as_posix() for each in models.rglob("*") if each.is_file()} == {
        "a/1/more.onnx",
        "b/1/model.onnx",
    }
    assert "b/1/model.onnx" in done.stdout
