"""The archive for a machine with a GPU: what is in it, and that all of its script but the GPU's part runs here."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from gpu_check.__main__ import MOST_BYTES, OWN, ROOT, TARGET, dry_run, pack
from tests.support.parts import need


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive for the Python that runs the tests: for another one, pip would need the network."""
    need("pytriton")
    file = tmp_path_factory.mktemp("gpu") / "gpu-check.tar.xz"
    assert pack(file, [OWN], preset=0) <= MOST_BYTES / 1.5, "there is room for another Python's parts"
    return file


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / ROOT


def run(unpacked: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(unpacked / "check.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_all_but_the_gpu_runs_here(archive: Path) -> None:
    shown: list[str] = []
    began = time.monotonic()
    assert dry_run(archive, sys.executable, 0.5, shown.append) == 0
    assert time.monotonic() - began < 360
    (table,) = shown
    assert "a dry run that says nothing of a GPU" in table
    rows = [line for line in table.splitlines() if line.startswith(("| Triton |", "| the gateway |"))]
    assert [row.split("|")[1:3] for row in rows] == [
        [" Triton ", " 1 "], [" Triton ", " 64 "], [" the gateway ", " 1 "], [" the gateway ", " 64 "],
    ]  # fmt: skip
    assert all(float(row.split("|")[3].replace(",", "")) > 0 for row in rows)


def test_a_machine_without_a_gpu_is_told_so(unpacked: Path) -> None:
    done = run(unpacked)
    assert (done.returncode, done.stdout) == (1, "")
    assert "`--cpu` checks all but the GPU" in done.stderr


def test_another_python_is_told_which_it_must_be(unpacked: Path) -> None:
    stubs = unpacked / "site" / "pytriton" / "tritonserver" / "python_backend_stubs"
    (stubs / OWN).rename(stubs / "2.7")
    try:
        done = run(unpacked, "--cpu")
    finally:
        (stubs / "2.7").rename(stubs / OWN)
    assert done.returncode == 1
    assert f"this is Python {OWN}, and the archive was made for 2.7" in done.stderr


def test_a_server_that_does_not_start_is_shown_with_its_log(unpacked: Path) -> None:
    config = unpacked / "models" / "scorer_gpu" / "config.pbtxt"
    kept = config.read_text()
    config.write_text(kept.replace('model_name: "mlp_gpu"', 'model_name: "missing"'))
    try:
        done = run(unpacked, "--cpu")
    finally:
        config.write_text(kept)
    assert done.returncode == 1
    assert "tritonserver is not ready; the end of its log:" in done.stderr
    assert "missing" in done.stderr


def test_wrong_usage_is_refused(unpacked: Path) -> None:
    done = run(unpacked, "--cpu", "--seconds", "900")
    assert done.returncode == 2
    assert "900 is not from 0.1 to 30" in done.stderr


def test_it_is_packed_for_the_python_of_such_machines_too() -> None:
    assert TARGET == "3.12"
