"""`tidegate rules explain`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from tidegate.cli.rules.options import AS_JSON, DIRECTORY, print_json
from tidegate.rules import Engine, Explanation, compile_directory, load_bundle


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--objective", required=True, help="The objective that is asked for.")
@click.option("--context", default="{}", help="The context, a JSON object.")
@click.option("--at", help="The time of the request, ISO 8601 (UTC where it has no offset); now where left out.")
@AS_JSON
def explain(directory: Path, objective: str, context: str, at: str | None, as_json: bool) -> None:
    """Tell what a context decides, and for every rule why it matches or not."""
    values = _context(context)
    engine = load_bundle(compile_directory(directory))
    explanation = engine.explain(objective, values, at=_time(at))
    if as_json:
        print_json(explanation.as_dict())
    else:
        _show(engine, explanation)
    if explanation.decision is None:
        raise click.exceptions.Exit(1)


def _context(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"it is not JSON: {error}", param_hint="--context") from error
    if not isinstance(values, dict):
        raise click.BadParameter('write a JSON object, such as \'{"country": "US"}\'', param_hint="--context")
    return values


def _time(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter('write ISO 8601, such as "2026-11-01T00:00:00Z"', param_hint="--at") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _show(engine: Engine, explanation: Explanation) -> None:
    decision = explanation.decision
    if decision is None:
        click.echo(f"{explanation.objective}: no rule matches this context")
    else:
        version = "" if decision.version is None else f"/{decision.version}"
        click.echo(f"{explanation.objective} → rule {decision.rule} → {decision.model}{version}")
        click.echo(f"  reason {decision.reason}, shards {', '.join(decision.shards)}, revision {engine.revision[:12]}")
        for name in ("variant", "experiment", "cell"):
            if getattr(decision, name) is not None:
                click.echo(f"  {name} {getattr(decision, name)}")
    for layer, bucket in (explanation.buckets or {}).items():
        click.echo(f"  layer {layer}: bucket {bucket} of 0-9999")
    for draw in explanation.draws:
        score = "cannot win" if draw.score is None else f"-ln(u)/weight {draw.score:.6f}"
        click.echo(f"  {draw.variant}: weight {draw.weight}, u {draw.u:.6f}, {score}")
    for trace in explanation.rules:
        if trace.matched:
            first = decision is not None and trace.rule == decision.rule
            click.echo(f"✓ {trace.rule}{'' if first else ' (matches, but a rule above it came first)'}")
        else:
            click.echo(f"✗ {trace.rule}: {trace.failed}: {trace.detail}")
