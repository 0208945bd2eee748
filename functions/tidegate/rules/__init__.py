"""The pure core: rule language, compiler, bundle, engine. No I/O but the compiler's reading of a directory.

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

from tidegate.rules.contract import Attribute, Caller, Fleet, Objective, Shard
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
    "Objective",
    "RuleTrace",
    "Shadow",
    "Shard",
    "Target",
    "compile_directory",
    "load_bundle",
]


def compile_directory(path: str | PathLike[str]) -> bytes:
    """Compile a rules directory to the canonical bytes of a bundle.

    Args:
        path: a directory with `fleet.yaml`, `objectives/*.yaml`, `layers.yaml` where experiments are used, and
            `callers.yaml` where callers need grants.

    Returns:
        The bundle. Equal rules give equal bytes, whatever their formatting, comments and order of keys.

    Raises:
        RulesError: the rules do not compile; it holds every error found in one run, located by file, line and rule.
    """
    from tidegate.rules.compiler import compile_directory as compile_rules

    return compile_rules(path)
