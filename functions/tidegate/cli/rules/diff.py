"""`tidegate rules diff`: per objective what moves and from where to where, then what changed."""

from __future__ import annotations

import shlex
import time
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from tidegate.analysis.compare.comparable import comparable
from tidegate.analysis.compare.report import Diff, LoggedComparison, compare
from tidegate.analysis.compare.shares import ObjectiveShares
from tidegate.analysis.pictures.flows import HEADS, SHOWN_FLOWS, changing, flow_rows, flows_markdown, headline
from tidegate.analysis.replay.records import records
from tidegate.cli import progress
from tidegate.cli.columns import first, say, show_table
from tidegate.cli.findings import check_objective
from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.cli.options import FILE, at_option, write_file
from tidegate.cli.rules.log import LOG, Skipped, open_log, shown_reading
from tidegate.cli.rules.named import read_revision, refuse_idle_stack
from tidegate.cli.stacks import STACK
from tidegate.rules.bundle import short_revision
from tidegate.rules.times import utc_text
from tidegate.rules.values import json_line

OTHER_OBJECTIVE = "of no objective that is compared"
SHOWN_CHANGES = 50


@click.command()
@click.argument("old")
@click.argument("new")
@click.option("--log", type=LOG, help="Weigh contexts by this log: JSON lines, plain or gzip; - is standard input.")
@click.option("--objective", help="Compare this objective only; also the objective of log lines that name none.")
@at_option("Compare at this time, ISO 8601 (UTC if it has no offset). Default: now.")
@click.option("--markdown", type=FILE, help="Write what moves into this file, with a diagram, for a pull request.")
@STACK
@AS_JSON
def diff(
    old: str,
    new: str,
    log: Path | None,
    objective: str | None,
    at: float | None,
    markdown: Path | None,
    stack: str | None,
    as_json: bool,
) -> None:
    """Show what changed from OLD to NEW, and exactly which share of the traffic moves to another target.

    OLD and NEW are rules directories, compiled bundles, either in a git revision (HEAD~1:routing_rules), or what is live
    (`live:`, and `live:~1` before that). The share is exact over members; over contexts every case of every attribute has the
    same weight, or each context as often as it is in the log. Exit code 1: something changed, or one side has errors.
    """
    refuse_idle_stack(stack, old, new)
    before = read_revision(old, "OLD", as_json=as_json, stack=stack)
    after = read_revision(new, "NEW", as_json=as_json, stack=stack)
    before, after = comparable(before, after)
    if objective is not None:
        check_objective(objective, {*before.objectives, *after.objectives})
    if log is None:
        progress.note("comparing the rules")
        moment = time.time() if at is None else at
        found, skipped = compare(before, after, moment, objective=objective, with_examples=True), None
    else:
        found, skipped = _with_log(LoggedComparison(before, after, objective), log, objective, at)
    if as_json:
        print_json(_as_dict(found, (old, new), at, skipped))
    else:
        _show(found, old, new, skipped)
    if markdown is not None:
        write_file(markdown, flows_markdown(found.shares), "--markdown")
        say(f"{markdown}: written", err=as_json)
    if not found.is_empty:
        raise click.exceptions.Exit(1)


def _with_log(
    comparison: LoggedComparison, path: Path, objective: str | None, at_s: float | None
) -> tuple[Diff, Skipped]:
    skipped, now_s, contexts = Skipped(), time.time(), 0
    with open_log(path) as log:
        for number, name, context, moment_s in records(log, objective, shown_reading(log)):
            if name is None:
                skipped.add(number, context)
            elif (add := comparison.add.get(name)) is None:
                skipped.add(number, OTHER_OBJECTIVE)
            else:
                contexts += 1
                add(context, at_s if at_s is not None else now_s if moment_s is None else moment_s)
    if not contexts:
        raise click.BadParameter(
            ": ".join(filter(None, [f"no line of {log.name} is a context that is compared", skipped.words()])),
            param_hint="--log",
        )
    progress.note("comparing the rules")
    return comparison.diff(), skipped


def _show(found: Diff, old: str, new: str, skipped: Skipped | None) -> None:
    say(f"{old} ({short_revision(found.old_revision)}) → {new} ({short_revision(found.new_revision)})")
    if skipped is not None and skipped.words():
        say(skipped.words())
    if found.is_empty:
        say("nothing changed")
        return
    still = [each.objective for each in found.shares if not each.moved and not each.retuned]
    for shares in found.shares:
        if shares.objective not in still:
            _show_shares(shares, new)
    if still:
        say("")
        say(f"nothing moves: {', '.join(still)}")
    if found.unseen:
        say("")
        say(f"no context of the log: {', '.join(found.unseen)}")
    _show_changes(found)


def _show_shares(shares: ObjectiveShares, new: str) -> None:
    say("")
    say(f"{shares.objective}: {headline(shares)}", style="bold")
    show_table(HEADS, list(flow_rows(shares)), HEADS[:1])
    if shares.undecided is not None:
        say(shares.undecided)
    for flow in changing(shares)[:SHOWN_FLOWS]:
        if flow.example is not None:
            context = shlex.quote(json_line(flow.example.context))
            at = f" --at {utc_text(flow.example.at)}" if flow.example.has_windows else ""
            rules = shlex.quote(new)
            say(f"{flow.old_target} → {flow.new_target}, for example:")
            say(f"  tidegate rules explain {rules} --objective {shares.objective}{at} --context {context}")


def _show_changes(found: Diff) -> None:
    for objective, group in groupby(found.changes, key=lambda change: change.objective):
        say("")
        say(f"changes of {objective}" if objective else "changes of the fleet, layers and callers", style="bold")
        for line in first([change.text for change in group], SHOWN_CHANGES):
            say(f"  {line}")


def _as_dict(found: Diff, names: tuple[str, str], at_s: float | None, skipped: Skipped | None) -> dict[str, Any]:
    revisions = (found.old_revision, found.new_revision)
    old, new = ({"name": name, "revision": revision} for name, revision in zip(names, revisions, strict=True))
    return {
        "ok": True,
        "old": old,
        "new": new,
        "at": None if at_s is None else utc_text(at_s),
        "weighting": "uniform" if skipped is None else "log",
        "skipped": [] if skipped is None else skipped.as_list(),
        **found.as_dict(),
    }
