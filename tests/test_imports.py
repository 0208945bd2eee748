"""What processes do not import, which they need seldom or never: imports are most of what a start takes."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        # The compiler and the analysis run in processes of their own.
        ("bootstrap.local, tidegate.cli.serve", ("pydantic", "numpy", "grpc", "boto3", "tidegate.language.compiler")),
        ("models.lint.checker", ("pydantic", "numpy", "grpc", "onnx")),
    ],
)
def test_a_process_does_not_import(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, tidegate.{module}; print(sorted({set(absent)} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"
