"""The suite's own options: what is not installed is skipped with words, or fails; `--full` tries more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.parts import PARTS, ROOT, missing_module
from tests.support.timing import PREPARATION

HIDING = """\
import importlib.machinery, sys

class Hiding:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            return None
        return importlib.machinery.PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Hiding if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
"""


def run_pytest(folder: Path, *arguments: str, hidden: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run pytest where the modules `hidden` are not installed."""
    (folder / "hiding.py").write_text(HIDING.format(hidden=hidden))
    program = f"import sys; sys.path.insert(0, {str(folder)!r}); import hiding, pytest; sys.exit(pytest.main())"
    return subprocess.run(
        [sys.executable, "-c", program, "-rs", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env=os.environ | {PREPARATION: "7"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


FILES = ("tests/aws/test_signing.py", "tests/triton/test_ensemble_loads.py", "tests/rules/test_resolved.py")
HIDDEN = ("hypothesis", "pytriton")
WORDS = tuple(f"{PARTS[part].name} is not installed: {PARTS[part].install}" for part in HIDDEN)


def test_what_is_not_installed_is_skipped_with_words(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, *FILES, hidden=HIDDEN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(words in done.stdout for words in WORDS), done.stdout
    assert " passed" in done.stdout
    for folder in ("rules", "triton"):
        assert re.search(rf"^{folder} +\d+ tests +\d+ s\b", done.stdout, re.MULTILINE), "where the time went"
    assert re.search(r"^7 s of preparation, then \d+ s of tests$", done.stdout, re.MULTILINE)


def test_what_is_not_installed_is_a_failure_where_everything_is_required(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, *FILES, "--require-all", "--continue-on-collection-errors", hidden=HIDDEN)
    assert done.returncode != 0
    for words in WORDS:
        assert f"with --require-all nothing is skipped. Skipped: {words}" in done.stdout, done.stdout


def test_a_folder_whose_conftest_needs_what_is_not_installed_is_skipped(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "tests", "--ignore-glob=tests/[!w]*", hidden=("uvloop",))
    assert "uvloop is not installed: run `make env`, or pip install -e '.[local]'" in done.stdout, done.stdout


def test_a_module_that_no_part_brings_is_an_error() -> None:
    assert missing_module(ModuleNotFoundError(name="tidegate.nothing")) == ""
    assert "onnx is not installed" in missing_module(ModuleNotFoundError(name="onnx.helper"))
