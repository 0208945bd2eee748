"""A comparison as text: per objective what moves and from where to where, then what changed."""

from __future__ import annotations

import shlex
from itertools import groupby

from rich.console import Console

from tidegate.cli import columns
from tidegate.cli.rules.skipped import Skipped
from tidegate.rules.compare.report import Diff
from tidegate.rules.compare.shares import ObjectiveShares
from tidegate.rules.pictures.flows_svg import headline
from tidegate.rules.replay.words import percent
from tidegate.rules.times import utc_text
from tidegate.rules.values import json_line

SHOWN_FLOWS = 20
SHOWN_CHANGES = 50
REVISION_DIGITS = 12


def show_diff(found: Diff, old: str, new: str, skipped: Skipped | None) -> None:
    """Print a comparison on standard output."""
    console = columns.console()
    columns.line(
        console, f"{old} ({found.old_revision[:REVISION_DIGITS]}) → {new} ({found.new_revision[:REVISION_DIGITS]})"
    )
    if skipped is not None and skipped.words():
        columns.line(console, skipped.words())
    if found.is_empty:
        columns.line(console, "nothing changed")
        return
    still = [each.objective for each in found.shares if not each.moved and not each.retuned]
    for shares in found.shares:
        if shares.objective not in still:
            _show_shares(console, shares, new)
    if still:
        columns.line(console)
        columns.line(console, f"nothing moves: {', '.join(still)}")
    if found.unseen:
        columns.line(console)
        columns.line(console, f"no context of the log: {', '.join(found.unseen)}")
    _show_changes(console, found)


def _show_shares(console: Console, shares: ObjectiveShares, new: str) -> None:
    columns.line(console)
    columns.line(console, f"{shares.objective}: {headline(shares)}", style="bold")
    rows = []
    changing = [flow for flow in shares.flows if flow.moved or flow.retuned]
    for flow in changing[:SHOWN_FLOWS]:
        rules = flow.old_rule or "-"
        if flow.new_rule != flow.old_rule:
            rules += f" → {flow.new_rule or '-'}"
        how = "moved" if flow.moved else "retuned"
        rows.append((percent(flow.share), flow.old_target, flow.new_target, rules, how))
    if len(changing) > SHOWN_FLOWS:
        rest = sum(flow.share for flow in changing[SHOWN_FLOWS:])
        rows.append((percent(rest), f"{len(changing) - SHOWN_FLOWS:,} smaller flows; --json has all", "", "", ""))
    rows.append((percent(shares.unchanged), "unchanged", "", "", ""))
    columns.show_table(console, ("share", "from", "to", "rules", ""), rows, ("share",))
    if shares.undecided is not None:
        columns.line(console, shares.undecided)
    _show_examples(console, shares, new)


def _show_examples(console: Console, shares: ObjectiveShares, new: str) -> None:
    """Commands to paste, one for each flow that is shown."""
    rules = shlex.quote(new)
    changing = [flow for flow in shares.flows if flow.moved or flow.retuned][:SHOWN_FLOWS]
    for flow in changing:
        if flow.example is not None:
            context = shlex.quote(json_line(flow.example.context))
            at = "" if flow.example.at is None else f" --at {utc_text(flow.example.at)}"
            columns.line(console, f"{flow.old_target} → {flow.new_target}, for example:")
            console.print(
                f"  tidegate rules explain {rules} --objective {shares.objective}{at} --context {context}",
                soft_wrap=True,
            )


def _show_changes(console: Console, found: Diff) -> None:
    for objective, group in groupby(found.changes, key=lambda change: change.objective):
        changes = list(group)
        columns.line(console)
        columns.line(
            console,
            f"changes of {objective}" if objective else "changes of the fleet, layers and callers",
            style="bold",
        )
        for change in changes[:SHOWN_CHANGES]:
            columns.line(console, f"  {change.text}")
        if len(changes) > SHOWN_CHANGES:
            columns.line(console, f"  … and {len(changes) - SHOWN_CHANGES:,} more; --json has all")
