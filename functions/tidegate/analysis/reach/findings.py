"""A finding of `tidegate rules check`, and its kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tidegate.errors import Finding, printable
from tidegate.finding_kinds import Kind, Severity, error, warning

Cover = Literal["same", "other"]
"""Whether the rules that cover another one all do the same as it, so that it is redundant, or at least one does not."""

_ALL: tuple[Kind, ...] = (
    error("author-error", "The rules do not compile.", "Correct what the message names; nothing else is checked."),
    error("unreachable-rule", "No request can reach the rule: the rules above it take every request that it matches.", "Move the rule above those that cover it, narrow them, or delete it."),
    error("never-matches", "The rule's own conditions contradict each other.", "Correct the conditions, or delete the rule."),
    error("uncovered-context", "A request that the objective accepts matches no rule.", "Add a last rule without conditions, or a rule for the contexts that are left."),
    error("undecided", "The step budget ended before a question was decided.", "Give a larger --budget, or simplify the conditions."),
    error("target-unservable", "The folder of `--models` lacks the model, its version or what it calls, or its config is broken.", "Correct the name in the rules, or add what is missing."),
    error("target-decoupled", "The model's responses are decoupled, so `infer` refuses it, and its objective gives one response.", "Write `responses: stream` in the objective, or serve another model."),
    warning("stream-of-one", "Callers must ask for a stream, though each of the objective's models gives one response.", "Delete `responses`, or serve a model with decoupled responses."),
    warning("window-over", "The rule could be reached only at times that are over.", "Delete the rule, or set a later `until`."),
    warning("unused-model", "No rule, fallback, shadow, alias or caller's overrides name the model.", "Delete it from fleet.yaml, or serve it."),
    warning("unused-alias", "No rule, fallback or shadow names the alias.", "Delete it from fleet.yaml, or serve it."),
    warning("unused-layer", "No rule runs an experiment of the layer.", "Delete it from layers.yaml, or write a rule for one of its experiments."),
    warning("unused-experiment", "An experiment owns buckets of a layer, and no rule runs it.", "Delete it from layers.yaml, or write its rule."),
    warning("no-effect", "A setting changes nothing where it is.", "Delete it, or write what it was meant to do."),
    warning("split-without-key", "The objective has no sticky key, so a split serves its first variant alone.", "Declare a sticky_key, or write `serve`."),
    warning("keyless-zero-weight", "A request whose sticky key is absent or empty gets a variant of weight 0.", "Write a variant with a positive weight first."),
)  # fmt: skip

KINDS = {kind.name: kind for kind in _ALL}
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
        return KINDS[self.kind].severity

    def __str__(self) -> str:
        place = ":".join(str(each) for each in (self.file, self.line, self.column) if each)
        subject = f"rule {self.rule!r}: " if self.rule else ""
        hint = f" ({self.hint})" if self.hint else ""
        return printable(f"{place}: {self.severity}[{self.kind}]: {subject}{self.message}{hint}")

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        names = ("kind", "severity", "file", "line", "column", "objective", "rule")
        return {name: getattr(self, name) for name in (*names, "message", "hint", "covered_by", "cover")}


def author_error(finding: Finding, kind: str = "author-error", objective: str = "") -> CheckFinding:
    """Return a finding of the compiler as a finding of the check."""
    place = (finding.file, finding.line, objective, finding.rule)
    return CheckFinding(*place, kind, finding.message, finding.hint, column=finding.column)
