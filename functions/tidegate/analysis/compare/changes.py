"""The changes between two revisions, piece by piece: rules by their id, contracts, aliases, placements, callers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tidegate.analysis.compare.alignment import longest_rising, same_json
from tidegate.analysis.compare.revision import Revision
from tidegate.analysis.figures import plain
from tidegate.errors import printable
from tidegate.rules.bundle.manifest import ATTRIBUTE, CALLER, OBJECTIVE, SHARD, Manifest
from tidegate.rules.bundle.rule import EXPERIMENT, RULE, Experiment, Rule, encode_rule
from tidegate.rules.conditions import AnyOf, Conjunction
from tidegate.rules.times import utc_text
from tidegate.rules.values import json_text


class ChangeKind(StrEnum):
    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    MOVED = "moved"
    """A rule has another position among the rules that stayed."""
    RENAMED = "renamed"
    """A rule has another id, and is otherwise the same."""


class Subject(StrEnum):
    RULE = "rule"
    OBJECTIVE = "objective"
    ATTRIBUTE = "attribute"
    ALIAS = "alias"
    MODEL = "model"
    SHARD = "shard"
    LAYER = "layer"
    CALLER = "caller"
    CALLERS = "callers"
    """The table of all callers."""


RULE_FIELDS = ("when", "active", *(name for name in Rule._fields if name not in ("id", "when", "active")))

Rules = Mapping[str, Rule]
"""The rules of an objective by their id, in order."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change, in the fields of its documented JSON.

    `subject` and `name` say what changed, in `objective` (None for the fleet, layers and callers); `field` is the changed part
    (None: all of it). `old` and `new` are the values in the form of the rule language (None: there is none), `text` is the
    change in one line. For a moved rule, `old` and `new` are its places, counted from 1; for a renamed one the ids, and `name`
    is the old id.
    """

    kind: ChangeKind
    subject: Subject
    name: str
    objective: str | None
    field: str | None
    old: Any
    new: Any
    text: str

    def __str__(self) -> str:
        return (
            f"{self.objective}: {self.text}" if self.objective and self.subject is not Subject.OBJECTIVE else self.text
        )


def changes_between(old: Revision, new: Revision) -> list[Change]:
    """Return every change of the fleet, the layers and the callers, then of each objective."""
    found = _fleet(old.manifest, new.manifest)
    for name in sorted({*old.objectives, *new.objectives}):
        if name not in old.objectives:
            found.append(_there(ChangeKind.ADDED, Subject.OBJECTIVE, name, name))
        elif name not in new.objectives:
            found.append(_there(ChangeKind.REMOVED, Subject.OBJECTIVE, name, name))
        else:
            found += _objective(name, old, new)
    return found


def _there(
    kind: ChangeKind, subject: Subject, name: str, objective: str | None, old: Any = None, new: Any = None
) -> Change:
    return Change(kind, subject, name, objective, None, old, new, f"{subject} {name} {kind}")


def _changed(subject: Subject, name: str, objective: str | None, field: str, old: Any, new: Any) -> Change:
    text = f"{subject} {name}: {field} {_in_words(field, old)} → {_in_words(field, new)}"
    return Change(
        ChangeKind.CHANGED, subject, name, objective, field, author_form(field, old), author_form(field, new), text
    )


def _fleet(old: Manifest, new: Manifest) -> list[Change]:
    before, after = old.fleet, new.fleet
    found = _entries(Subject.SHARD, _each(SHARD.write, before.shards), _each(SHARD.write, after.shards))
    found += _entries(Subject.MODEL, _fields("shards", before.models), _fields("shards", after.models))
    found += _entries(Subject.ALIAS, _fields("target", before.aliases), _fields("target", after.aliases))
    found += _entries(Subject.LAYER, _fields("key", old.layers), _fields("key", new.layers))
    # Without callers everybody may call, so a missing table differs from an empty one.
    if (old.callers is None) != (new.callers is None):
        kind: ChangeKind = ChangeKind.REMOVED if new.callers is None else ChangeKind.ADDED
        found.append(Change(kind, Subject.CALLERS, "callers", None, None, None, None, f"the table of callers {kind}"))
    return found + _entries(
        Subject.CALLER, _each(CALLER.write, old.callers or {}), _each(CALLER.write, new.callers or {})
    )


def _fields(field: str, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {field: value} for name, value in values.items()}


def _each(as_json: Callable[[Any], dict[str, Any]], values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: as_json(value) for name, value in values.items()}


def _entries(
    subject: Subject, old: Mapping[str, Any], new: Mapping[str, Any], objective: str | None = None
) -> list[Change]:
    found = []
    for name in sorted({*old, *new}):
        if name not in old or name not in new:
            kind: ChangeKind = ChangeKind.ADDED if name not in old else ChangeKind.REMOVED
            found.append(_there(kind, subject, name, objective, old.get(name), new.get(name)))
        else:
            fields = sorted({*old[name], *new[name]})
            found += _field_changes(subject, name, objective, fields, old[name], new[name])
    return found


def _field_changes(
    subject: Subject,
    name: str,
    objective: str | None,
    fields: Iterable[str],
    old: Mapping[str, Any],
    new: Mapping[str, Any],
) -> list[Change]:
    return [
        _changed(subject, name, objective, field, old.get(field), new.get(field))
        for field in fields
        if not same_json(old.get(field), new.get(field))
    ]


def _objective(name: str, old: Revision, new: Revision) -> list[Change]:
    was, now = (each.manifest.objectives[name].contract for each in (old, new))
    before, after = OBJECTIVE.write(was), OBJECTIVE.write(now)
    # Attributes are compared one by one, and allocations follow from the rules.
    fields = sorted({*before, *after} - {"context", "allocations"})
    found = _field_changes(Subject.OBJECTIVE, name, name, fields, before, after)
    found += _entries(
        Subject.ATTRIBUTE, _each(ATTRIBUTE.write, was.attributes), _each(ATTRIBUTE.write, now.attributes), name
    )
    rules = [{rule.id: rule for rule in each.rules[name]} for each in (old, new)]
    # Which of two swapped rules moved is reported alike in both directions.
    is_turned = old.bundle.revision > new.bundle.revision
    return found + _rules(name, rules[0], rules[1], is_turned=is_turned)


def _rules(objective: str, old: Rules, new: Rules, *, is_turned: bool) -> list[Change]:
    renamed = _renamed(old, new)
    names = {rule: rule for rule in old if rule in new} | renamed
    in_place = _in_place(list(old), list(new), names, is_turned=is_turned)
    places = {rule: place for place, rule in enumerate(old, 1)}
    found = [
        _rule(ChangeKind.REMOVED, each, objective, places[rule]) for rule, each in old.items() if rule not in names
    ]
    was = {now: rule for rule, now in names.items()}
    for place, (rule, after) in enumerate(new.items(), 1):
        before = was.get(rule)
        if before is None:
            found.append(_rule(ChangeKind.ADDED, after, objective, place))
            continue
        if before != rule:
            text = f"rule {before} renamed to {rule}"
            if after.split is not None:
                text += ": its split is drawn again"
            found.append(Change(ChangeKind.RENAMED, Subject.RULE, before, objective, None, before, rule, text))
        if before not in in_place:
            text = f"rule {rule} moved from place {places[before]} to {place}"
            found.append(Change(ChangeKind.MOVED, Subject.RULE, rule, objective, None, places[before], place, text))
        found += _rule_changes(objective, old[before], after)
    return found


def _rule_changes(objective: str, old: Rule, new: Rule) -> list[Change]:
    was, now = _members(old), _members(new)
    before, after = RULE.write(old), RULE.write(new)
    return [
        _changed(Subject.RULE, new.id, objective, field, was.get(field), now.get(field))
        for field in RULE_FIELDS
        if not same_json(before.get(field), after.get(field))
    ]


def _members(rule: Rule) -> dict[str, Any]:
    members = {field: getattr(rule, field) for field in RULE_FIELDS}
    return {field: value for field, value in members.items() if field == "when" or value not in (None, (), {})}


def _rule(kind: ChangeKind, rule: Rule, objective: str, place: int) -> Change:
    members = _members(rule)
    written = {field: author_form(field, value) for field, value in members.items()}
    parts = "; ".join(f"{field} {_in_words(field, value)}" for field, value in members.items())
    old, new = (None, written) if kind is ChangeKind.ADDED else (written, None)
    return Change(
        kind, Subject.RULE, rule.id, objective, None, old, new, f"rule {rule.id} {kind} at place {place}: {parts}"
    )


def _renamed(old: Rules, new: Rules) -> dict[str, str]:
    """Return the new id of each rule that has another one and is the same otherwise."""
    come: dict[bytes, list[str]] = {}
    for rule, after in reversed(list(new.items())):
        if rule not in old:
            come.setdefault(encode_rule(after._replace(id="")), []).append(rule)
    found: dict[str, str] = {}
    for rule, before in old.items():
        if rule not in new and (alike := come.get(encode_rule(before._replace(id="")))):
            found[rule] = alike.pop()
    return found


def _in_place(old: Sequence[str], new: Sequence[str], names: Mapping[str, str], *, is_turned: bool) -> set[str]:
    """Return the old ids of a largest set of rules that kept their order; the other rules count as moved."""
    if is_turned:
        turned = _in_place(new, old, {now: was for was, now in names.items()}, is_turned=False)
        return {was for was, now in names.items() if now in turned}
    order = {rule: place for place, rule in enumerate(new)}
    stayed = [rule for rule in old if rule in names]
    kept = longest_rising([order[names[rule]] for rule in stayed])
    return {rule for rule in stayed if order[names[rule]] in kept}


def author_form(field: str, value: Any) -> Any:
    """Return a field of a rule as JSON in the form of the rule language; anything else as JSON."""
    if value is None:
        return None
    match field:
        case "when":
            return _when(value)
        case "split" | "shadow" | "parameters":
            return dict(value)
        case "active":
            named = zip(("from", "until"), value, strict=True)
            return {key: utc_text(seconds) for key, seconds in named if seconds is not None}
        case "experiment":
            return EXPERIMENT.write(value)
        case "fault":
            return {key: each for key, each in value._asdict().items() if each is not None}
        case _:
            return list(value) if isinstance(value, tuple) else value


def _in_words(field: str, value: Any) -> str:
    """Return a field of a rule, or a JSON value of something else, in one line."""
    match field:
        case _ if value is None or value == ():
            return "none"
        case "when":
            return condition_text(value)
        case "split":
            return ", ".join(f"{name} {weight}" for name, weight in value)
        case "shadow":
            return ", ".join(f"{name} {plain(percent)} %" for name, percent in value)
        case "active":
            return " ".join(f"{key} {moment}" for key, moment in author_form(field, value).items())
        case "experiment":
            return _experiment(value)
        case _ if isinstance(value, tuple) and field not in ("default", "fault"):
            return ", ".join(map(json_text, value))
        case _:
            form = author_form(field, value)
            return printable(form if isinstance(form, str) and form else json.dumps(form, ensure_ascii=False))


def _experiment(experiment: Experiment) -> str:
    cells = []
    for each in experiment.cells:
        parameters = f" with {json.dumps(dict(each.parameters), ensure_ascii=False)}" if each.parameters else ""
        cells.append(f"{each.cell}: {each.serve} weight {each.weight}{parameters}")
    ranges = ", ".join(f"{first}–{last}" for first, last in experiment.ranges)
    where = f"in layer {experiment.layer}, buckets {ranges}" if experiment.layer else "allocated by the caller"
    return f"{experiment.id} {where}; cells {', '.join(cells)}"


def condition_text(conjunction: Conjunction) -> str:
    """Return conditions in one line; empty where there is none."""
    parts = []
    for term in conjunction:
        if isinstance(term, AnyOf):
            parts.append("(" + " or ".join(condition_text(each) or "always" for each in term.alternatives) + ")")
        else:
            parts.append(f"{term.attribute} {term.words()}")
    return " and ".join(parts)


def _when(conjunction: Conjunction) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for term in conjunction:
        if isinstance(term, AnyOf):
            made["any_of"] = [_when(each) for each in term.alternatives]
        else:
            operand = list(term.operand) if isinstance(term.operand, tuple) else term.operand
            made.setdefault(term.attribute, {})[term.operator] = operand
    return made
