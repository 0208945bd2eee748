"""The suite's own options: what is not installed is skipped with words, or fails; `--full` tries more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.parts import ROOT

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
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("hidden", "file", "how"),
    [
        ("hypothesis", "tests/aws/test_signing.py", "[dev]"),
        ("pytriton", "tests/triton/test_ensemble_loads.py", "[local]"),
    ],
)
def test_what_is_not_installed_is_skipped_with_words_or_fails(hidden: str, file: str, how: str, tmp_path: Path) -> None:
    present = "tests/rules/test_resolved.py"
    done = run_pytest(tmp_path, file, present, hidden=(hidden,))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{hidden} is not installed: run `make env`, or pip install -e '.{how}'" in done.stdout
    assert "passed" in done.stdout
    strict = run_pytest(tmp_path, file, present, "--require-all", hidden=(hidden,))
    assert strict.returncode != 0
    assert f"{hidden} is not installed" in strict.stdout


def test_a_module_that_no_part_brings_is_an_error(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "tests/rules/test_sticky.py", hidden=("tidegate",))
    assert done.returncode != 0
