"""Findings about models."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tidegate.finding_kinds import Severity
from tidegate.model_layout import CONFIG
from tidegate.models.lint.kinds import KINDS


@dataclass(frozen=True, slots=True, order=True)
class ModelFinding:
    """A mistake in a model.

    Attributes:
        file: relative to the model repository.
        line: counts from 1; 0 is the file as a whole.
        kind: a name in `KINDS`.
        hint: what would be right.
        model: the model that has the mistake.
    """

    file: str
    line: int
    kind: str
    message: str
    hint: str = ""
    model: str = ""

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind].severity

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}: {self.severity}[{self.kind}]: {self.message}{hint}"

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("file", "line", "model", "kind", "severity", "message", "hint")}


@dataclass(slots=True)
class Report:
    """Collects the findings about one model. Files are named relative to the model's folder."""

    model: str
    findings: list[ModelFinding] = field(default_factory=list)

    def __call__(self, kind: str, message: str, hint: str = "", *, file: str = CONFIG, line: int = 0) -> None:
        """Add a finding; an empty `file` is the model's folder itself."""
        assert kind in KINDS, kind
        place = f"{self.model}/{file}" if file else self.model
        self.findings.append(ModelFinding(place, line, kind, message, hint, self.model))
