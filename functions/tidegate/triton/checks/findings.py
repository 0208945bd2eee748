"""Findings about models: located, of a kind that KINDS explains, with a hint at what would be right."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tidegate.triton.checks.kinds import KINDS, Severity


@dataclass(frozen=True, slots=True, order=True)
class ModelFinding:
    """One mistake in a model, located.

    `file` is relative to the model repository, `line` counts from 1 (0: the file as a whole), `model` is the model that
    has the mistake, `kind` a name in `KINDS`. `message` says what is wrong, `hint` what would be right here.
    """

    file: str
    line: int
    kind: str
    message: str
    hint: str = ""
    model: str = ""

    @property
    def severity(self) -> Severity:
        """How serious it is: an `error` or a `warning`."""
        return KINDS[self.kind].severity

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}: {self.severity}[{self.kind}]: {self.message}{hint}"

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain JSON values."""
        return {
            "file": self.file,
            "line": self.line,
            "model": self.model,
            "kind": self.kind,
            "severity": self.severity,
            "message": self.message,
            "hint": self.hint,
        }


@dataclass(slots=True)
class Report:
    """Collects the findings about one model. Files are named relative to the model's folder."""

    model: str
    findings: list[ModelFinding] = field(default_factory=list)

    def __call__(self, kind: str, message: str, hint: str = "", *, file: str = "config.pbtxt", line: int = 0) -> None:
        """Note a finding; `file` empty is the model's folder itself."""
        assert kind in KINDS, kind
        place = f"{self.model}/{file}" if file else self.model
        self.findings.append(ModelFinding(place, line, kind, message, hint, self.model))
