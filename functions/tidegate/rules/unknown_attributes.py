"""Names in a context that its objective does not declare."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.errors import ContextError
from tidegate.rules.contract import Objective
from tidegate.rules.decision import Ignored
from tidegate.rules.nearest import nearest

ALLOCATIONS = "allocations"
"""The name in a context of the caller's cells by experiment, which is not an attribute."""

MOST_NAMED = 10
LONGEST_SHOWN = 64


def unknown_attributes(objective: Objective, context: Mapping[str, Any]) -> tuple[Ignored, ...]:
    """Return the names that an objective does not declare, in order, each with the declared one that it may have meant.

    What `parameters` of a request to `/v2` hold beside attributes belongs to the model, and is not in a context.
    """
    known = objective.attributes
    return tuple(
        Ignored(str(name)[:LONGEST_SHOWN], nearest(str(name), known))
        for name in context
        if name not in known and name != ALLOCATIONS
    )


def refuse_unknown(objective: Objective, context: Mapping[str, Any]) -> None:
    """Refuse a context with a name that the objective does not declare.

    Raises:
        ContextError: there is one; the message has the names, never a value.
    """
    known = objective.attributes
    if all(name in known or name == ALLOCATIONS for name in context):
        return
    found = unknown_attributes(objective, context)
    shown = ", ".join(
        repr(each.name) + ("" if each.did_you_mean is None else f" (did you mean {each.did_you_mean!r}?)")
        for each in found[:MOST_NAMED]
    )
    more = "" if len(found) <= MOST_NAMED else f" and {len(found) - MOST_NAMED} more"
    raise ContextError(
        found[0].name, f"objective {objective.name!r} refuses attributes that it does not declare: {shown}{more}"
    )
