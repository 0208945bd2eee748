"""`tidegate rules explain|find-member`: the decision, the arithmetic that an analyst can recompute, and rule by rule why not;
and members that get a decision."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from tidegate.analysis.figures import plain
from tidegate.analysis.members import Found, Wanted, find_members
from tidegate.cli import progress
from tidegate.cli.columns import first, say
from tidegate.cli.findings import check_objective
from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.cli.options import AT, json_object
from tidegate.cli.rules.named import NamedRules, named_rules
from tidegate.cli.stacks import STACK
from tidegate.errors import ContextError
from tidegate.language.program import Layer, free_buckets
from tidegate.language.words import did_you_mean
from tidegate.rules import Decision, Draw, Explanation
from tidegate.rules.bundle import short_revision
from tidegate.rules.decision import LayerDraw, ShadowDraw
from tidegate.rules.nearest import suggestion
from tidegate.rules.sticky import SEPARATOR

SHOWN_SEPARATOR = "␟"
SHOWN_RULES = 50
"""All rules are shown up to this many; `--json` always has all."""

SHOWN_ELSEWHERE = 8


@click.command()
@click.argument("rules")
@click.option("--objective", required=True, help="The objective of the request.")
@click.option(
    "--context",
    default="{}",
    callback=json_object,
    help="The context: a JSON object, @FILE with one, or - for standard input.",
)
@AT
@STACK
@AS_JSON
def explain(
    rules: str, objective: str, context: dict[str, Any], at: float | None, stack: str | None, as_json: bool
) -> None:
    """Show what a context decides by RULES, and for every rule why it matches or not.

    RULES is a rules directory, a compiled bundle, either in a git revision (HEAD~1:routing_rules), or `live:`, what is live.
    The arithmetic of a split, and of the bucket in a layer, is printed so that it can be recomputed. Exit code 1: the context
    is refused, or no rule matches it.
    """
    found = named_rules(rules, stack, as_json=as_json)
    engine = found.engine
    # A bundle lacks the holdouts of its layers: their buckets would be shown as free.
    layers = found.program.world.layers if found.has_files else {}
    check_objective(objective, engine.objectives)
    try:
        explanation = engine.explain(objective, context, at=at)
    except ContextError as error:
        if as_json:
            refused = {"attribute": error.attribute, "message": str(error)}
            print_json({"objective": objective, "decision": None, "error": refused})
        else:
            say(f"{objective}: the context is refused: {error}", err=True)
        raise click.exceptions.Exit(1) from error
    if as_json:
        print_json(explanation.as_dict(with_key=True))
    else:
        say("\n".join(explanation_lines(explanation, layers)))
    if explanation.decision is None:
        raise click.exceptions.Exit(1)


def explanation_lines(explanation: Explanation, layers: Mapping[str, Layer]) -> Iterator[str]:
    """Yield the lines of an explanation; `layers` are those of the rules directory."""
    decision = explanation.decision
    if decision is None:
        yield f"{explanation.objective}: no rule matches this context"
    else:
        yield from _decision(decision)
    for each in explanation.ignored:
        yield f"ignored: the objective does not declare the attribute {each.name!r}{suggestion(each.did_you_mean)}"
    for layer in explanation.layers:
        yield from _layer(layer, layers.get(layer.layer))
    if explanation.draws:
        yield from _draws(explanation.draws)
    elif decision is not None and decision.reason == "no_sticky_key":
        yield "choice: no attribute of the sticky key has a value (an empty text is none), so the first variant serves"
    for shadow in explanation.shadows:
        yield from _shadow(shadow)
    yield from _rules(explanation)


def _decision(decision: Decision) -> Iterator[str]:
    version = "" if decision.version is None else f"/{decision.version}"
    resolved = f"{decision.model}{version}"
    written = "" if decision.target.name == resolved else f" ({decision.target.name})"
    yield f"{decision.objective} → rule {decision.rule} → {resolved}{written}"
    yield f"  reason {decision.reason}, shards {', '.join(decision.shards)}, revision {short_revision(decision.revision)}"
    if decision.experiment is not None:
        yield f"  experiment {decision.experiment}, cell {decision.cell}"
    elif decision.variant is not None:
        yield f"  variant {decision.variant}"
    if decision.parameters:
        yield "  parameters " + ", ".join(f"{name}={value}" for name, value in decision.parameters.items())
    if decision.fallbacks:
        yield "  fallbacks " + ", ".join(target.name for target in decision.fallbacks)
    if decision.shadows:
        yield "  shadows " + ", ".join(f"{shadow.target.name} {plain(shadow.percent)} %" for shadow in decision.shadows)
    if decision.hedge_after_ms is not None:
        yield f"  hedged after {decision.hedge_after_ms} ms"
    if decision.hedge_at is not None:
        yield f"  hedged at {decision.hedge_at} of the target's latencies"
    if decision.fault is not None:
        parts = (f"{key} {plain(value)}" for key, value in decision.fault._asdict().items() if value is not None)
        yield f"  fault of synthetic requests: {', '.join(parts)}"


def _layer(draw: LayerDraw, layer: Layer | None) -> Iterator[str]:
    yield f"layer {draw.layer}: SHA-256 of {_shown(draw.hashed)}"
    yield f"  first 8 bytes {draw.number:016x} = {draw.number}; floor(that × 10000 / 2^64) = bucket {draw.bucket}"
    experiments = draw.ranges if layer is None else layer.experiments
    owners: dict[str, Sequence[tuple[int, int]]] = {
        f"experiment {name}": ranges for name, ranges in experiments.items()
    }
    if layer is not None:
        owners = {"holdout": layer.holdout, **owners, "free": free_buckets(layer)}
    for owner, ranges in owners.items():
        owned = ", ".join(f"{first}–{last}" for first, last in ranges) or "no buckets"
        inside = any(first <= draw.bucket <= last for first, last in ranges)
        yield f"  {owner}: {owned}{'  ← this bucket' if inside else ''}"


def _draws(draws: tuple[Draw, ...]) -> Iterator[str]:
    yield "choice: the smallest -ln(u) / weight wins, u = (first 8 bytes of the SHA-256 + 0.5) / 2^64"
    for draw in draws:
        yield f"  {draw.variant}{'  ← wins' if draw.won else ''}"
        yield f"    SHA-256 of {_shown(draw.hashed)}"
        yield f"    first 8 bytes {draw.number:016x} = {draw.number}; u = {draw.u!r}"
        if draw.score is None:
            yield "    weight 0: cannot win"
        else:
            yield f"    -ln(u) / weight = {draw.score * draw.weight:.9f} / {draw.weight} = {draw.score!r}"


def _shadow(draw: ShadowDraw) -> Iterator[str]:
    if draw.hashed is None or draw.number is None:
        yield f"shadow {draw.target}: {plain(draw.percent)} % of the requests without a sticky key, by chance"
        return
    verdict = "copied: u is at most" if draw.sampled else "not copied: u is above"
    yield f"shadow {draw.target}: {verdict} {plain(draw.percent)} / 100"
    yield f"  SHA-256 of {_shown(draw.hashed)}"
    yield f"  first 8 bytes {draw.number:016x} = {draw.number}; u = {draw.u!r}"


def _rules(explanation: Explanation) -> Iterator[str]:
    deciding = explanation.decision.rule if explanation.decision is not None else None
    yield "rules"
    for count, trace in enumerate(explanation.rules):
        if count >= SHOWN_RULES and trace.rule != deciding:
            continue
        if not trace.matched:
            yield f"  ✗ {trace.rule}: {trace.failed}: {trace.detail}"
        elif trace.rule == deciding:
            yield f"  ✓ {trace.rule}"
        else:
            yield f"  ✓ {trace.rule} (matches, but a rule above it came first)"
    if len(explanation.rules) > SHOWN_RULES:
        yield f"  … the first {SHOWN_RULES} of {len(explanation.rules)} rules; --json has all"


def _shown(hashed: str) -> str:
    """Quote a hashed text, with its separators and what does not print made visible."""
    return '"' + SHOWN_SEPARATOR.join(repr(part)[1:-1] for part in hashed.split(SEPARATOR)) + '"'


@click.command("find-member")
@click.argument("rules")
@click.option("--objective", required=True, help="The objective of the requests.")
@click.option("--experiment", help="The experiment that the member must be in.")
@click.option("--cell", help="The cell of the experiment.")
@click.option("--rule", help="The rule that must decide.")
@click.option("--variant", help="The variant of the rule's split: its target as written.")
@click.option(
    "--context",
    default="{}",
    callback=json_object,
    help="Attributes that every member has: a JSON object, @FILE with one, or - for standard input.",
)
@click.option("--count", default=1, show_default=True, type=click.IntRange(1, 10_000), help="Members to find.")
@click.option("--most", default=100_000, show_default=True, type=click.IntRange(1, 100_000_000), help="Members to try.")
@AT
@STACK
@AS_JSON
def find_member(
    rules: str,
    objective: str,
    context: dict[str, Any],
    count: int,
    most: int,
    at: float | None,
    stack: str | None,
    as_json: bool,
    **names: str | None,
) -> None:
    """Find made-up members that get a cell, a variant or a rule, as contexts for a case, `rules explain` or curl.

    RULES is as for `rules explain`. Made-up values of the sticky key, and of the keys of layers, are tried in turn, the same
    ones each time. Exit code 1: fewer were found than wanted; what the others get is printed.
    """
    wanted = Wanted(**names)
    if wanted.cell is not None and wanted.experiment is None:
        raise click.UsageError("--cell is of an experiment: name it with --experiment")
    found = named_rules(rules, stack, as_json=as_json)
    check_objective(objective, found.engine.objectives)
    _check_names(found, objective, wanted)
    progress.note(f"trying up to {most:,} members")
    try:
        result = find_members(found.program, found.engine, objective, wanted, context, count=count, most=most, at=at)
    except ContextError as error:
        if as_json:
            print_json({"objective": objective, "error": {"attribute": error.attribute, "message": str(error)}})
        else:
            say(f"{objective}: the context is refused: {error}; give the attribute with --context", err=True)
        raise click.exceptions.Exit(1) from error
    if as_json:
        print_json(_members_json(objective, result))
    else:
        _show_members(result, count)
    if len(result.members) < count:
        raise click.exceptions.Exit(1)


def _check_names(found: NamedRules, objective: str, wanted: Wanted) -> None:
    """Refuse names that the objective does not have, as wrong usage."""
    rules = next(each.rules for each in found.program.objectives if each.name == objective)
    experiments = {rule.experiment.id: rule.experiment for rule in rules if rule.experiment is not None}
    of_wanted = experiments.get(wanted.experiment or "")
    cells = [] if of_wanted is None else [str(each.cell) for each in of_wanted.cells]
    variants = {variant for decision in found.engine.decisions(objective) if (variant := decision.variant) is not None}
    for value, known, noun in (
        (wanted.experiment, experiments, "experiment"),
        (wanted.cell, cells, "cell"),
        (wanted.rule, {rule.id for rule in rules}, "rule"),
        (wanted.variant, variants, "variant"),
    ):
        if value is not None and value not in known:
            hint = did_you_mean(value, set(known), noun)
            raise click.BadParameter(f"objective {objective!r} has no {noun} {value!r}: {hint}", param_hint=f"--{noun}")


def _show_members(result: Found, count: int) -> None:
    for member in result.members:
        decision = member.decision
        cell = "" if decision.experiment is None else f", experiment {decision.experiment}, cell {decision.cell}"
        context = json.dumps(dict(member.context), ensure_ascii=False)
        say(f"{context}  rule {decision.rule}{cell} → {decision.target.name}")
    if len(result.members) < count:
        say(f"{len(result.members)} of {count} found: {result.tried} members were tried", err=True)
        for line in first([f"{number} get {words}" for words, number in result.elsewhere.items()], SHOWN_ELSEWHERE):
            say(f"  {line}", err=True)
        if not result.members:
            say("what a rule asks for beside the keys goes into --context, for every member alike", err=True)


def _members_json(objective: str, result: Found) -> dict[str, Any]:
    return {
        "objective": objective,
        "members": [
            {"context": dict(member.context), "decision": member.decision.as_dict()} for member in result.members
        ],
        "tried": result.tried,
        "elsewhere": dict(result.elsewhere),
    }
