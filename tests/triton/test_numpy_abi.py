"""The wheel's stub with NumPy 2: what runs on it is shown by test_server.py, on the Python that has NumPy 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from tidegate.triton.installation import find_installation
from tidegate.triton.numpy_abi import ELSIZE_IN_NUMPY_1, ELSIZE_IN_NUMPY_2, for_numpy_2

VERSIONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def stubs() -> Path:
    return find_installation().server.parents[1] / "python_backend_stubs"


@pytest.mark.parametrize("version", VERSIONS)
def test_only_the_reads_of_the_element_size_change(version: str, stubs: Path) -> None:
    before = (stubs / version / "triton_python_backend_stub").read_bytes()
    after = for_numpy_2(before)
    changed = [place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert [before[place - 3 : place] for place in changed[:4]] == [bytes.fromhex("486340")] * 4
    assert [before[place - 2 : place] for place in changed[4:]] == [bytes.fromhex("8b40")]
    assert {before[place] for place in changed} == {ELSIZE_IN_NUMPY_1}
    assert {after[place] for place in changed} == {ELSIZE_IN_NUMPY_2}


def test_another_stub_is_left_alone() -> None:
    other = b"\x7fELF another build"
    assert for_numpy_2(other) == other
