"""Rules that are written from a bundle compile to the same bundle."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from tidegate.analysis.compare.comparable import as_files
from tidegate.analysis.compare.revision import open_revision
from tidegate.console.rendering import rendered
from tidegate.rules import compile_directory, load_bundle
from tidegate.rules.bundle import revision_of
from tidegate.rules.resolved import resolve_bundle

from tests.rules.oracle import Directory
from tests.rules.strategies import directories, write_directory
from tests.support.effort import examples
from tests.support.stack import ROOT


def compiled_again(bundle: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in rendered(as_files(open_revision(bundle))).items():
            path = Path(folder) / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return compile_directory(folder)


@settings(max_examples=examples(100), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(directories())
def test_any_rules_are_the_same_after_they_were_written_from_their_bundle(directory: Directory) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bundle = compile_directory(write_directory(directory, Path(folder)))
    assert compiled_again(bundle) == bundle


@pytest.mark.parametrize("rules", ["routing_rules", "functions/tidegate/cli/project/routing_rules"])
def test_the_example_rules_are_the_same_also_from_what_is_live(rules: str) -> None:
    bundle = compile_directory(ROOT / rules)
    versions = {target.name: 7 for target in load_bundle(bundle).targets() if target.version is None}
    live = resolve_bundle(bundle, versions, {}) if versions else bundle
    assert revision_of(compiled_again(live)) == revision_of(bundle)
