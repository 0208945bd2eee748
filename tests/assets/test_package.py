"""`make package`: small assets that import by themselves, the same bytes each time."""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.stack import ROOT

HERE = "arm64" if platform.machine() == "aarch64" else "x86_64"
CONTROL = ("probe", "reconcile", "rollback", "validate_rules")
HEAVY = ("numpy", "tritonclient", "pydantic", "yaml", "boto3", "botocore")


def package(out: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "assets", "--out", str(out), "--architecture", HERE, "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    built: list[dict[str, Any]] = json.loads(done.stdout)
    return built


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return {each["asset"]: each for each in package(tmp_path_factory.mktemp("built"))}


def test_the_gateways_asset_is_small_and_has_nothing_heavy(built: dict[str, dict[str, Any]]) -> None:
    gateway = built["gateway"]
    assert gateway["unpacked_bytes"] <= 25_000_000 == gateway["most_bytes"]
    with zipfile.ZipFile(gateway["archive"]) as archive:
        folders = {name.split("/")[0] for name in archive.namelist()}
    assert folders.isdisjoint(HEAVY), "boto3 comes from Lambda's runtime, the rest is not needed"
    assert {"tidegate", "starlette", "mangum", "httptools", "aws_lambda_powertools"} <= folders


def test_equal_sources_give_equal_bytes(built: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    again = {each["asset"]: each for each in package(tmp_path / "elsewhere")}
    assert {name: each["sha256"] for name, each in again.items()} == {
        name: each["sha256"] for name, each in built.items()
    }


OF_THE_RUNTIME = ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3")
"""What Lambda's own runtime brings for Python: boto3 and what it needs."""


@pytest.mark.parametrize(
    ("asset", "modules", "brought"),
    [
        ("gateway", "tidegate.lambdas.gateway, tidegate.lambdas.resolve", OF_THE_RUNTIME),
        ("gateway", "tidegate.bootstrap, tidegate.web, tidegate.dispatch", ()),
        ("control", "tidegate.rules.proving, tidegate.control.validating", ()),
        ("control", ", ".join(f"tidegate.lambdas.{name}" for name in CONTROL), OF_THE_RUNTIME),
    ],
)
def test_an_unpacked_asset_imports_alone(
    built: dict[str, dict[str, Any]], asset: str, modules: str, brought: tuple[str, ...], tmp_path: Path
) -> None:
    code, runtime = tmp_path / "code", tmp_path / "runtime"
    with zipfile.ZipFile(built[asset]["archive"]) as archive:
        archive.extractall(code)
    runtime.mkdir()
    for name in brought:
        origin = importlib.util.find_spec(name).origin  # type: ignore[union-attr]  # all are installed
        found = Path(str(origin))
        (runtime / (name if found.name == "__init__.py" else found.name)).symlink_to(
            found.parent if found.name == "__init__.py" else found
        )
    # -S leaves the environment's packages out: what is imported comes from the asset and the standard library.
    program = f"import sys; sys.path[:0] = [{str(code)!r}, {str(runtime)!r}]; import {modules}"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
