"""One objective of a bundle at run time: its dimensions, its time windows, its layers, and its rules' actions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tidegate.errors import BundleError, ContextError
from tidegate.rules import dimensions
from tidegate.rules.actions import Action, LayerExperiment, Race, Resolve, Split, build_action, every_decision
from tidegate.rules.bundle import UNFIT, Bundle
from tidegate.rules.contract import Attribute, Objective
from tidegate.rules.decision import Decision
from tidegate.rules.dimensions import Dimension
from tidegate.rules.masks import PieceTable
from tidegate.rules.sticky import key_text, layer_bucket
from tidegate.rules.unknown_attributes import refuse_unknown
from tidegate.rules.values import type_name

_ABSENT: Any = object()


def read_objective(name: str, entry: Mapping[str, Any]) -> Objective:
    """The contract of an objective from its entry in the manifest."""
    attributes = {
        attribute: Attribute(
            attribute,
            spec["type"],
            spec.get("required", False),
            tuple(spec["values"]) if "values" in spec else None,
            tuple(spec["default"]) if isinstance(spec.get("default"), list) else spec.get("default"),
            spec.get("header"),
        )
        for attribute, spec in entry["context"].items()
    }
    return Objective(
        name,
        entry["summary"],
        entry["owner"],
        attributes,
        tuple(entry["sticky_key"]),
        entry["timeout_ms"],
        tuple(entry["allocations"]),
        entry.get("unknown_attributes") == "refuse",
    )


class ObjectiveIndex:
    """The bit index of an objective. Rows are rules, or several per rule where a rule has alternatives (`any_of`)."""

    def __init__(
        self,
        objective: Objective,
        bundle: Bundle,
        line: int,
        layers: Mapping[str, Mapping[str, Any]],
        resolve: Resolve,
    ) -> None:
        data = json.loads(bundle.lines[line])
        self.objective = objective
        self.count: int = data["rows"]
        rules: int = data["rules"]
        self._rules: list[bytes] = bundle.lines[line + 1 : line + 1 + rules]
        self._rule_of_row: list[int] | None = data.get("rule_of_row")
        rows = range(rules) if self._rule_of_row is None else self._rule_of_row
        if len(self._rules) != rules or len(rows) != self.count or rules < 1 or not 0 <= min(rows) <= max(rows) < rules:
            raise ValueError("rules are missing")
        self._all_rows = (1 << self.count) - 1
        self._actions: list[Action | None] = [None] * rules
        self._revision, self._resolve = bundle.rules, resolve
        built = [
            Dimension(attribute, data["dimensions"][name], self.count)
            for name, attribute in objective.attributes.items()
            if name in data["dimensions"]
        ]
        self._dimensions = [(d.attribute.name, d.fast_type, d.fast, d.fast_other, d.absent, d) for d in built]
        self._unlooked = [
            (name, None if attribute.values or attribute.type == "number" else kind, attribute.required)
            for name, attribute in objective.attributes.items()
            if name not in data["dimensions"]
            for kind in [dimensions.PYTHON_TYPES.get(attribute.type) if attribute.type != "version" else None]
        ]
        self._windows = PieceTable(data["windows"], self.count) if "windows" in data else None
        self._allocated: dict[str, dict[str, int]] | None = None
        if "allocated" in data:
            self._unallocated = int(data["allocated"]["free"], 16)
            self._allocated = {
                experiment: {cell: int(mask, 16) for cell, mask in cells.items()}
                for experiment, cells in data["allocated"]["cells"].items()
            }
        self._layer_keys: dict[str, list[str]] = {name: layers[name]["key"] for name in data["layers"]}
        self._layers = {
            name: (PieceTable(layer["pieces"], self.count), int(layer["free"], 16))
            for name, layer in data["layers"].items()
        }

    def candidates(self, context: Mapping[str, Any], at: float | None, clock: Callable[[], float]) -> int:
        """The mask of the rows whose conditions hold, with every declared attribute's type checked on the way.

        Args:
            context: attribute values by name.
            at: Unix seconds; None asks `clock`, where the objective has time windows.
            clock: gives the present time in Unix seconds.

        Raises:
            ContextError: an attribute is missing, of the wrong type or outside its domain.
        """
        mask: int = self._all_rows
        try:
            get, nothing = context.get, _ABSENT
        except AttributeError:
            what = f"the context must be a mapping of attribute names to values, got {type_name(context)}"
            raise ContextError("context", what) from None
        for name, fast_type, fast, fast_other, absent, dimension in self._dimensions:
            value = get(name, nothing)
            if value.__class__ is fast_type:
                hit = fast.get(value, fast_other)
                mask &= dimension.mask(value) if hit is None else hit
            elif value is not nothing:
                mask &= dimension.mask(value)
            elif absent is not None:
                mask &= absent
            else:
                raise dimensions.missing(self.objective.attributes[name])
        for name, fast_type, required in self._unlooked:
            value = get(name, nothing)
            if value.__class__ is not fast_type:
                if value is not nothing:
                    dimensions.check(self.objective.attributes[name], value)
                elif required:
                    raise dimensions.missing(self.objective.attributes[name])
        if self._windows is not None:
            mask &= self._windows.get(clock() if at is None else at)
        if self._allocated is not None or "allocations" in context:
            mask &= self._allocations_mask(get("allocations", {}))
        return mask

    def rule_lines(self) -> list[dict[str, Any]]:
        """Every rule of the objective as the bundle has it, in order."""
        return [json.loads(line) for line in self._rules]

    def action(self, row: int) -> Action:
        """The action of the rule that a row belongs to, decoded on first use."""
        return self.action_of_rule(self._rule_of_row[row] if self._rule_of_row else row)

    def action_of_rule(self, rule: int) -> Action:
        """The action of a rule, decoded on first use."""
        action = self._actions[rule]
        if action is None:
            try:
                line = json.loads(self._rules[rule])
                action = build_action(self.objective.name, self._revision, line, self._resolve)
            except UNFIT as error:
                place = f"rule {rule + 1} of objective {self.objective.name!r}"
                raise BundleError(
                    f"the bundle is damaged: {place} is not what the compiler writes; compile the rules again"
                ) from error
            self._actions[rule] = action
        return action

    def decisions(self) -> Iterator[Decision]:
        """Every decision that a rule can make, in the order of the rules."""
        for rule in range(len(self._rules)):
            yield from every_decision(self.action_of_rule(rule))

    def _allocations_mask(self, allocations: Any) -> int:
        """The rows that the caller's allocations leave: those without such an experiment, and those of its cells.

        Raises:
            ContextError: `allocations` is not a mapping of experiment ids to cells (text or integers).
        """
        if not isinstance(allocations, Mapping):
            raise _allocations_error(f"must be an object of experiment ids and cells, got {type_name(allocations)}")
        mask = self._unallocated if self._allocated is not None else self._all_rows
        for experiment, cell in allocations.items():
            if not isinstance(experiment, str) or not isinstance(cell, int | str) or isinstance(cell, bool):
                raise _allocations_error("must give each experiment id (text) a cell (text or an integer)")
            cells = (self._allocated or {}).get(experiment)
            if cells:
                mask |= cells.get(str(cell), 0)
        return mask

    def key(self, names: tuple[str, ...] | list[str], context: Mapping[str, Any]) -> bytes | None:
        """The UTF-8 bytes of the first of `names` that has a key (see `key_value`), or None."""
        for name in names:
            value = context.get(name)
            # Hot: what is neither None nor empty needs no more of `key_value`.
            if not value and value != 0:
                value = self.objective.attributes[name].default
            if value is not None and value != "":
                try:
                    return (value if value.__class__ is str else key_text(value)).encode()
                except ValueError:
                    what = "must be valid Unicode text, or an integer of at most 4300 digits, to be a sticky key"
                    raise ContextError(name, f"attribute {name!r} {what}") from None
        return None

    def layer_key(self, layer: str, context: Mapping[str, Any]) -> bytes | None:
        """The key of a layer, or None where it is absent."""
        return self.key(self._layer_keys[layer], context)

    def bucket(self, layer: str, context: Mapping[str, Any]) -> int | None:
        """The request's bucket in a layer (0–9999), or None where the layer's key is absent."""
        key = self.layer_key(layer, context)
        return None if key is None else layer_bucket(layer, key.decode())

    def layer_mask(self, layer: str, context: Mapping[str, Any]) -> int:
        """The rows that the request's bucket in a layer leaves."""
        pieces, free = self._layers[layer]
        bucket = self.bucket(layer, context)
        return free if bucket is None else pieces.get(bucket)

    def pick(self, split: Split, context: Mapping[str, Any]) -> Decision:
        """The decision of a split."""
        key = self.key(self.objective.sticky_key, context)
        return split.keyless if key is None else split.race.pick(key)

    def race_of(self, action: Action, context: Mapping[str, Any]) -> tuple[Race, bytes] | None:
        """The race that an action runs for this context and the key that it runs with, or None where it runs none."""
        if isinstance(action, Split):
            key = self.key(self.objective.sticky_key, context)
            return None if key is None else (action.race, key)
        if isinstance(action, LayerExperiment):
            key = self.layer_key(action.layer, context)
            return None if key is None else (action.race, key)
        return None


def _allocations_error(message: str) -> ContextError:
    return ContextError("allocations", f"attribute 'allocations' {message}")


class StrictIndex(ObjectiveIndex):
    """The index of an objective that refuses attributes which it does not declare. Others pay nothing for it."""

    def candidates(self, context: Mapping[str, Any], at: float | None, clock: Callable[[], float]) -> int:
        """See `ObjectiveIndex.candidates`.

        Raises:
            ContextError: further, the objective does not declare an attribute.
        """
        mask = super().candidates(context, at, clock)
        refuse_unknown(self.objective, context)
        return mask


def build_index(
    objective: Objective, bundle: Bundle, line: int, layers: Mapping[str, Mapping[str, Any]], resolve: Resolve
) -> ObjectiveIndex:
    """The index of an objective, of the kind that its contract asks for."""
    kind = StrictIndex if objective.refuses_unknown else ObjectiveIndex
    return kind(objective, bundle, line, layers, resolve)
