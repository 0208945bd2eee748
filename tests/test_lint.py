"""`make lint` finds nothing: it runs beside the other tests, so that `make test` waits for neither."""

from __future__ import annotations

import subprocess

from tests.support.parts import ROOT, need


def test_lint_finds_nothing() -> None:
    need("ruff", "mypy", "importlinter")
    done = subprocess.run(
        ["make", "--no-print-directory", "lint"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout
