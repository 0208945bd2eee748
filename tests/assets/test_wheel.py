"""The built wheel works by itself: in an environment that has nothing of this source tree, from an empty folder."""

from __future__ import annotations

import email
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tidegate import __version__
from tidegate.triton.numpy_abi import WHEEL as TRITON

from tests.docs.blocks import blocks
from tests.support.parts import need
from tests.support.stack import ROOT

SITE = Path(sysconfig.get_path("purelib"))
OWN = ("tidegate", "__editable__")
OF_TRITON = ("pytriton", "nvidia_pytriton")


def run(*command: str | Path, folder: Path = ROOT, exit_code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEGATE_", "PYTHON"))}
    environment |= {"TIDEGATE_CACHE_DIR": str(ROOT / ".cache" / "tidegate"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == exit_code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "functions", source / "functions", ignore=ignored)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", source / "dist", source)
    (built,) = (source / "dist").glob("tidegate-*.whl")
    return built


def environment(folder: Path, wheel: Path, *, leave_out: tuple[str, ...] = ()) -> Path:
    """A new environment with the wheel, and the packages that it requires by a link to each of this environment; its `bin`.

    What the wheel requires is what its metadata says: see the tests of these. `leave_out` are packages that are not there.
    """
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    run(sys.executable, "-m", "pip", "--python", python, *map(str, install))
    parts = folder / "parts"
    parts.mkdir()
    for entry in SITE.iterdir():
        if not entry.name.startswith((*OWN, *leave_out)):
            (parts / entry.name).symlink_to(entry)
    (found,) = (folder / "lib").glob("python*/site-packages")
    (found / "parts.pth").write_text(f"{parts}\n")
    return folder / "bin"


@pytest.fixture(scope="module")
def programs(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("environment") / "venv", wheel)


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_what_the_wheel_requires_is_what_is_tested_with(wheel: Path) -> None:
    from packaging.requirements import Requirement

    asked = [Requirement(text) for text in metadata(wheel).get_all("Requires-Dist") or ()]
    of_local = [each for each in asked if each.marker is None or each.marker.evaluate({"extra": "local"})]
    assert {"moto", "numpy", "onnxruntime", "uvloop", "watchfiles", "pydantic"} <= {each.name for each in of_local}
    for each in of_local:
        assert importlib.metadata.version(each.name) in each.specifier, each


def test_it_has_its_data_and_nothing_of_the_tree_beside_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    package = ROOT / "functions" / "tidegate"
    files = {path.relative_to(ROOT / "functions").as_posix() for path in package.rglob("*") if path.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    assert files <= set(names)
    assert {name.split("/")[0] for name in names} == {"tidegate", f"tidegate-{__version__}.dist-info"}


def test_an_empty_environment_and_an_empty_folder_are_enough(programs: Path, tmp_path: Path) -> None:
    need("pytriton")
    tidegate = programs / "tidegate"
    where = run(programs / "python", "-c", "import tidegate; print(tidegate.__file__)", folder=tmp_path).stdout
    assert where.startswith(str(programs.parent))
    assert run(tidegate, "version", folder=tmp_path).stdout.startswith(f"tidegate {__version__},")
    run(tidegate, "init", "first", folder=tmp_path)
    run(tidegate, "rules", "check", "first/routing_rules", "--strict", folder=tmp_path)
    run(tidegate, "rules", "test", "first/routing_rules", folder=tmp_path)
    run(tidegate, "models", "check", "first/triton_models", folder=tmp_path)
    _serves(tidegate, tmp_path / "first")


def _serves(tidegate: Path, folder: Path) -> None:
    """Start the stack, and paste the request that it ends its start with."""
    command = [str(tidegate), "up", "--port", "0"]
    own = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEGATE_", "PYTHON"))}
    own["TIDEGATE_CACHE_DIR"] = str(ROOT / ".cache" / "tidegate")
    with subprocess.Popen(
        command, cwd=folder, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as stack:
        try:
            assert stack.stdout is not None and stack.stderr is not None
            pasted = next(line for line in _reported(stack.stderr) if line.startswith("  curl "))
            assert stack.stdout.readline().startswith("ready http://127.0.0.1:")
            answer = json.loads(run("bash", "-c", f"{pasted} --fail-with-body").stdout)
            assert answer["outputs"]["LABEL"][0] == ["positive"]
        finally:
            stack.terminate()
            stack.communicate(timeout=300)
    assert stack.returncode == 0


def _reported(stream: Iterator[str]) -> Iterator[str]:
    for line in stream:
        assert "Traceback" not in line
        yield line.rstrip("\n")


def test_the_readmes_second_path_is_the_one_that_is_tried_here() -> None:
    (block,) = (block for block in blocks("README.md") if block.language == "sh")
    install, init, up = block.text.strip().splitlines()
    assert f"tidegate-{__version__}-py3-none-any.whl[local]'" in install
    assert install.endswith(f"pip install --no-deps {TRITON}")
    assert (init, up) == ("tidegate init first && cd first", "tidegate up")


def test_without_triton_the_start_says_what_to_install(wheel: Path, tmp_path: Path) -> None:
    programs = environment(tmp_path / "venv", wheel, leave_out=OF_TRITON)
    run(programs / "tidegate", "init", "first", folder=tmp_path)
    done = run(programs / "tidegate", "up", "--port", "0", folder=tmp_path / "first", exit_code=1)
    assert f"pip install --no-deps {TRITON}" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_pip_resolves_the_wheel_with_its_extra_into_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    pip = (tmp_path / "venv" / "bin" / "python", "-m", "pip", "install", "--quiet")
    run(*pip, f"{wheel}[local]")
    run(*pip, "--no-deps", TRITON)
    run(tmp_path / "venv" / "bin" / "tidegate", "init", "first", folder=tmp_path)
    _serves(tmp_path / "venv" / "bin" / "tidegate", tmp_path / "first")
