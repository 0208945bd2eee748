"""What a rule does to a request that it decides, in a form that can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidegate.rules.analysis.kinds import Cover
from tidegate.rules.bundle import encode
from tidegate.rules.program import ObjectiveProgram, Rule
from tidegate.rules.semantics import resolve_target

_MATCHING = frozenset({"id", "when", "active"})


def cover_of(
    objective: ObjectiveProgram, rule: Rule, covering: Sequence[int], aliases: Mapping[str, str]
) -> Cover | None:
    """Whether the rules at some positions, which cover a rule, all do the same as it; None: there are none."""
    wanted = _effect(rule, aliases)
    if not covering:
        return None
    is_same = all(_effect(objective.rules[position], aliases) == wanted for position in covering)
    return "same" if is_same else "other"


def _effect(rule: Rule, aliases: Mapping[str, str]) -> bytes:
    """Equal for rules after which a request is served alike: by the same model and version, with the same settings.

    A split with more than one variant draws by the rule's id, so that no two rules split alike.
    """
    body: dict[str, Any] = {key: value for key, value in rule.body.items() if key not in _MATCHING}
    match body:
        case {"serve": name}:
            body["serve"] = resolve_target(name, aliases)
        case {"split": [[name, _]]}:
            body["serve"] = resolve_target(name, aliases)
            del body["split"]
        case {"split": _}:
            body["drawn_by"] = rule.id
    body["fallback"] = [resolve_target(name, aliases) for name in body.get("fallback", ())]
    body["shadow"] = [[*resolve_target(name, aliases), percent] for name, percent in body.get("shadow", ())]
    # To a model `true` is not 1, as to Python it is.
    return encode(body)
