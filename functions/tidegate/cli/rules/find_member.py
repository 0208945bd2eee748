"""`tidegate rules find-member`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import click

from tidegate.cli.columns import say
from tidegate.cli.control import STACK
from tidegate.cli.rules.compiled import check_objective
from tidegate.cli.rules.options import AS_JSON, AT, json_object, print_json
from tidegate.cli.rules.revisions import NamedRules, named_rules
from tidegate.errors import ContextError
from tidegate.rules.members import Found, Member, Wanted, find_members
from tidegate.rules.shape import did_you_mean

SHOWN = 8
"""Of what other members get, so many are shown."""


@click.command("find-member")
@click.argument("rules")
@click.option("--objective", required=True, help="The objective that is asked for.")
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
    experiment: str | None,
    cell: str | None,
    rule: str | None,
    variant: str | None,
    context: dict[str, Any],
    count: int,
    most: int,
    at: float | None,
    stack: str | None,
    as_json: bool,
) -> None:
    """Find made-up members that get a cell, a variant or a rule, as contexts for a case, `rules explain` or curl. RULES is as
    for `rules explain`.

    Made-up values of the sticky key, and of layers' keys, are tried one after the other, the same ones each time. Exit code
    1: fewer were found than asked for; what the others get is printed.
    """
    if cell is not None and experiment is None:
        raise click.UsageError("--cell is of an experiment: say which by --experiment")
    found = named_rules(rules, stack, as_json=as_json)
    check_objective(objective, found.engine.objectives)
    wanted = Wanted(rule, variant, experiment, cell)
    _check(found, objective, wanted)
    try:
        result = find_members(found.program, found.engine, objective, wanted, context, count=count, most=most, at=at)
    except ContextError as error:
        if as_json:
            print_json({"objective": objective, "error": {"attribute": error.attribute, "message": str(error)}})
        else:
            say(f"{objective}: the context is refused: {error}; give the attribute by --context", err=True)
        raise click.exceptions.Exit(1) from error
    if as_json:
        print_json(_as_dict(objective, result))
    else:
        _show(result, count)
    if len(result.members) < count:
        raise click.exceptions.Exit(1)


def _check(found: NamedRules, objective: str, wanted: Wanted) -> None:
    """Refuse what the objective does not have, as wrong usage."""
    rules = next(each.rules for each in found.program.objectives if each.name == objective)
    bodies = {rule.id: rule.body for rule in rules}
    experiments = {body["experiment"]["id"]: body["experiment"] for body in bodies.values() if "experiment" in body}
    cells = [str(each["cell"]) for each in experiments.get(wanted.experiment or "", {}).get("cells", ())]
    variants = {variant for decision in found.engine.decisions(objective) if (variant := decision.variant) is not None}
    for value, known, noun in (
        (wanted.experiment, experiments, "experiment"),
        (wanted.cell, cells, "cell"),
        (wanted.rule, bodies, "rule"),
        (wanted.variant, variants, "variant"),
    ):
        if value is not None and value not in known:
            hint = did_you_mean(value, set(known), noun)
            raise click.BadParameter(f"objective {objective!r} has no {noun} {value!r}: {hint}", param_hint=f"--{noun}")


def _show(result: Found, count: int) -> None:
    for member in result.members:
        say(f"{json.dumps(dict(member.context), ensure_ascii=False)}  {_gets(member)}")
    if len(result.members) < count:
        told = [f"{len(result.members)} of {count} found: {result.tried} members were tried"]
        told += [f"  {number} get {words}" for words, number in list(result.elsewhere.items())[:SHOWN]]
        hint = (
            []
            if result.members
            else ["what a rule asks for beside the keys goes into --context, for every member alike"]
        )
        say("\n".join([*told, *_more(result.elsewhere), *hint]), err=True)


def _more(elsewhere: Iterable[str]) -> list[str]:
    left = len(list(elsewhere)) - SHOWN
    return [f"  … and {left} more; --json has all"] if left > 0 else []


def _gets(member: Member) -> str:
    decision = member.decision
    cell = "" if decision.experiment is None else f", experiment {decision.experiment}, cell {decision.cell}"
    return f"rule {decision.rule}{cell} → {decision.target.name}"


def _as_dict(objective: str, result: Found) -> dict[str, Any]:
    return {
        "objective": objective,
        "members": [
            {"context": dict(member.context), "decision": member.decision.as_dict()} for member in result.members
        ],
        "tried": result.tried,
        "elsewhere": dict(result.elsewhere),
    }
