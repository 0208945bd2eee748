"""Bundles from rules that a test writes."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tidegate.rules import compile_directory

from tests.support.stack import write_rules

SHARDS = {"a": 2, "b": 1}
PLACEMENT = {"features": ["a"], "scorer": ["a", "b"], "pipeline": ["a"], "popular": ["b"], "fresh": ["a"]}


def bundle(placement: Mapping[str, list[str]] | None = None, **objectives: str) -> bytes:
    """The bundle of rules where each objective serves one target, or what the YAML of its rules says.

    `placement` is added to that of the models of this package.
    """
    placed = {name: tuple(on) for name, on in {**PLACEMENT, **(placement or {})}.items()}
    return compiled(tuple(SHARDS.items()), tuple(placed.items()), tuple(objectives.items()))


@functools.cache
def compiled(
    shards: tuple[tuple[str, int], ...],
    placement: tuple[tuple[str, tuple[str, ...]], ...],
    objectives: tuple[tuple[str, str], ...],
) -> bytes:
    """The bundle of rules with other shards and another placement."""
    with tempfile.TemporaryDirectory() as folder:
        on = {name: list(shards) for name, shards in placement}
        write_rules(Path(folder), dict(shards), on, **dict(objectives))
        return compile_directory(folder)
