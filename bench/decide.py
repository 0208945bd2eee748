"""Microseconds per decision, beside a linear scan of compiled predicates and Powertools' feature flags."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.feature_flags import FeatureFlags, StoreProvider
from tidegate.rules import load_bundle
from tidegate.rules.values import version_key

from bench.rule_sets import Context, bundle, contexts, rule_set, split_rules

SIZES = (10, 100, 1_000, 10_000)
ROUNDS = 9

Decide = Callable[[Context], Any]


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    lines = [
        "## Deciding",
        "",
        "One core, one objective, five attributes that rules look at and one that they do not; every decision checks",
        f"types and gives its reason. Medians of {ROUNDS} interleaved rounds.",
        "",
        "| rules | Tidegate, µs | linear scan, µs | Powertools feature flags, µs | scan / Tidegate "
        "| bundle, kB | load, ms |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    medians = {}
    for size in SIZES:
        rules = rule_set(size)
        data = bundle(rules)
        engine = load_bundle(data)
        batch = contexts(500)
        peers: dict[str, tuple[Decide, int]] = {
            "tidegate": (partial(engine.decide, "bench"), 500),
            "scan": (_scan(rules), max(10, 20_000 // size)),
        }
        if size <= 1_000:
            peers["powertools"] = (_feature_flags(rules), max(3, 2_000 // size))
        figures = _interleaved(peers, batch)
        load_ms = statistics.median(timed(partial(load_bundle, data)) for _ in range(ROUNDS)) * 1e3
        medians[size] = figures["tidegate"]
        flags = f"{figures['powertools']:.0f}" if "powertools" in figures else "not measured"
        lines.append(
            f"| {size:,} | {figures['tidegate']:.2f} | {figures['scan']:.1f} | {flags} "
            f"| {figures['scan'] / figures['tidegate']:.1f} | {len(data) / 1e3:,.0f} | {load_ms:.2f} |"
        )
    growth = medians[SIZES[-1]] / medians[SIZES[0]]
    lines += ["", f"From {SIZES[0]} to {SIZES[-1]:,} rules a decision takes {growth:.1f} times as long.", ""]
    return "\n".join(lines + _splits())


def _splits() -> list[str]:
    engines = {variants: load_bundle(bundle(split_rules(variants))) for variants in (1, 2, 5, 10)}
    peers: dict[str, tuple[Decide, int]] = {
        str(variants): (partial(engine.decide, "bench"), 500) for variants, engine in engines.items()
    }
    figures = _interleaved(peers, contexts(500))
    per_variant = (figures["10"] - figures["1"]) / 9
    cells = " | ".join(f"{figures[name]:.2f}" for name in peers)
    return [
        "| variants of a split | " + " | ".join(peers) + " |",
        "|---|" + "---:|" * len(peers),
        f"| µs per decision | {cells} |",
        "",
        f"Each variant of a split costs {per_variant:.2f} µs (one SHA-256 and one logarithm).",
        "",
    ]


def _interleaved(peers: dict[str, tuple[Decide, int]], batch: list[Context]) -> dict[str, float]:
    samples: dict[str, list[float]] = {name: [] for name in peers}
    for decide, count in peers.values():
        for context in batch[:count]:
            decide(context)
    for _ in range(ROUNDS):
        for name, (decide, count) in peers.items():
            samples[name].append(timed(partial(decide_all, decide, batch[:count])) / count * 1e6)
    return {name: statistics.median(values) for name, values in samples.items()}


def decide_all(decide: Decide, batch: list[Context]) -> None:
    for context in batch:
        decide(context)


def timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _scan(rules: list[dict[str, Any]]) -> Decide:
    """The rules as closures, tried one by one: what most routers do."""
    compiled = [(_predicates(rule.get("when", {})), rule) for rule in rules]

    def decide(context: Context) -> Any:
        for predicates, rule in compiled:
            if all(holds(context) for holds in predicates):
                return rule
        return None

    return decide


def _predicates(when: dict[str, Any]) -> list[Callable[[Context], bool]]:
    return [_predicate(name, value) for name, value in when.items()]


def _predicate(name: str, value: Any) -> Callable[[Context], bool]:
    if isinstance(value, list):
        options = frozenset(value)
        return lambda context: context[name] in options
    if isinstance(value, dict) and "gte" in value:
        bound = version_key(value["gte"])
        return lambda context: version_key(context[name]) >= bound
    if isinstance(value, dict):
        most: int = value["lt"]
        return lambda context: bool(context[name] < most)
    return lambda context: bool(context[name] == value)


class _Store(StoreProvider):
    """Holds a feature-flag configuration in memory."""

    def __init__(self, configuration: dict[str, Any]) -> None:
        self._configuration = configuration

    def get_configuration(self) -> dict[str, Any]:
        return self._configuration

    @property
    def get_raw_configuration(self) -> dict[str, Any]:
        return self._configuration


def _feature_flags(rules: list[dict[str, Any]]) -> Decide:
    """The same conditions as one feature; versions are left out, since feature flags cannot compare them."""
    made = {}
    for rule in rules[:-1]:
        conditions = []
        for name, value in rule["when"].items():
            if isinstance(value, list):
                conditions.append({"action": "KEY_IN_VALUE", "key": name, "value": value})
            elif isinstance(value, dict) and "lt" in value:
                conditions.append({"action": "KEY_LESS_THAN_VALUE", "key": name, "value": value["lt"]})
            elif not isinstance(value, dict):
                conditions.append({"action": "EQUALS", "key": name, "value": value})
        made[rule["id"]] = {"when_match": rule["serve"], "conditions": conditions}
    flags = FeatureFlags(_Store({"bench": {"default": "none", "boolean_type": False, "rules": made}}))
    return lambda context: flags.evaluate(name="bench", context=context, default="none")
