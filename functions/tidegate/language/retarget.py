"""Edits of rules files that name other targets, by the positions of the names: comments and layout stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tidegate.language.layout import CASES, SUFFIXES

Steps = tuple[str, ...]

_IN_A_RULE = {"serve", "fallback", "degraded"}
_KEYS_OF_A_RULE = {"split", "shadow"}


@dataclass(frozen=True, slots=True)
class Renames:
    """`targets` are target texts (`model`, `model/version`), `models` are names of models; each has its replacement."""

    targets: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)


def retargeted(directory: Path, renames: Renames) -> dict[Path, tuple[str, str]]:
    """Return the files of a rules directory that name what is renamed: the text of each before and after.

    A file that is not valid YAML is left alone: the check of the rules reports it.
    """
    found = {}
    for path in sorted(path for path in directory.rglob("*") if path.suffix in SUFFIXES and path.is_file()):
        relative = path.relative_to(directory)
        try:
            before = path.read_text("utf-8")
            node = yaml.compose(before, Loader=yaml.SafeLoader)
        except (OSError, UnicodeError, yaml.YAMLError, RecursionError):
            continue
        places = sorted(_places(relative, node, renames), key=lambda place: place[0].start_mark.index, reverse=True)
        after = before
        for scalar, text in places:
            start, end = scalar.start_mark.index, scalar.end_mark.index
            after = after[:start] + after[start:end].replace(scalar.value, text, 1) + after[end:]
        if after != before:
            found[path] = (before, after)
    return found


def _places(path: Path, node: yaml.Node | None, renames: Renames) -> Iterator[tuple[yaml.ScalarNode, str]]:
    for steps, scalar, is_key in _scalars(node, ()):
        names = _names(path, steps, renames, is_key=is_key)
        if scalar.value in names:
            yield scalar, names[scalar.value]


def _names(path: Path, steps: Steps, renames: Renames, *, is_key: bool) -> Mapping[str, str]:
    """Return the renames that apply to a scalar at a place."""
    root = path.parts[0] if len(path.parts) > 1 else path.stem
    last, above = (steps[-1] if steps else ""), (steps[-2] if len(steps) > 1 else "")
    in_case = root == CASES and "expect" in steps
    if (root == "fleet" and is_key and steps == ("models",)) or (in_case and not is_key and last == "model"):
        return renames.models
    if root == "objectives":
        is_target = last in _KEYS_OF_A_RULE if is_key else last in _IN_A_RULE or "cells" in (last, above)
    elif in_case:
        is_target = last == "shadows" if is_key else last in ("target", "variant", "fallbacks", "shadows")
    else:
        is_target = not is_key and (
            (root == "fleet" and steps[:1] == ("aliases",)) or (root == "callers" and "overrides" in steps)
        )
    return renames.targets if is_target else {}


def _scalars(node: yaml.Node | None, steps: Steps) -> Iterator[tuple[Steps, yaml.ScalarNode, bool]]:
    """Yield every scalar with the keys above it (the last is a value's own) and whether it is a key."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield steps, key, True
                yield from _scalars(value, (*steps, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from _scalars(each, steps)
    elif isinstance(node, yaml.ScalarNode):
        yield steps, node, False
