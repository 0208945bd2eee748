"""The settings that cannot change after a stage's first deployment, and which change of one is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.settings import Fixed, Settings

FIXED_SETTINGS = "FixedSettings"
"""The output of the storage stack that records the fixed settings of the first deployment for later ones."""


def fixed_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that cannot change after the first deployment, by name."""
    return {name: getattr(settings, name) for name in fixed_fields()}


def fixed_fields() -> dict[str, Fixed]:
    """Return the settings that are marked as fixed, by name."""
    return {
        name: mark
        for name, field in Settings.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Fixed)
    }


def fixed_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return, in words, why a stage with the fixed settings `before` cannot change to `after`."""
    return [
        f"the setting {name} was {before[name]!r} at the first deployment and cannot become {after[name]!r}: {mark.why}"
        for name, mark in fixed_fields().items()
        if name in before and before[name] != after[name] and not (mark.may_grow and after[name] > before[name])
    ]
