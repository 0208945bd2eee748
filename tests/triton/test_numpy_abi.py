"""The wheel's stub with NumPy 2: what runs on it is shown by test_server.py, on the Python that has NumPy 2."""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys
from pathlib import Path

import pytest
from tidegate.errors import StackError
from tidegate.triton.installation import find_installation
from tidegate.triton.numpy_abi import ELSIZE_IN_NUMPY_1, ELSIZE_IN_NUMPY_2, STUBS, for_numpy_2

VERSIONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def stubs() -> Path:
    return find_installation().server.parents[1] / "python_backend_stubs"


@pytest.mark.parametrize("version", VERSIONS)
def test_only_the_reads_of_the_element_size_change(version: str, stubs: Path) -> None:
    before = (stubs / version / "triton_python_backend_stub").read_bytes()
    after = for_numpy_2(before)
    assert after is not None
    changed = [place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert [before[place - 3 : place] for place in changed[:4]] == [bytes.fromhex("486340")] * 4
    assert [before[place - 2 : place] for place in changed[4:]] == [bytes.fromhex("8b40")]
    assert {before[place] for place in changed} == {ELSIZE_IN_NUMPY_1}
    assert {after[place] for place in changed} == {ELSIZE_IN_NUMPY_2}


def unknown_triton(home: Path) -> Path:
    """The parts of a Triton with a stub that is not known."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for name in (
        "bin/tritonserver",
        f"python_backend_stubs/{version}/triton_python_backend_stub",
        "backends/python/libtriton_python.so",
        "backends/python/triton_python_backend_utils.py",
    ):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"\x7fELF another build")
    return home


def with_numpy(monkeypatch: pytest.MonkeyPatch, numpy: str) -> None:
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: numpy if name == "numpy" else version(name))


def test_a_wheel_with_an_unknown_stub_is_refused_with_numpy_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown_triton(tmp_path / "pytriton/tritonserver")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with_numpy(monkeypatch, "2.1.0")
    with pytest.raises(
        StackError, match=r"triton_python_backend_stub .*pip install --no-deps nvidia-pytriton==0\.7\.0"
    ):
        find_installation(None, tmp_path / "cache")
    with_numpy(monkeypatch, "1.26.4")
    assert find_installation(None, tmp_path / "cache").backend_directory.is_dir()


def test_the_stub_of_another_triton_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_numpy(monkeypatch, "2.1.0")
    built = find_installation(unknown_triton(tmp_path / "triton"), tmp_path / "cache").backend_directory
    assert (built / "python/triton_python_backend_stub").read_bytes() == b"\x7fELF another build"


def test_a_user_without_a_home_names_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_home(_: type[Path]) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", classmethod(without_home))
    assert find_installation(unknown_triton(tmp_path / "triton"), tmp_path / "cache").backend_directory.is_dir()


def test_a_wrong_place_in_the_table_is_refused(stubs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = (stubs / "3.12/triton_python_backend_stub").read_bytes()
    monkeypatch.setitem(STUBS, hashlib.sha256(stub).hexdigest(), (0,))
    with pytest.raises(StackError, match="byte 0x0 is 0x7f"):
        for_numpy_2(stub)
