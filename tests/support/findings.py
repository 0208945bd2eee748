"""Findings as text, for tests that are about the line and the words."""

from __future__ import annotations

import re


def without_columns(text: str) -> str:
    """`fleet.yaml:3:5: …` as `fleet.yaml:3: …`."""
    return re.sub(r"(\.ya?ml:\d+):\d+:", r"\1:", text)
