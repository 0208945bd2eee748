"""What changed between two revisions, piece by piece: rules by their id, contracts, aliases, placements, callers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tidegate.rules.bundle import encode
from tidegate.rules.compare.alignment import longest_rising, same_json
from tidegate.rules.compare.revision import Revision
from tidegate.rules.compare.wording import author_form, in_words

Kind = Literal["added", "removed", "changed", "moved", "renamed"]
Subject = Literal["rule", "objective", "attribute", "alias", "model", "shard", "layer", "caller", "callers"]

RULE_FIELDS = (
    "when",
    "active",
    "serve",
    "split",
    "experiment",
    "shadow",
    "fallback",
    "parameters",
    "timeout_ms",
    "hedge_after_ms",
)

Rules = Mapping[str, Mapping[str, Any]]
"""The rules of an objective by their id, in order, as the bundle has them."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    `subject` says of what (`callers` is the table of all of them), `name` which one, `objective` where it stands (empty for
    the fleet, layers and callers), `field` what of it changed. `old` and `new` are the values in the form of the rule
    language (None: there is none), `text` tells all of it in one line. A rule is `moved` where its order among the rules that
    stayed changed; `old` and `new` are then its places, counted from 1. It is `renamed` where a rule that is the same but for
    its id took its place; `name` is the old id, and `old` and `new` are the ids.
    """

    kind: Kind
    subject: Subject
    name: str
    objective: str
    field: str
    old: Any
    new: Any
    text: str

    def __str__(self) -> str:
        """`text`, with the objective before it where the text does not name it."""
        return f"{self.objective}: {self.text}" if self.objective and self.subject != "objective" else self.text

    def as_dict(self) -> dict[str, Any]:
        """The change as plain JSON values."""
        return {
            "kind": self.kind,
            "subject": self.subject,
            "name": self.name,
            "objective": self.objective or None,
            "field": self.field or None,
            "old": self.old,
            "new": self.new,
            "text": self.text,
        }


def changes_between(old: Revision, new: Revision) -> list[Change]:
    """Every change of the fleet, the layers and the callers, then of each objective."""
    found = _fleet(old.manifest, new.manifest)
    for name in sorted({*old.objectives, *new.objectives}):
        if name not in old.objectives:
            found.append(_there("added", "objective", name, name))
        elif name not in new.objectives:
            found.append(_there("removed", "objective", name, name))
        else:
            found += _objective(name, old, new)
    return found


def _there(kind: Kind, subject: Subject, name: str, objective: str, old: Any = None, new: Any = None) -> Change:
    return Change(kind, subject, name, objective, "", old, new, f"{subject} {name} {kind}")


def _changed(subject: Subject, name: str, objective: str, field: str, old: Any, new: Any) -> Change:
    words = f"{in_words(field, old)} → {in_words(field, new)}"
    return Change(
        "changed",
        subject,
        name,
        objective,
        field,
        author_form(field, old),
        author_form(field, new),
        f"{subject} {name}: {field} {words}",
    )


def _fleet(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    before, after = old["fleet"], new["fleet"]
    found = _entries("shard", before["shards"], after["shards"])
    found += _entries("model", _fields("shards", before["models"]), _fields("shards", after["models"]))
    found += _entries("alias", _fields("target", before["aliases"]), _fields("target", after["aliases"]))
    found += _entries("layer", old["layers"], new["layers"])
    # Without callers everybody may call, so a missing table differs from an empty one.
    if ("callers" in old) != ("callers" in new):
        kind: Kind = "added" if "callers" in new else "removed"
        found.append(Change(kind, "callers", "callers", "", "", None, None, f"the table of callers {kind}"))
    return found + _entries("caller", old.get("callers", {}), new.get("callers", {}))


def _fields(field: str, values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {field: value} for name, value in values.items()}


def _entries(subject: Subject, old: Mapping[str, Any], new: Mapping[str, Any], objective: str = "") -> list[Change]:
    """The changes among things that have a name and fields."""
    found = []
    for name in sorted({*old, *new}):
        if name not in old or name not in new:
            kind: Kind = "added" if name not in old else "removed"
            found.append(_there(kind, subject, name, objective, old.get(name), new.get(name)))
        else:
            fields = sorted({*old[name], *new[name]})
            found += _field_changes(subject, name, objective, fields, old[name], new[name])
    return found


def _field_changes(
    subject: Subject, name: str, objective: str, fields: Iterable[str], old: Mapping[str, Any], new: Mapping[str, Any]
) -> list[Change]:
    return [
        _changed(subject, name, objective, field, old.get(field), new.get(field))
        for field in fields
        if not same_json(old.get(field), new.get(field))
    ]


def _objective(name: str, old: Revision, new: Revision) -> list[Change]:
    before, after = old.manifest["objectives"][name], new.manifest["objectives"][name]
    fields = ("summary", "owner", "unknown_attributes", "sticky_key", "timeout_ms")
    found = _field_changes("objective", name, name, fields, before, after)
    found += _entries("attribute", before["context"], after["context"], name)
    rules = [{rule["id"]: rule for rule in each.rule_lines(name)} for each in (old, new)]
    # Which of two swapped rules moved is reported alike in both directions.
    is_turned = old.bundle.revision > new.bundle.revision
    return found + _rules(name, rules[0], rules[1], is_turned=is_turned)


def _rules(objective: str, old: Rules, new: Rules, *, is_turned: bool) -> list[Change]:
    renamed = _renamed(old, new)
    names = {rule: rule for rule in old if rule in new} | renamed
    in_place = _in_place(list(old), list(new), names, is_turned=is_turned)
    places = {rule: place for place, rule in enumerate(old, 1)}
    found = [_rule("removed", body, objective, places[rule]) for rule, body in old.items() if rule not in names]
    was = {now: rule for rule, now in names.items()}
    for place, (rule, body) in enumerate(new.items(), 1):
        before = was.get(rule)
        if before is None:
            found.append(_rule("added", body, objective, place))
            continue
        if before != rule:
            text = f"rule {before} renamed to {rule}"
            if "split" in body:
                text += ": its split is drawn again"
            found.append(Change("renamed", "rule", before, objective, "", before, rule, text))
        if before not in in_place:
            text = f"rule {rule} moved from place {places[before]} to {place}"
            found.append(Change("moved", "rule", rule, objective, "", places[before], place, text))
        found += _field_changes("rule", rule, objective, RULE_FIELDS, old[before], body)
    return found


def _rule(kind: Literal["added", "removed"], body: Mapping[str, Any], objective: str, place: int) -> Change:
    written = {field: author_form(field, body.get(field)) for field in RULE_FIELDS if field in body}
    parts = [f"{field} {in_words(field, body[field])}" for field in written]
    rule = str(body["id"])
    old, new = (None, written) if kind == "added" else (written, None)
    return Change(
        kind, "rule", rule, objective, "", old, new, f"rule {rule} {kind} at place {place}: {'; '.join(parts)}"
    )


def _renamed(old: Rules, new: Rules) -> dict[str, str]:
    """The new id of each rule that has another one and is the same otherwise."""
    come: dict[bytes, list[str]] = {}
    for rule, body in reversed(list(new.items())):
        if rule not in old:
            come.setdefault(encode({**body, "id": ""}), []).append(rule)
    found: dict[str, str] = {}
    for rule, body in old.items():
        if rule not in new and (alike := come.get(encode({**body, "id": ""}))):
            found[rule] = alike.pop()
    return found


def _in_place(old: Sequence[str], new: Sequence[str], names: Mapping[str, str], *, is_turned: bool) -> set[str]:
    """The old ids of the rules that stayed and need not be called moved."""
    if is_turned:
        turned = _in_place(new, old, {now: was for was, now in names.items()}, is_turned=False)
        return {was for was, now in names.items() if now in turned}
    order = {rule: place for place, rule in enumerate(new)}
    stayed = [rule for rule in old if rule in names]
    kept = longest_rising([order[names[rule]] for rule in stayed])
    return {rule for rule in stayed if order[names[rule]] in kept}
