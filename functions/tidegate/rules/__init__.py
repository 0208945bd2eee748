"""The pure core: rule language, compiler, bundle, engine. Only the compiler does I/O: it reads a directory.

The stable API::

    data = compile_directory("routing_rules")     # bytes, canonical: equal rules give equal bytes
    engine = load_bundle(data)                    # standard library alone
    decision = engine.decide("title_ranking", {"member_id": "42", "country": "US"})
    trace = engine.explain("title_ranking", {"member_id": "42"})

The compiler needs pydantic and PyYAML; it is imported on the first call of `compile_directory`, so that a process that
only loads bundles and decides pays for neither.
"""

from __future__ import annotations

from os import PathLike

from tidegate.rules.contract import Attribute, Caller, Fleet, Limit, Objective, Priority, Shard, Traffic
from tidegate.rules.decision import Decision, Draw, Explanation, RuleTrace, Shadow, Target
from tidegate.rules.engine import Engine, load_bundle

__all__ = [
    "Attribute",
    "Caller",
    "Decision",
    "Draw",
    "Engine",
    "Explanation",
    "Fleet",
    "Limit",
    "Objective",
    "Priority",
    "RuleTrace",
    "Shadow",
    "Shard",
    "Target",
    "Traffic",
    "compile_directory",
    "load_bundle",
]


def compile_directory(path: str | PathLike[str]) -> bytes:
    """Compile a rules directory to the canonical bytes of a bundle: equal rules give equal bytes, whatever their formatting,
    comments and order of keys.

    Raises:
        RulesError: the rules do not compile; it holds every error found in one run, located by file, line and rule.
    """
    from tidegate.language.compiler import compile_directory as compile_rules

    return compile_rules(path)
