"""The settings that cannot change after a stage's first deployment, and which change of one is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.settings import Fixed, Settings

FIXED_SETTINGS = "FixedSettings"
"""The output of the storage stack that tells a later deployment which fixed settings the first was made with."""


def fixed_settings(settings: Settings) -> dict[str, Any]:
    """The settings that cannot change after the first deployment, by name."""
    return {name: getattr(settings, name) for name in fixed_fields()}


def fixed_fields() -> dict[str, Fixed]:
    """What is marked as fixed, by the setting's name."""
    return {
        name: mark
        for name, field in Settings.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Fixed)
    }


def fixed_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What a stage deployed with the fixed settings `before` cannot become `after`, in words."""
    return [
        f"the setting {name} was {before[name]!r} at the first deployment and cannot become {after[name]!r}: {mark.why}"
        for name, mark in fixed_fields().items()
        if name in before and before[name] != after[name] and not (mark.may_grow and after[name] > before[name])
    ]
