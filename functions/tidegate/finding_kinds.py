"""The kinds of findings of the checks: how serious each is, what it means, and what to do.

docs/findings.md has a table of each command's kinds; a test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding. `name` is stable; `meaning` is one sentence."""

    name: str
    severity: Severity
    meaning: str
    remedy: str


def error(name: str, meaning: str, remedy: str) -> Kind:
    """Return a kind that makes its check fail."""
    return Kind(name, Severity.ERROR, meaning, remedy)


def warning(name: str, meaning: str, remedy: str) -> Kind:
    """Return a kind that is reported and does not make its check fail."""
    return Kind(name, Severity.WARNING, meaning, remedy)
