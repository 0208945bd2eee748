"""Plans: the places of a decision in the order in which Envoy tries them, and the cluster that has them.

A plan's steps are the decision's target and its fallbacks; each has its shards, preferred first. Envoy has one cluster for all plans
with the same shards in the same order: each shard is a priority of the cluster, so that a retry and a failed health check lead to the
next one. Which model an endpoint is asked for follows from its step, by the plan in a header of the request.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tidegate.oip.infer_message import named
from tidegate.oip.paths import model_path
from tidegate.rules import Engine, Target
from tidegate.rules.decision import Decision

SHARD_HEADER: Final = "x-tidegate-shard"
"""Names the cluster."""

PATH_HEADER: Final = "x-tidegate-path"
"""The path of the first step, over HTTP."""

PLAN_HEADER: Final = "x-tidegate-plan"
"""The steps; see `http_plan` and `rpc_plan`."""

CODE_HEADER: Final = "x-tidegate-code"
"""The code of a refused RPC, a number (https://grpc.github.io/grpc/core/md_doc_statuscodes.html)."""

RESERVED: Final = ("x-tidegate-", "x-envoy-", "tidegate-param-")
"""How headers begin that say where a request goes: those of callers are removed."""

TO_SERVER: Final = (
    SHARD_HEADER, PATH_HEADER, "x-tidegate-caller", "x-tidegate-traffic", "x-envoy-upstream-rq-timeout-ms", "x-envoy-max-retries",
)  # fmt: skip
"""What of a resolver's answer Envoy sets in the request, besides the parameters of the rule."""

PARAMETER_PREFIX: Final = "tidegate-param-"

TO_CALLER: Final = (
    "tidegate-rule", "tidegate-model", "tidegate-model-version", "tidegate-variant", "tidegate-cell", "tidegate-revision", "tidegate-reason",
)  # fmt: skip
"""What of it Envoy sets in the answer to the caller."""

RPC: Final = "grpc:"
"""Prefix of the clusters that reach the servers' gRPC ports."""

Shape = tuple[tuple[str, ...], ...]
"""The shards of each step."""

_OF_STEP, _OF_PLAN, _OF_SHARDS, _OF_STEPS = "|", ";", "+", ">"


def steps_of(decision: Decision) -> tuple[Target, ...]:
    return (decision.target, *decision.fallbacks)


def shape_of(steps: Sequence[Target]) -> Shape:
    return tuple([step.shards for step in steps])


def cluster_of(shape: Shape) -> str:
    """Return the name of the cluster of a shape. Names of shards have neither `+` nor `>`."""
    return _OF_STEPS.join([_OF_SHARDS.join(shards) for shards in shape])


def http_plan(steps: Sequence[Target], suffix: str) -> str:
    """Return the plan of a request over HTTP: `path|model|version` of each step, separated by `;`."""
    return _joined(steps, [model_path(step.model, step.version, suffix) for step in steps])


def rpc_plan(steps: Sequence[Target], appended: bytes) -> str:
    """Return the plan of an RPC: as that over HTTP, with hexadecimal bytes to append to the message in place of the path."""
    return _joined(steps, [(appended + named(step.model, step.version)).hex() for step in steps])


def shapes(engine: Engine) -> frozenset[Shape]:
    """Return every shape of a plan that the rules can lead to: of decisions, of pinned targets, and without a decision."""
    found: set[Shape] = {(tuple(shards),) for shards in engine.fleet.models.values()}
    for objective in engine.objectives:
        found.update(shape_of(steps_of(decision)) for decision in engine.decisions(objective))
    return frozenset(found)


def degraded_targets(engine: Engine) -> Iterator[tuple[str, Target]]:
    """Yield the objectives that are served while no resolver answers, in order, with the target of each."""
    for objective in sorted(engine.objectives):
        target = engine.degraded(objective)
        if target is not None:
            yield objective, target


def _joined(steps: Sequence[Target], asked: Sequence[str]) -> str:
    return _OF_PLAN.join(
        [
            _OF_STEP.join((each, step.model, "" if step.version is None else str(step.version)))
            for each, step in zip(asked, steps, strict=True)
        ]
    )
