"""A second, naive reading of the rule language, to hold the engine against.

It is written from the language's description alone, shares no code with the compiler or the engine, and prefers the
obvious to the fast: plain dicts as they stand in the YAML files, one linear scan, every condition looked at in turn.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Yaml = dict[str, Any]
Served = tuple[str, str, int | None, tuple[str, ...]]
"""A target: as written, the model, the version (None: not pinned), the shards."""

VERSION = re.compile(
    r"(?P<release>[0-9]{1,18}(\.[0-9]{1,18})*)"
    r"(-(?P<pre>[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*))?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?"
)


@dataclass(frozen=True)
class Rejected:
    """The context is not sound. `errors` holds every (kind, attribute); kinds: missing, type, domain, unknown."""

    errors: frozenset[tuple[str, str]]

    @property
    def attributes(self) -> frozenset[str]:
        return frozenset(attribute for _, attribute in self.errors)


@dataclass(frozen=True)
class NoRule:
    """The context is sound and no rule matches."""


@dataclass(frozen=True)
class Decided:
    """What a decision holds, but for the revision."""

    rule: str
    target: Served
    reason: str
    variant: str | None
    experiment: str | None
    cell: int | str | None
    parameters: Mapping[str, Any]
    fallbacks: tuple[Served, ...]
    shadows: frozenset[tuple[Served, float]]
    timeout_ms: int | None
    hedge_after_ms: int | None
    hedge_at: str | None
    fault: Mapping[str, Any] | None


@dataclass(frozen=True)
class Explained:
    """Per rule, in order: its id and the names of its conditions that fail (empty: the rule matches)."""

    outcome: Decided | NoRule
    rules: tuple[tuple[str, frozenset[str]], ...]


@dataclass(frozen=True)
class Directory:
    """A rules directory as the dicts that its YAML files hold."""

    objectives: Mapping[str, Yaml]
    fleet: Yaml
    layers: Yaml = field(default_factory=dict)

    def decide(self, objective: str, context: Mapping[str, Any], at: float) -> Decided | NoRule | Rejected:
        explained = self.explain(objective, context, at)
        return explained.outcome if isinstance(explained, Explained) else explained

    def explain(self, objective: str, context: Mapping[str, Any], at: float) -> Explained | Rejected:
        document = self.objectives[objective]
        errors = frozenset(context_errors(document, context))
        if errors:
            return Rejected(errors)
        present = effective_context(document, context)
        allocations = context.get("allocations", {})
        traces: list[tuple[str, frozenset[str]]] = []
        outcome: Decided | NoRule = NoRule()
        for rule in document["rules"]:
            failing = set(failing_conditions(document, rule.get("when", {}), present))
            if not is_active(rule.get("active", {}), at):
                failing.add("active")
            if "experiment" in rule and self.cell_of(document, rule["experiment"], present, allocations) is None:
                failing.add("experiment")
            traces.append((rule["id"], frozenset(failing)))
            if not failing and isinstance(outcome, NoRule):
                outcome = self.act(document, rule, present, allocations)
        return Explained(outcome, tuple(traces))

    def act(self, document: Yaml, rule: Yaml, present: Yaml, allocations: Yaml) -> Decided:
        variant = experiment = cell = None
        parameters = dict(rule.get("parameters", {}))
        if "serve" in rule:
            reason, target = "serve", rule["serve"]
        elif "split" in rule:
            key = first_key(document, as_list(document.get("sticky_key", [])), present)
            if key is None:
                reason, target = "no_sticky_key", next(iter(rule["split"]))
            else:
                reason, target = "split", race(f"{document['objective']}/{rule['id']}", rule["split"], key)
            variant = target
        else:
            reason, experiment = "experiment", rule["experiment"]["id"]
            cell = self.cell_of(document, rule["experiment"], present, allocations)
            variant = str(cell)
            arm = rule["experiment"]["cells"][cell]
            target = arm if isinstance(arm, str) else arm["serve"]
            if isinstance(arm, dict):
                parameters |= arm.get("parameters", {})
        fallback = rule["fallback"] if "fallback" in rule else document.get("fallback", [])
        return Decided(
            rule=rule["id"],
            target=self.resolve(target),
            reason=reason,
            variant=variant,
            experiment=experiment,
            cell=cell,
            parameters=parameters,
            fallbacks=tuple(self.resolve(name) for name in as_list(fallback)),
            shadows=frozenset((self.resolve(name), float(share)) for name, share in rule.get("shadow", {}).items()),
            timeout_ms=rule.get("timeout_ms", document.get("timeout_ms")),
            hedge_after_ms=rule.get("hedge_after_ms"),
            hedge_at=rule.get("hedge_at"),
            fault=None
            if "fault" not in rule
            else {"delay_ms": None, "abort_status": None, "percent": 100, **rule["fault"]},
        )

    def cell_of(self, document: Yaml, experiment: Yaml, present: Yaml, allocations: Yaml) -> Any:
        """The cell that this request belongs to, as the author wrote it; None: not in the experiment."""
        cells = {str(cell): cell for cell in experiment["cells"]}
        if experiment.get("allocate", "layer") == "caller":
            return cells.get(str(allocations[experiment["id"]])) if experiment["id"] in allocations else None
        layer = self.layers[experiment["layer"]]
        key = first_key(document, as_list(layer["key"]), present)
        if key is None:
            return None
        bucket = bucket_of(experiment["layer"], key)
        if not any(first <= bucket <= last for first, last in pairs(layer["experiments"][experiment["id"]])):
            return None
        weights = {
            str(cell): arm.get("weight", 1) if isinstance(arm, dict) else 1 for cell, arm in experiment["cells"].items()
        }
        return cells[race(experiment["id"], weights, key)]

    def resolve(self, written: str) -> Served:
        meant = self.fleet.get("aliases", {}).get(written, written)
        model, _, version = meant.partition("/")
        return written, model, int(version) if version else None, tuple(self.fleet["models"][model]["shards"])


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def pairs(ranges: list[Any]) -> list[list[int]]:
    """A range list is one pair or a list of pairs."""
    return ranges if isinstance(ranges[0], list) else [ranges]


def context_errors(document: Yaml, context: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, spec in document["context"].items():
        if name not in context:
            if spec.get("required"):
                yield "missing", name
        elif not is_of_type(spec["type"], context[name]):
            yield "type", name
        elif "values" in spec:
            elements = context[name] if spec["type"] == "set" else [context[name]]
            if not all(any(equal(spec["type"], element, value) for value in spec["values"]) for element in elements):
                yield "domain", name
    if document.get("unknown_attributes") == "refuse":
        for name in context.keys() - document["context"].keys() - {"allocations"}:
            yield "unknown", name
    allocations = context.get("allocations", {})
    if not isinstance(allocations, Mapping) or not all(
        isinstance(experiment, str) and isinstance(cell, str | int) and not isinstance(cell, bool)
        for experiment, cell in allocations.items()
    ):
        yield "type", "allocations"


def is_of_type(kind: str, value: Any) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            if isinstance(value, int):
                return not isinstance(value, bool) and -(2**1024) < value < 2**1024
            return isinstance(value, float) and math.isfinite(value)
        case "boolean":
            return isinstance(value, bool)
        case "version":
            return isinstance(value, str) and len(value) <= 256 and VERSION.fullmatch(value) is not None
        case "set":
            return isinstance(value, list | tuple | set | frozenset) and all(isinstance(item, str) for item in value)
    raise AssertionError(kind)


def effective_context(document: Yaml, context: Mapping[str, Any]) -> Yaml:
    """The declared attributes that are present, or stand for themselves by their default."""
    present = {}
    for name, spec in document["context"].items():
        if name in context:
            present[name] = context[name]
        elif "default" in spec:
            present[name] = spec["default"]
    return present


def version_order(text: str) -> Any:
    """SemVer 2.0 §11 precedence, any number of components, missing ones count as 0."""
    match = VERSION.fullmatch(text)
    assert match, text
    release = [int(part) for part in match["release"].split(".")]
    while release and release[-1] == 0:
        release.pop()
    if match["pre"] is None:
        return release, 1, []
    identifiers = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in match["pre"].split(".")]
    return release, 0, identifiers


def ordered(kind: str, value: Any) -> Any:
    return version_order(value) if kind == "version" else value


def equal(kind: str, left: Any, right: Any) -> bool:
    return bool(ordered(kind, left) == ordered(kind, right))


def failing_conditions(document: Yaml, when: Yaml, present: Yaml) -> Iterator[str]:
    for name, wanted in when.items():
        if name == "any_of":
            if not any(not list(failing_conditions(document, item, present)) for item in wanted):
                yield "any_of"
        elif not holds(document["context"][name]["type"], wanted, name in present, present.get(name)):
            yield name


def holds(kind: str, wanted: Any, is_present: bool, value: Any) -> bool:
    if not isinstance(wanted, dict):
        return is_present and any(equal(kind, value, item) for item in as_list(wanted))
    return all(operator_holds(kind, operator, operand, is_present, value) for operator, operand in wanted.items())


def operator_holds(kind: str, operator: str, operand: Any, is_present: bool, value: Any) -> bool:
    if operator == "present":
        return is_present is operand
    if not is_present:
        return False
    match operator:
        case "in":
            return any(equal(kind, value, item) for item in operand)
        case "not":
            return not any(equal(kind, value, item) for item in as_list(operand))
        case "gt":
            return bool(ordered(kind, value) > ordered(kind, operand))
        case "gte":
            return bool(ordered(kind, value) >= ordered(kind, operand))
        case "lt":
            return bool(ordered(kind, value) < ordered(kind, operand))
        case "lte":
            return bool(ordered(kind, value) <= ordered(kind, operand))
        case "prefix":
            return any(value.startswith(item) for item in as_list(operand))
        case "suffix":
            return any(value.endswith(item) for item in as_list(operand))
        case "contains_any":
            return any(item in value for item in operand)
        case "contains_all":
            return all(item in value for item in operand)
    raise AssertionError(operator)


def instant(text: str) -> float:
    """Unix seconds of an ISO 8601 timestamp or date; without an offset it is UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def is_active(active: Yaml, at: float) -> bool:
    if "from" in active and at < instant(active["from"]):
        return False
    return not ("until" in active and at >= instant(active["until"]))


def first_key(document: Yaml, names: list[str], present: Yaml) -> str | None:
    """The text that is hashed; an empty one counts as absent, so that the default stands in, or the next name."""
    for name in names:
        value = present.get(name, "")
        if value == "":
            value = document["context"][name].get("default", "")
        if value != "":
            return str(value)
    return None


def race(salt: str, weights: Mapping[str, int], key: str) -> str:
    """Weighted rendezvous: the variant with the smallest -ln(u) / weight."""
    scores = {}
    for variant, weight in weights.items():
        digest = hashlib.sha256("\x1f".join((salt, variant, key)).encode()).digest()
        u = (int.from_bytes(digest[:8], "big") + 0.5) / 2**64
        if weight > 0:
            scores[variant] = -math.log(u) / weight
    return min(scores, key=lambda variant: scores[variant])


def bucket_of(layer: str, key: str) -> int:
    digest = hashlib.sha256(f"{layer}\x1f{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * 10000 // 2**64
