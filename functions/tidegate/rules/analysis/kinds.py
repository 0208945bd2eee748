"""The kinds of findings of `tidegate rules check`, and a finding itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tidegate.errors import Finding, printable

Severity = Literal["error", "warning"]

Cover = Literal["same", "other"]
"""Whether the rules that cover another one all do the same as it, so that it is redundant, or at least one does not."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding. `name` is stable; `meaning` is one sentence, `remedy` says what to do about it."""

    name: str
    severity: Severity
    meaning: str
    remedy: str


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "author-error",
            "error",
            "The rules do not compile.",
            "Correct what the message names; nothing else is checked.",
        ),
        Kind(
            "unreachable-rule",
            "error",
            "No request can reach the rule: the rules above it take every request that it matches.",
            "Move the rule above those that cover it, narrow them, or delete it.",
        ),
        Kind(
            "never-matches",
            "error",
            "The rule's own conditions contradict each other.",
            "Correct the conditions, or delete the rule.",
        ),
        Kind(
            "uncovered-context",
            "error",
            "A request that the objective accepts matches no rule.",
            "Add a last rule without conditions, or a rule for the contexts that are left.",
        ),
        Kind(
            "undecided",
            "error",
            "The step budget ended before a question was decided.",
            "Give a larger --budget, or simplify the conditions.",
        ),
        Kind(
            "window-over",
            "warning",
            "The rule could be reached only at times that are over.",
            "Delete the rule, or set a later `until`.",
        ),
        Kind(
            "unused-model",
            "warning",
            "No rule, fallback, shadow, alias or caller's overrides name the model.",
            "Delete it from fleet.yaml, or serve it.",
        ),
        Kind(
            "unused-alias",
            "warning",
            "No rule, fallback or shadow names the alias.",
            "Delete it from fleet.yaml, or serve it.",
        ),
        Kind(
            "unused-layer",
            "warning",
            "No rule runs an experiment of the layer.",
            "Delete it from layers.yaml, or write a rule for one of its experiments.",
        ),
        Kind(
            "unused-experiment",
            "warning",
            "An experiment owns buckets of a layer, and no rule runs it.",
            "Delete it from layers.yaml, or write its rule.",
        ),
        Kind(
            "no-effect",
            "warning",
            "A setting changes nothing where it is.",
            "Delete it, or write what it was meant to do.",
        ),
        Kind(
            "split-without-key",
            "warning",
            "The objective has no sticky key, so a split serves its first variant alone.",
            "Declare a sticky_key, or write `serve`.",
        ),
        Kind(
            "keyless-zero-weight",
            "warning",
            "A request whose sticky key is absent or empty gets a variant of weight 0.",
            "Write a variant with a positive weight first.",
        ),
    )
}
"""Every kind by its name, in the order of the documentation."""


@dataclass(frozen=True, slots=True, order=True)
class CheckFinding:
    """One finding of a check.

    `file` is relative to the rules directory, `line` and `column` count from 1 (0: the file, or the line, as a whole);
    `objective`, `rule` and `covered_by` (the ids of the rules that cover an unreachable one, in order) are empty where they
    say nothing. `cover` says whether all of these rules do the same as the covered one (None: nothing covers).
    """

    file: str
    line: int
    objective: str
    rule: str
    kind: str
    message: str
    hint: str
    covered_by: tuple[str, ...] = ()
    column: int = 0
    cover: Cover | None = None

    @property
    def severity(self) -> Severity:
        """How grave it is: errors make the check fail."""
        return KINDS[self.kind].severity

    def __str__(self) -> str:
        place = ":".join(str(each) for each in (self.file, self.line, self.column) if each)
        subject = f"rule {self.rule!r}: " if self.rule else ""
        hint = f" ({self.hint})" if self.hint else ""
        return printable(f"{place}: {self.severity}[{self.kind}]: {subject}{self.message}{hint}")

    def as_dict(self) -> dict[str, Any]:
        """All fields as JSON values."""
        return {
            "kind": self.kind,
            "severity": self.severity,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "objective": self.objective,
            "rule": self.rule,
            "message": self.message,
            "hint": self.hint,
            "covered_by": list(self.covered_by),
            "cover": self.cover,
        }


def author_error(finding: Finding) -> CheckFinding:
    """A finding of the compiler as a finding of the check."""
    return CheckFinding(
        finding.file, finding.line, "", finding.rule, "author-error", finding.message, finding.hint, (), finding.column
    )


def no_effect(objective: str, finding: Finding) -> CheckFinding:
    """A setting without effect as a finding of the check."""
    place = (finding.file, finding.line, objective, finding.rule)
    return CheckFinding(*place, "no-effect", finding.message, finding.hint, (), finding.column)
