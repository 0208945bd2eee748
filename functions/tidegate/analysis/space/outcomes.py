"""The outcome of a context, and an example of a context with an outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.errors import ContextError, NoRuleError, RequestError
from tidegate.rules.bundle import encode
from tidegate.rules.decision import Decision
from tidegate.rules.engine import Engine

REFUSED = "(refused)"
UNSERVED = "(no rule)"
NO_OBJECTIVE = "(no objective)"

Outcome = Decision | str
"""A decision, or why there is none: the context is an error, no rule matches, or the revision lacks the objective."""


@dataclass(frozen=True, slots=True)
class Example:
    """A context, as JSON values, and the time of the request in Unix seconds. `has_windows`: rules look at the time."""

    context: Mapping[str, Any]
    at: float
    has_windows: bool


def outcome_of(engine: Engine, objective: str, context: Mapping[str, Any], at: float) -> Outcome:
    try:
        return engine.decide(objective, context, at=at)
    except NoRuleError:
        return UNSERVED
    except ContextError:
        return REFUSED
    except RequestError:
        return NO_OBJECTIVE


def target_text(outcome: Outcome) -> str:
    """Return what serves, `model` or `model/version`, or in parentheses why nothing does."""
    if isinstance(outcome, str):
        return outcome
    return outcome.model if outcome.version is None else f"{outcome.model}/{outcome.version}"


def rule_of(outcome: Outcome) -> str | None:
    """Return the id of the rule that decided; None: none did."""
    return outcome.rule if isinstance(outcome, Decision) else None


def is_retuned(old: Outcome, new: Outcome) -> bool:
    """Return whether the same target serves with other parameters, fallbacks, shadows or timeouts."""
    return target_text(old) == target_text(new) and _settings(old) != _settings(new)


def _settings(outcome: Outcome) -> Any:
    if isinstance(outcome, str):
        return outcome
    return (
        # To a model `true` is not 1, as to Python it is.
        encode(dict(outcome.parameters)),
        [(target.model, target.version) for target in outcome.fallbacks],
        [(shadow.target.model, shadow.target.version, shadow.percent) for shadow in outcome.shadows],
        outcome.timeout_ms,
        outcome.hedge_after_ms,
        outcome.hedge_at,
        outcome.fault,
    )
