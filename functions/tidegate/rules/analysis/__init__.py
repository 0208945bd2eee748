"""Exact analysis of rules that compile: which rules can be reached, whether every context is served, what is unused.

Nothing is sampled: values are grouped into classes that no condition tells apart, every rule is a union of boxes in the
product of these classes, and whether the boxes above leave anything of a box is decided by search. The engine is only
asked to confirm counter-examples, and never imports this package::

    program, findings = read_directory("routing_rules")     # findings: an author's errors; analyse only where none is
    engine = load_bundle(emit(program))
    analysis = analyse(program, engine, at=time.time(), places=places("routing_rules"))
    analysis.errors                                          # what should keep the rules from going live
"""

from tidegate.rules.analysis.kinds import KINDS, CheckFinding, Kind, Severity, author_error
from tidegate.rules.analysis.of_objective import Coverage
from tidegate.rules.analysis.references import Places
from tidegate.rules.analysis.report import DEFAULT_BUDGET, Analysis, analyse
from tidegate.rules.analysis.witness import Example

__all__ = [
    "DEFAULT_BUDGET",
    "KINDS",
    "Analysis",
    "CheckFinding",
    "Coverage",
    "Example",
    "Kind",
    "Places",
    "Severity",
    "analyse",
    "author_error",
]
