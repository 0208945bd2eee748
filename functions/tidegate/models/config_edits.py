"""Edits of a `config.pbtxt` by the positions of its fields: comments and layout stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.model_layout import version_of
from tidegate.models.textproto import Lines, Node


@dataclass(frozen=True, slots=True)
class StepEdits:
    """Pinned versions by model, as `(old, new)`, and the new names of models."""

    versions: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


def renamed(text: str, name: str) -> str:
    """Return a config under another name; unchanged if it has no name."""
    return _edited(text, [(*each, f'"{name}"') for each in _values(Lines(text).root, "name")])


def repinned(text: str, edits: StepEdits) -> str:
    """Return an ensemble's config with other steps."""
    found = []
    for step in _steps(text):
        for token, offset in _values(step, "model_name"):
            model = token[1:-1]
            if model in edits.names:
                found.append((token, offset, f'"{edits.names[model]}"'))
            old, new = edits.versions.get(model, (0, 0))
            found += [(*each, str(new)) for each in _values(step, "model_version") if old and each[0] == str(old)]
    return _edited(text, found)


def open_steps(text: str) -> frozenset[str]:
    """Return the models that an ensemble's config calls without a pinned version."""
    return frozenset(
        name[1:-1]
        for step in _steps(text)
        for name, _ in _values(step, "model_name")
        if not any(version_of(pin) for pin, _ in _values(step, "model_version"))
    )


def _steps(text: str) -> list[Node]:
    found = [each for each in Lines(text).root.fields if each.name == "ensemble_scheduling"]
    return [step for each in found for step in each.fields if step.name == "step"]


def _values(node: Node, name: str) -> list[tuple[str, int]]:
    return [value for each in node.fields if each.name == name for value in each.values[:1]]


def _edited(text: str, edits: list[tuple[str, int, str]]) -> str:
    for token, offset, new in sorted(edits, key=lambda edit: edit[1], reverse=True):
        written = text[offset : offset + len(token)]
        # A text has either quotes, and its token double ones; one in pieces or with escapes is left unchanged.
        if written == token or (token[0] == '"' and written[1:-1] == token[1:-1]):
            text = text[:offset] + new + text[offset + len(token) :]
    return text
