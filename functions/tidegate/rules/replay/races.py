"""The configured sticky choices of a revision: what the counted shares are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tidegate.rules.compare.revision import Revision, Side
from tidegate.rules.replay.members import prefix_of
from tidegate.rules.sticky import key_text, key_value


@dataclass(frozen=True, slots=True)
class Configured:
    """A split or an experiment of one rule.

    `weights` are by variant, in the order of the rule; `kind` says whether it is a split, or who allocates the
    experiment's cells. `sources` are (attribute, default) of which the first that has a key (see `key_value`) is the member's: none
    where the caller allocates and the objective has no sticky key. `prefix` tells its members apart from another's.
    """

    objective: str
    rule: str
    kind: Literal["split", "layer", "caller"]
    experiment: str | None
    weights: Mapping[str, int]
    sources: tuple[tuple[str, Any], ...]
    prefix: bytes

    def key(self, context: Mapping[str, Any]) -> bytes | None:
        """The bytes of the key of a context that was decided, or None where it has none."""
        for name, default in self.sources:
            value = key_value(context.get(name), default)
            if value is not None:
                # Where the caller allocates, the engine does not look at the key, so it may be broken text here.
                return (value if value.__class__ is str else key_text(value)).encode("utf-8", "surrogatepass")
        return None


def configured(revision: Revision) -> dict[tuple[str, str], Configured]:
    """Every split and experiment by (objective, rule).

    Raises:
        BundleError: the revision's bundle is damaged.
    """
    found: dict[tuple[str, str], Configured] = {}
    for name in revision.objectives:
        side = revision.side(name)
        for rule in side.rules:
            made = _of_rule(side, rule)
            if made is not None:
                found[name, rule["id"]] = made
    return found


def _of_rule(side: Side, rule: Mapping[str, Any]) -> Configured | None:
    objective, names = side.objective, side.objective.sticky_key
    experiment = rule.get("experiment")
    kind: Literal["split", "layer", "caller"]
    if "split" in rule:
        weights, kind = dict(rule["split"]), "split"
    elif experiment is not None:
        kind, weights = experiment["allocate"], {}
        for cell in experiment["cells"]:
            # Two cells of one text (1 and "1") make the same draws, so the heavier always wins.
            text = str(cell["cell"])
            weights[text] = max(cell["weight"], weights.get(text, 0))
        if kind == "layer":
            names = side.layer_keys[experiment["layer"]]
    else:
        return None
    return Configured(
        objective.name,
        rule["id"],
        kind,
        experiment["id"] if experiment else None,
        weights,
        tuple((name, objective.attributes[name].default) for name in names),
        prefix_of(objective.name, rule["id"]),
    )
