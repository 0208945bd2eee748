"""One objective of a bundle at run time: its dimensions, its time windows, its layers, and its rules' actions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tidegate.errors import BundleError, ContextError
from tidegate.rules.actions import Action, LayerExperiment, Race, Resolve, Split, build_action, every_decision
from tidegate.rules.bundle import Bundle, damaged
from tidegate.rules.bundle.json_values import UNFIT
from tidegate.rules.bundle.manifest import ObjectiveEntry
from tidegate.rules.bundle.rule import Rule, decode_rule
from tidegate.rules.decision import Decision
from tidegate.rules.dimensions import Dimension, check, missing, unchecked_type
from tidegate.rules.masks import PieceTable
from tidegate.rules.sticky import choose, key_text, layer_bucket
from tidegate.rules.unknown_attributes import refuse_unknown
from tidegate.rules.values import type_name

_ABSENT: Any = object()


class ObjectiveIndex:
    """The bit index of an objective. Rows are rules, or several per rule where a rule has alternatives (`any_of`)."""

    def __init__(
        self, entry: ObjectiveEntry, bundle: Bundle, layer_keys: Mapping[str, tuple[str, ...]], resolve: Resolve
    ) -> None:
        """`layer_keys` has the attributes of each layer's key; `resolve` gives the target of a name as the author wrote it."""
        tables = bundle.tables(entry)
        self.objective = objective = entry.contract
        self._refuses_unknown = objective.refuses_unknown
        self.count = tables.rows
        self._lines = bundle.rule_lines(entry, tables.rules)
        self._rule_of_row = tables.rule_of_row
        self._all_rows = (1 << self.count) - 1
        self._actions: list[Action | None] = [None] * tables.rules
        self._revision, self._resolve = bundle.rules, resolve
        built = [
            Dimension(attribute, tables.dimensions[name], self.count)
            for name, attribute in objective.attributes.items()
            if name in tables.dimensions
        ]
        self._dimensions = [(d.attribute.name, d.fast_type, d.fast, d.fast_other, d.absent, d) for d in built]
        self._unlooked = [
            (name, unchecked_type(attribute), attribute.required)
            for name, attribute in objective.attributes.items()
            if name not in tables.dimensions
        ]
        self._depends_on: tuple[str, ...] | None = None
        self._windows = None if tables.windows is None else PieceTable(tables.windows, self.count)
        self._allocated = tables.allocated
        self._layer_keys = {name: layer_keys[name] for name in tables.layers}
        self._layers = {
            name: (PieceTable(layer.pieces, self.count), layer.free) for name, layer in tables.layers.items()
        }

    def candidates(self, context: Mapping[str, Any], at: float | None, clock: Callable[[], float]) -> int:
        """Return the mask of the rows whose conditions hold; `at` is in Unix seconds, None reads `clock` if a rule has a window.

        Raises:
            ContextError: an attribute is missing, of the wrong type or outside its domain.
        """
        mask: int = self._all_rows
        try:
            get, nothing = context.get, _ABSENT
        except AttributeError:
            what = f"the context must be a mapping of attribute names to values, got {type_name(context)}"
            raise ContextError("context", what) from None
        for name, kind, fast, fast_other, absent, dimension in self._dimensions:
            value = get(name, nothing)
            if value.__class__ is kind:
                hit = fast.get(value, fast_other)
                mask &= dimension.mask(value) if hit is None else hit
            elif value is not nothing:
                mask &= dimension.mask(value)
            elif absent is not None:
                mask &= absent
            else:
                raise missing(self.objective.attributes[name])
        for name, kind, required in self._unlooked:
            value = get(name, nothing)
            if value.__class__ is not kind:
                if value is not nothing:
                    check(self.objective.attributes[name], value)
                elif required:
                    raise missing(self.objective.attributes[name])
        if self._windows is not None:
            mask &= self._windows.get(clock() if at is None else at)
        if self._allocated is not None or "allocations" in context:
            mask &= self._allocations_mask(get("allocations", {}))
        if self._refuses_unknown:
            refuse_unknown(self.objective, context)
        return mask

    def depends_on(self) -> tuple[str, ...]:
        """Return what the outcome depends on by its value; see `Engine.depends_on`."""
        if self._depends_on is None:
            self._depends_on = self._found_to_matter()
        return self._depends_on

    def _found_to_matter(self) -> tuple[str, ...]:
        names = {name for name, *_ in self._dimensions}
        # All that matters of any other value is its type.
        names.update(name for name, kind, _ in self._unlooked if kind is None)
        for keys in self._layer_keys.values():
            names.update(keys)
        # No text in a rule's JSON has these bytes, and no other member: a rule is decoded only when it matches.
        if any(b'"split":[[' in line for line in self._lines):
            names.update(self.objective.sticky_key)
        if self._allocated is not None:
            names.add("allocations")
        return tuple(sorted(names))

    def changes_after(self, at: float) -> float | None:
        """Return the first time after `at` at which a rule's window begins or ends; None: there is none."""
        moment: float | None = None if self._windows is None else self._windows.next_after(at)
        return moment

    def rules(self) -> list[Rule]:
        return [self._rule(position) for position in range(len(self._lines))]

    def action(self, row: int) -> Action:
        return self.action_of_rule(self._rule_of_row[row] if self._rule_of_row else row)

    def action_of_rule(self, rule: int) -> Action:
        """Return the action of a rule, decoded on first use."""
        action = self._actions[rule]
        if action is None:
            record = self._rule(rule)
            try:
                action = build_action(self.objective.name, self._revision, record, self._resolve)
            except UNFIT as error:
                raise self._damaged(rule, error) from error
            self._actions[rule] = action
        return action

    def _rule(self, position: int) -> Rule:
        try:
            return decode_rule(self._lines[position])
        except UNFIT as error:
            raise self._damaged(position, error) from error

    def _damaged(self, position: int, error: Exception) -> BundleError:
        return damaged(f"rule {position + 1} of objective {self.objective.name!r}", error)

    def decisions(self) -> Iterator[Decision]:
        """Yield every decision that a rule can make, in the order of the rules."""
        for rule in range(len(self._lines)):
            yield from every_decision(self.action_of_rule(rule))

    def _allocations_mask(self, allocations: Any) -> int:
        """Return the rows that the caller's allocations permit: those without such an experiment, and those of its cells."""
        if not isinstance(allocations, Mapping):
            raise _allocations_error(f"must be an object of experiment ids and cells, got {type_name(allocations)}")
        known = self._allocated
        mask = self._all_rows if known is None else known.free
        for experiment, cell in allocations.items():
            if not isinstance(experiment, str) or not isinstance(cell, int | str) or isinstance(cell, bool):
                raise _allocations_error("must give each experiment id (text) a cell (text or an integer)")
            if known is not None and experiment in known.cells:
                mask |= known.cells[experiment].get(str(cell), 0)
        return mask

    def key(self, names: tuple[str, ...], context: Mapping[str, Any]) -> bytes | None:
        """Return the UTF-8 bytes of the first of `names` that has a key (see `key_value`), or None."""
        for name in names:
            value = context.get(name)
            # Hot path: a value that is neither None nor empty needs no more of `key_value`.
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
        return self.key(self._layer_keys[layer], context)

    def layer_mask(self, layer: str, context: Mapping[str, Any]) -> int:
        pieces, free = self._layers[layer]
        key = self.layer_key(layer, context)
        return free if key is None else pieces.get(layer_bucket(layer, key.decode()))

    def pick(self, split: Split, context: Mapping[str, Any]) -> Decision:
        key = self.key(self.objective.sticky_key, context)
        return split.keyless if key is None else winner_of(split.race, key)

    def race_of(self, action: Action, context: Mapping[str, Any]) -> tuple[Race, bytes] | None:
        """Return the race that an action runs for this context, and its key; None if it runs none."""
        if isinstance(action, Split):
            key = self.key(self.objective.sticky_key, context)
            return None if key is None else (action.race, key)
        if isinstance(action, LayerExperiment):
            key = self.layer_key(action.layer, context)
            return None if key is None else (action.race, key)
        return None


def _allocations_error(message: str) -> ContextError:
    return ContextError("allocations", f"attribute 'allocations' {message}")


def winner_of(race: Race, key: bytes) -> Decision:
    """Return the decision of a race that a key wins."""
    return race.decisions[choose(race.variants, key)]
