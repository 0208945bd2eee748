"""What a smoke run saw."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tidegate.triton.checks.findings import ModelFinding


@dataclass(slots=True)
class ModelSmoke:
    """What was seen of one model.

    `load_ms` is how long its closure took to load, in milliseconds (None: it did not), `samples` how many golden requests
    it has, `requests` how many requests were sent, `p50_ms` the median time of an answer to one row, `notes` what was left
    out and why.
    """

    model: str
    load_ms: float | None = None
    samples: int = 0
    requests: int = 0
    p50_ms: float | None = None
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """It as plain JSON values."""
        return {
            "name": self.model,
            "load_ms": None if self.load_ms is None else round(self.load_ms, 1),
            "samples": self.samples,
            "requests": self.requests,
            "p50_ms": None if self.p50_ms is None else round(self.p50_ms, 3),
            "notes": self.notes,
        }


@dataclass(slots=True)
class SmokeReport:
    """The models that were tried, in order, and everything that was found, without repetition."""

    models: list[ModelSmoke] = field(default_factory=list)
    findings: list[ModelFinding] = field(default_factory=list)

    def add(self, *findings: ModelFinding) -> None:
        """Note findings."""
        self.findings += [finding for finding in dict.fromkeys(findings) if finding not in self.findings]
