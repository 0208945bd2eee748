"""Whether the models of an objective answer in the way in which its callers ask: `infer` refuses decoupled responses."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from tidegate.rules import Engine, Target
from tidegate.rules.contract import Responses

STREAM_INSTEAD = "write `responses: stream` in the file of the objective, and have its callers ask for a stream"
NEEDLESS_STREAM = "callers must ask for a stream, though each of its models gives one response"


def refused_by_infer(engine: Engine, decoupled: Collection[str]) -> Mapping[str, tuple[Target, ...]]:
    """Return the targets that `infer` refuses, by their objectives of one response; shadows and fallbacks count.

    `decoupled` has the models with decoupled responses, or with such a step.
    """
    found = {
        name: tuple(target for target in engine.targets(name) if target.model in decoupled)
        for name, objective in engine.objectives.items()
        if objective.responses is Responses.ONE
    }
    return {name: targets for name, targets in found.items() if targets}


def needless_streams(engine: Engine, decoupled: Collection[str]) -> tuple[str, ...]:
    """Return the objectives whose callers must ask for a stream, though each of their models gives one response."""
    return tuple(
        name
        for name, objective in engine.objectives.items()
        if objective.responses is Responses.STREAM
        and not any(target.model in decoupled for target in engine.targets(name))
    )
