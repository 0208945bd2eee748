"""`GET /v1/objectives/{o}/traffic`: each rule of an objective with its conditions, and what it decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tidegate.analysis.compare.changes import condition_text
from tidegate.analysis.replay.shares import MISMATCH_BELOW, share_test, wilson
from tidegate.console.live_rules import OpenedRules
from tidegate.console.traffic import Figures
from tidegate.console.traffic_reads import RuleFigures, figures_json
from tidegate.ports.bundle_store import iso_time
from tidegate.rules.bundle.rule import Experiment, Rule, Window

Json = Mapping[str, Any]


def objective_rules(
    opened: OpenedRules,
    objective: str,
    rules: Mapping[str, RuleFigures],
    lines: Mapping[str, int],
    spaces: Mapping[str, float] | None,
    pairs: Iterable[Json],
) -> list[dict[str, Any]]:
    """Return the rules of an objective, in order, as plain JSON values.

    Args:
        rules: the figures of each rule.
        lines: the line of each rule in its file, as far as it is known.
        spaces: the share of the contexts that each rule decides; None: not known.
        pairs: the pairs of shadows, of all objectives.
    """
    found = {rule.id: rules.get(rule.id, RuleFigures()) for rule in opened.of(objective)}
    total = sum(each.whole.requests for each in found.values())
    by_rule: dict[str, list[Json]] = {}
    for pair in pairs:
        if pair["objective"] == objective:
            by_rule.setdefault(pair["rule"], []).append(pair)
    return [
        {
            "id": rule.id,
            "line": lines.get(rule.id),
            "action": "serve" if rule.serve is not None else "split" if rule.split is not None else "experiment",
            "target": rule.serve,
            "when": condition_text(rule.when),
            "active": _active(rule.active),
            **_figures(found[rule.id].whole, total),
            "space_share": None if spaces is None else spaces.get(rule.id, 0.0),
            "variants": list(_variants(rule, found[rule.id])),
            "fallback": list(rule.fallback),
            "shadows": [_shadow(target, percent, by_rule.get(rule.id, ())) for target, percent in rule.shadow],
            "shares": (shares := _shares(rule, found[rule.id])),
            "experiment": None if rule.experiment is None else _experiment(rule.experiment, shares),
        }
        for rule in opened.of(objective)
    ]


def _figures(figures: Figures, total: int) -> dict[str, Any]:
    return {
        "requests": figures.requests,
        "share": figures.requests / total if total else None,
        "last_at": None if figures.last_at is None else iso_time(figures.last_at),
        **figures_json(figures),
    }


def _active(window: Window | None) -> dict[str, str | None] | None:
    if window is None:
        return None
    start, end = (None if each is None else iso_time(each) for each in window)
    return {"from": start, "until": end}


def _weights(rule: Rule) -> list[tuple[str, str, int]]:
    """Return name, target and weight of each variant."""
    if rule.split is not None:
        return [(target, target, weight) for target, weight in rule.split]
    cells = () if rule.experiment is None else rule.experiment.cells
    return [(str(cell.cell), cell.serve, cell.weight) for cell in cells]


def _variants(rule: Rule, figures: RuleFigures) -> Iterator[dict[str, Any]]:
    weights = _weights(rule)
    whole = sum(weight for _, _, weight in weights)
    is_callers = rule.experiment is not None and rule.experiment.allocate == "caller"
    counts = {name: figures.variants.get(name, Figures()) for name, _, _ in weights}
    total = sum(each.requests for each in counts.values())
    for name, target, weight in weights:
        requests = counts[name].requests
        yield {
            "name": name,
            "target": target,
            "weight": weight,
            "configured_share": None if is_callers else weight / whole,
            "requests": requests,
            "share": requests / total if total else None,
            "ci95": list(wilson(requests, total)) if total else None,
            **figures_json(counts[name]),
        }


def _shares(rule: Rule, figures: RuleFigures) -> dict[str, Any] | None:
    """Return a test of the variants' requests against their weights; None for a rule without variants. Those of one member are not
    independent of each other, so a mismatch is a reason to look (`tidegate rules replay` counts members), and no proof."""
    if rule.serve is not None:
        return None
    weights = _weights(rule)
    counts = [figures.variants.get(name, Figures()).requests for name, _, _ in weights]
    is_callers = rule.experiment is not None and rule.experiment.allocate == "caller"
    test = None if is_callers else share_test(counts, [weight for _, _, weight in weights])
    verdict = "too-few" if test is None else "mismatch" if test.p_value < MISMATCH_BELOW else "as-configured"
    return {
        "chi2": None if test is None else test.statistic,
        "p": None if test is None else test.p_value,
        "verdict": verdict,
    }


def _experiment(experiment: Experiment, shares: dict[str, Any] | None) -> dict[str, Any]:
    return {"id": experiment.id, "layer": experiment.layer, "allocate": experiment.allocate, **(shares or {})}


def _shadow(target: str, percent: float, pairs: Sequence[Json]) -> dict[str, Any]:
    """Return a shadow with the sums of its pairs, one for each primary, and the report of the one that has most comparisons."""
    own = [pair for pair in pairs if pair["shadow"] == target]
    return {
        "target": target,
        "percent": percent,
        "sampled": sum(pair["sampled"] for pair in own),
        "sent": sum(pair["sent"] for pair in own),
        "compared": sum(pair["compared"] for pair in own),
        "dropped": sum(sum(pair["dropped"].values()) for pair in own),
        "report": max(own, key=lambda pair: pair["compared"], default=None),
    }
