"""Checks of a decided request that need the model's metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tidegate.errors import Refusal, RefusedError, malformed
from tidegate.gateway.call import Call
from tidegate.gateway.metadata import MetadataCache
from tidegate.rules import Engine
from tidegate.rules.decision import Decision

_MAX_AGE_S: Final = 1.0
_LONGEST_VERSION: Final = 20


async def check_pinned_version(metadata: MetadataCache, engine: Engine, decision: Decision, deadline_s: float) -> None:
    """Check that the model of an overridden decision serves the pinned version.

    If the rules leave the version to the model's version policy, only the model knows which versions it serves.

    Raises:
        DispatchError: no target answered.
        ModelAnswerError: the model's metadata cannot be read.
        RefusedError: the model does not serve that version.
    """
    target = decision.target
    if engine.names(target):
        return
    known = await metadata.get(decision, deadline_s, _MAX_AGE_S, all_versions=True)
    if target.version not in known.versions:
        served = ", ".join(map(str, known.versions)) or "none"
        raise RefusedError(
            Refusal.UNKNOWN_TARGET,
            f"target '{target.name}' is not loaded: the versions of model '{target.model}' that are loaded are {served}; "
            f"`overrides` in callers.yaml that name '{target.name}' load it",
            target=target.name,
        )


async def with_version(
    metadata: MetadataCache, call: Call, decision: Decision, version: str, deadline_s: float
) -> Call | None:
    """Return `call` for the version in its path; None if the number is too long for any model's version.

    A caller may name the version that the rules pick, which pins nothing. A version that the model does not serve is sent
    to Triton, which refuses it, so the first answer is final.

    Raises:
        DispatchError: no target answered.
        ModelAnswerError: the model's metadata cannot be read.
        RefusedError: the model serves that version, and the rules pick another.
    """
    if len(version) > _LONGEST_VERSION:
        return None
    number = int(version)
    if number == decision.version:
        return call
    known = await metadata.get(decision, deadline_s, _MAX_AGE_S, all_versions=True)
    if number not in known.versions:
        return call.with_version(number, final=True)
    if decision.version is None and number == max(known.versions):
        return call.with_version(number)
    raise RefusedError(
        Refusal.FORBIDDEN,
        f"objective '{decision.objective}' does not serve version {number}: its rules pick the version, ask without one",
    )


async def check_classes(
    metadata: MetadataCache, decision: Decision, outputs: Sequence[str], deadline_s: float
) -> Decision:
    """Return the decision for a request that wants outputs as classes: without fallbacks, whose outputs may differ.

    Triton 2.51 crashes when its classification extension is used on a text output.

    Raises:
        DispatchError: no target answered.
        ModelAnswerError: the model's metadata cannot be read.
        RefusedError: one of `outputs` is text.
    """
    alone = replace(decision, fallbacks=())
    known = await metadata.get(alone, deadline_s, _MAX_AGE_S)
    for tensor in known.outputs:
        if tensor.datatype == "BYTES" and tensor.name in outputs:
            raise malformed(
                f"output {tensor.name!r} is text (BYTES), of which no classes are made: ask for it as it is"
            )
    return alone
