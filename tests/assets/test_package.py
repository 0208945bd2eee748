"""`make package`: small assets that import by themselves, the same bytes each time."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tidegate.errors import SettingsError

from assets.building import ASSETS, THIS_PYTHON
from infra.function_assets import find_assets
from infra.settings import Settings
from tests.support.effort import is_full
from tests.support.stack import ROOT

HERE = "arm64" if platform.machine() == "aarch64" else "x86_64"
SMALL = ("--asset", "gateway")
CONTROL = ("console", "probe", "reconcile", "rollback", "validate_rules")
HEAVY = ("numpy", "tritonclient", "pydantic", "yaml", "boto3", "botocore")


def package(out: Path, *options: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "assets", "--out", str(out), "--architecture", HERE, "--json", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    built: list[dict[str, Any]] = json.loads(done.stdout)
    return built


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return {each["asset"]: each for each in package(tmp_path_factory.mktemp("built"))}


@pytest.fixture(scope="module")
def unpacked(built: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that has each archive's content in a folder of its name."""
    folder = tmp_path_factory.mktemp("unpacked")
    for name, each in built.items():
        with zipfile.ZipFile(each["archive"]) as archive:
            archive.extractall(folder / name)
    return folder


def test_the_gateways_asset_is_small_and_has_nothing_heavy(built: dict[str, dict[str, Any]]) -> None:
    gateway = built["gateway"]
    assert gateway["unpacked_bytes"] <= 25_000_000 == gateway["most_bytes"]
    with zipfile.ZipFile(gateway["archive"]) as archive:
        names = archive.namelist()
    folders = {name.split("/")[0] for name in names}
    assert "tidegate/web/openapi.json" in names
    assert not [name for name in names if "console/assets/" in name], "the page is the console's alone"
    assert folders.isdisjoint(HEAVY), "boto3 comes from Lambda's runtime, the rest is not needed"
    assert {"tidegate", "starlette", "mangum", "httptools", "aws_lambda_powertools"} <= folders


def test_equal_sources_give_equal_bytes(built: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    # The smaller asset alone, unless everything is tried: both are built by the same steps.
    again = package(tmp_path / "elsewhere", *([] if is_full() else SMALL))
    assert again
    for each in again:
        assert each["sha256"] == built[each["asset"]]["sha256"], each["asset"]


OF_THE_RUNTIME = ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3")
"""What Lambda's own runtime brings for Python: boto3 and what it needs."""


WITH_THE_FIRST_EVENT = (
    "tidegate.models.catalog, tidegate.models.diagnosis, tidegate.models.lint, tidegate.models.golden.asking, "
    "tidegate.oip.arrays, tritonclient.grpc.aio"
)
"""What reads, proves and loads models."""


@pytest.mark.parametrize(
    ("asset", "modules", "brought"),
    [
        ("gateway", "tidegate.lambdas.gateway, tidegate.lambdas.resolve, tidegate.lambdas.shadow", OF_THE_RUNTIME),
        ("gateway", "tidegate.bootstrap, tidegate.web, tidegate.gateway", ()),
        ("control", "tidegate.analysis.proving, tidegate.control.rules_archive", ()),
        ("control", ", ".join(f"tidegate.lambdas.{name}" for name in CONTROL), OF_THE_RUNTIME),
        ("control", WITH_THE_FIRST_EVENT, OF_THE_RUNTIME),
    ],
)
def test_an_unpacked_asset_imports_alone(
    unpacked: Path, asset: str, modules: str, brought: tuple[str, ...], tmp_path: Path
) -> None:
    code, runtime = unpacked / asset, tmp_path / "runtime"
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
        [sys.executable, "-S", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


OTHER = next(version for version in ("3.12", "3.13") if version != THIS_PYTHON)


def build_for_other(path: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build for a stage whose functions run on another Python than this, with the commands in `path` alone."""
    return subprocess.run(
        [sys.executable, "-m", "assets", "--out", str(out), "--architecture", HERE, "--stage", "dev", "--json", *SMALL],
        cwd=ROOT,
        env=os.environ | {"PATH": str(path), "TIDEGATE_INFRA_PYTHON_VERSION": f'"{OTHER}"'},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_stage_gets_assets_for_its_own_python(tmp_path: Path) -> None:
    interpreter, used = tmp_path / "bin" / f"python{OTHER}", tmp_path / "used"
    interpreter.parent.mkdir()
    interpreter.write_text(f'#!/bin/sh\necho "$2" >> {used}\nexec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    done = build_for_other(interpreter.parent, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    compiled = {path.name.split("cpython-")[1].split("-")[0] for path in (tmp_path / "out").rglob("*.cpython-*.so")}
    assert compiled == {OTHER.replace(".", "")}
    assert used.read_text().split() == ["compileall"]


def test_a_stages_python_that_is_not_installed_is_named(tmp_path: Path) -> None:
    done = build_for_other(tmp_path, tmp_path / "out")
    assert done.returncode == 1
    assert f"python{OTHER}" in done.stderr
    assert "`python_version` in infra/settings/dev.yaml" in done.stderr
    assert not (tmp_path / "out").exists()


def test_assets_of_another_python_are_not_deployed(tmp_path: Path) -> None:
    settings = Settings.model_validate({"python_version": OTHER})
    for asset in ASSETS:
        (tmp_path / f"{asset.name}-{settings.architecture}").mkdir()
    (tmp_path / f"gateway-{settings.architecture}" / "parser.cpython-311-aarch64-linux-gnu.so").touch()
    with pytest.raises(SettingsError, match=rf"for Python 3\.11, and the setting python_version is {OTHER}"):
        find_assets(tmp_path, settings)


def test_the_control_planes_asset_has_the_consoles_page(unpacked: Path) -> None:
    page = unpacked / "control/tidegate/web/console/assets"
    assert (page / "index.html").is_file()
    assert sum(path.stat().st_size for path in page.rglob("*")) < 1_000_000


def test_no_asset_has_what_tests_alone_need(unpacked: Path) -> None:
    for asset in ("gateway", "control"):
        assert (unpacked / asset / "tidegate" / "rules").is_dir()
        assert not (unpacked / asset / "tidegate" / "testing").exists()
