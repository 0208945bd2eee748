"""The page's files: small, without a build step, of this host alone, and with libraries that are those of their packages."""

from __future__ import annotations

import gzip
import json
import re
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.parts import ROOT

ASSETS = ROOT / "functions" / "tidegate" / "web" / "console" / "assets"
VENDOR = ASSETS / "vendor"
FILES = sorted(path for path in ASSETS.rglob("*") if path.is_file())
OWN = [path for path in FILES if path.suffix in {".js", ".css", ".html"} and VENDOR not in path.parents]
MOST_BYTES = 150_000
MOST_LINES = 300


def test_each_vendored_file_is_that_of_its_package() -> None:
    entries = json.loads((VENDOR / "manifest.json").read_text())
    for entry in entries:
        content = (VENDOR / entry["file"]).read_bytes()
        for original, ours in entry.get("replaced", {}).items():
            assert content.count(ours.encode()) == 1
            content = content.replace(ours.encode(), original.encode())
        assert sha256(content).hexdigest() == entry["sha256"], entry["file"]
        name, version = entry["package"], entry["version"]
        assert entry["source"] == f"https://registry.npmjs.org/{name}/-/{name}-{version}.tgz"
    listed = {entry["file"] for entry in entries}
    assert listed | {"manifest.json"} == {path.name for path in VENDOR.iterdir()}
    assert {entry["package"] for entry in entries} == {e["package"] for e in entries if e["file"].endswith("LICENSE")}


def test_all_files_together_are_small() -> None:
    sizes = {path.name: len(gzip.compress(path.read_bytes())) for path in FILES if path.suffix != ".LICENSE"}
    assert sum(sizes.values()) <= MOST_BYTES, sizes


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_file_has_one_concern_and_no_code_that_the_policy_forbids(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= MOST_LINES
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|javascript:", text)
    assert not re.search(r"<script>|<style|\bon\w+=\"|https?://", text), "all is of this host"


def test_every_import_leads_to_a_file() -> None:
    for path in OWN:
        if path.suffix == ".js":
            for name in re.findall(r"(?:from |import\()\"(\.[^\"]+)\"", path.read_text()):
                assert (path.parent / name).resolve() in FILES, f"{path.name} imports {name}"
    for name in re.findall(r"(?:src|href)=\"([^\"]+)\"", (ASSETS / "index.html").read_text()):
        assert (ASSETS / name.removeprefix("/console/")).resolve() in FILES, name


def test_the_pictures_of_the_documentation_are_small_and_shown() -> None:
    pictures = sorted((ROOT / "docs" / "console").glob("*.png"))
    page = (ROOT / "docs" / "console.md").read_text()
    assert {path.name for path in pictures} == set(re.findall(r"\(console/(\w+\.png)\)", page))
    for path in pictures:
        assert path.stat().st_size <= MOST_BYTES, path.name
