"""Edits of a `config.pbtxt` by the positions of its fields: comments and layout stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.triton.checks.textproto import Lines, Node


@dataclass(frozen=True, slots=True)
class StepEdits:
    """`versions` are pinned versions by model, `(old, new)`; `names` are models with what takes their place."""

    versions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


def renamed(text: str, name: str) -> str:
    """A config under another name; as it is where it does not say its name."""
    return _edited(text, [(*each, f'"{name}"') for each in _values(Lines(text).root, "name")])


def repinned(text: str, edits: StepEdits) -> str:
    """An ensemble's config with other steps; as it is where no step is concerned."""
    found = []
    for scheduling in _fields(Lines(text).root, "ensemble_scheduling"):
        for step in _fields(scheduling, "step"):
            for token, offset in _values(step, "model_name"):
                model = token[1:-1]
                if model in edits.names:
                    found.append((token, offset, f'"{edits.names[model]}"'))
                old, new = edits.versions.get(model, (0, 0))
                found += [(*each, str(new)) for each in _values(step, "model_version") if old and each[0] == str(old)]
    return _edited(text, found)


def open_steps(text: str) -> frozenset[str]:
    """The models that an ensemble's config calls without a pinned version."""
    return frozenset(
        name[1:-1]
        for scheduling in _fields(Lines(text).root, "ensemble_scheduling")
        for step in _fields(scheduling, "step")
        for name, _ in _values(step, "model_name")
        if not any(pin.isdecimal() and pin != "0" for pin, _ in _values(step, "model_version"))
    )


def _fields(node: Node, name: str) -> list[Node]:
    return [each for each in node.fields if each.name == name]


def _values(node: Node, name: str) -> list[tuple[str, int]]:
    return [value for each in _fields(node, name) for value in each.values[:1]]


def _edited(text: str, edits: list[tuple[str, int, str]]) -> str:
    for token, offset, new in sorted(edits, key=lambda edit: edit[1], reverse=True):
        written = text[offset : offset + len(token)]
        # A text is quoted either way, and its token by double quotes; one in pieces or with escapes is left alone.
        if written == token or (token[0] == '"' and written[1:-1] == token[1:-1]):
            text = text[:offset] + new + text[offset + len(token) :]
    return text
