"""Exact analysis of rules that compile: which rules can be reached, whether every context is served, what is unused.

Nothing is sampled: values are grouped into classes that no condition tells apart, every rule is a union of boxes in the
product of these classes, and whether the boxes above leave anything of a box is decided by search. The engine is only
asked to confirm counter-examples, and never imports this package.
"""

from tidegate.analysis.reach.report import analyse

__all__ = ["analyse"]
