"""`tidegate rules replay`: what each rule got, errors, shares with their tests, what moved."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from tidegate.analysis.compare.comparable import comparable
from tidegate.analysis.figures import percent
from tidegate.analysis.pictures.shares_svg import shares_svg
from tidegate.analysis.replay.races import races_of
from tidegate.analysis.replay.records import records
from tidegate.analysis.replay.report import ObjectiveCounts, ReplayReport, report
from tidegate.analysis.replay.shares import MISMATCH_BELOW, Shares, Verdict
from tidegate.analysis.replay.tally import Counted, Fault, Moved, Replayer
from tidegate.cli.columns import count, say, show_table
from tidegate.cli.findings import check_objective
from tidegate.cli.group import INTERRUPTED
from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.cli.options import FILE, FOLDER, at_option, not_written, write_file
from tidegate.cli.rules.log import LOG, STANDARD_INPUT, open_log, shown_reading
from tidegate.cli.rules.named import read_revision, refuse_idle_stack
from tidegate.cli.stacks import STACK
from tidegate.rules.bundle import short_revision

SHOWN_ROWS = 50
SHOWN_SHARES = 30
SHOWN_UNREACHED = 10
FIGURES = frozenset({"lines", "contexts", "share", "members", "requests", "counted", "configured", "95 % interval"})


@click.command()
@click.argument("rules")
@click.option("--log", type=LOG, required=True, help="JSON lines of contexts, plain or gzip; - is standard input.")
@click.option("--against", help="Earlier rules: also show what moves, and from where to where.")
@click.option("--objective", help="Replay this objective only; also the objective of lines that name none.")
@at_option("Decide every context at this time, ISO 8601 (UTC if it has no offset).")
@click.option("--svg", type=FILE, help="Draw the counted and configured shares into this file.")
@click.option("--plots", type=FOLDER, help="Draw them into this folder, one file for each split and experiment.")
@STACK
@AS_JSON
def replay(
    rules: str,
    log: Path,
    against: str | None,
    objective: str | None,
    at: float | None,
    svg: Path | None,
    plots: Path | None,
    stack: str | None,
    as_json: bool,
) -> None:
    """Show what the contexts of a log would have got from RULES.

    RULES is a rules directory, a compiled bundle, either in a git revision (HEAD~1:routing_rules), or `live:`, what is live
    (`live:~1`: what was live before). Counts what each rule, target and cell got, and the lines without a decision; tests
    whether the members of each split and experiment fell as configured. A context is decided at its own time, else at the
    present. Exit code 1: the log is empty, a line got no decision, or shares mismatch; 130: Ctrl-C, with what was counted.
    """
    try:
        found = _replayed(rules, log, against, objective, at, stack, as_json=as_json)
        if as_json:
            print_json(found.as_dict())
        else:
            _show(found, "standard input" if log == STANDARD_INPUT else str(log))
        for file in _draw(svg, plots, found.shares):
            say(f"{file}: written", err=as_json)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None
    if not found.complete:
        raise click.exceptions.Exit(INTERRUPTED)
    if not found.is_clean:
        raise click.exceptions.Exit(1)


def _replayed(
    rules: str,
    log: Path,
    against: str | None,
    objective: str | None,
    at: float | None,
    stack: str | None,
    *,
    as_json: bool,
) -> ReplayReport:
    refuse_idle_stack(stack, rules, against)
    revision = read_revision(rules, "RULES", as_json=as_json, stack=stack)
    earlier = None
    if against is not None:
        before = read_revision(against, "--against", as_json=as_json, stack=stack)
        before, revision = comparable(before, revision)
        earlier = before.engine
    if objective is not None:
        check_objective(objective, revision.engine.objectives)
    races = races_of(revision)
    replayer = Replayer(revision.engine, races, now=time.time(), at=at, only=objective, against=earlier)
    complete = True
    with open_log(log) as stream:
        try:
            replayer.run(records(stream, objective, shown_reading(stream)))
        except KeyboardInterrupt:
            complete = False
    return report(revision, replayer.tally(), races, None if earlier is None else earlier.rules, complete=complete)


def _draw(svg: Path | None, plots: Path | None, shares: Sequence[Shares]) -> Iterator[Path]:
    """Draw into one file, and into a folder with one file for each split and experiment; yield what was written."""
    if svg is not None:
        write_file(svg, shares_svg(shares), "--svg")
        yield svg
    if plots is None:
        return
    for each in shares:
        file = plots / each.race.objective / f"{each.race.rule}.svg"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_written(file, error, "--plots") from error
        write_file(file, shares_svg([each]), "--plots")
        yield file


def _show(report: ReplayReport, log: str) -> None:
    _show_head(report, log)
    _show_faults(report.tally.faults)
    for objective in report.objectives:
        decisions = [each for each in report.tally.counted if each.decision.objective == objective.objective]
        _show_objective(objective, decisions)
    if report.shares:
        _show_all_shares(report)
    if report.against is not None:
        _show_moved(report.tally.moved, report.against)


def _show_head(report: ReplayReport, log: str) -> None:
    tally = report.tally
    say(
        f"{log}: {count(report.contexts, 'context')} in {count(tally.lines, 'line')}, "
        f"{tally.decided:,} decided by revision {short_revision(report.revision)}"
    )
    if tally.skipped:
        say(f"skipped: {count(tally.skipped, 'line')} of other objectives")
    if not report.complete:
        say(f"interrupted: what follows is of the first {count(tally.lines, 'line')}", style="bold red")
    elif tally.lines == 0:
        say("error: the log is empty: nothing was replayed", style="bold red")
    elif report.contexts == 0 and tally.skipped:
        say("error: the log has no context of this objective: nothing was replayed", style="bold red")
    elif report.contexts == 0:
        hint = 'JSON lines such as {"objective": "…", "context": {…}}, plain or gzip'
        say(f"error: no line of the log is a record; a log is {hint}", style="bold red")


def _show_faults(faults: Sequence[Fault]) -> None:
    rows = []
    for fault in faults:
        detail = f"{fault.objective}: {fault.detail}" if fault.objective else fault.detail
        lines = ", ".join(map(str, fault.first_lines)) + (" …" if fault.count > len(fault.first_lines) else "")
        rows.append((detail, f"{fault.count:,}", lines))
    _table(("lines without a decision", "lines", "first at"), rows)


def _show_objective(objective: ObjectiveCounts, decisions: list[Counted]) -> None:
    rows = [
        (
            each.decision.rule,
            f"{each.requests:,}",
            percent(each.requests / objective.contexts),
            each.decision.target.name,
            each.decision.variant or "",
            each.decision.reason if each.decision.experiment is None else f"experiment {each.decision.experiment}",
        )
        for each in decisions
    ]
    _table((objective.objective, "contexts", "share", "target", "variant", "reason"), rows)
    if objective.unreached_rules:
        names = ", ".join(objective.unreached_rules[:SHOWN_UNREACHED])
        more = len(objective.unreached_rules) - SHOWN_UNREACHED
        rest = f" and {more:,} more" if more > 0 else ""
        say(f"no context reached {len(objective.unreached_rules):,} of {objective.rules:,} rules: {names}{rest}")


def _show_all_shares(report: ReplayReport) -> None:
    ordered = sorted(report.shares, key=lambda each: each.verdict is not Verdict.MISMATCH)
    for each in ordered[:SHOWN_SHARES]:
        _show_shares(each)
    if len(ordered) > SHOWN_SHARES:
        say(f"… and {len(ordered) - SHOWN_SHARES:,} more splits and experiments; --json has all")
    say("")
    say(
        f"{count(report.tests, 'test')} of shares made, {count(report.mismatches, 'mismatch', 'mismatches')} "
        f"(p < {MISMATCH_BELOW}); by chance alone {report.tests * MISMATCH_BELOW:.2g} would be expected"
    )


def _show_shares(shares: Shares) -> None:
    heading = f"{shares.race.objective}, rule {shares.race.rule}"
    rows = [
        (
            variant.variant,
            f"{variant.count:,}",
            percent(variant.actual),
            f"{percent(variant.low)} – {percent(variant.high)}",
            percent(variant.configured),
            f"{variant.requests:,}",
        )
        for variant in shares.variants
    ]
    say("")
    show_table((heading, shares.unit, "counted", "95 % interval", "configured", "requests"), rows, FIGURES)
    say(shares.words(), style="bold red" if shares.verdict is Verdict.MISMATCH else None)


def _show_moved(moved: Iterable[Moved], against: str) -> None:
    for each in moved:
        rows = []
        for old, new, is_retuned, contexts in each.flows:
            change = "moved" if old != new else "retuned" if is_retuned else ""
            rows.append((old, new, f"{contexts:,}", percent(contexts / each.contexts), change))
        _table((f"{each.objective}, from", "to", "contexts", "share", "change"), rows)
        share = percent(each.moved / each.contexts)
        retuned = f"; {each.retuned:,} are retuned" if each.retuned else ""
        counts = f"{each.moved:,} of {count(each.contexts, 'context')}"
        say(f"{share} move, {counts}, from revision {short_revision(against)}{retuned}")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the first rows of a table, if it has any, below an empty line."""
    if rows:
        say("")
        show_table(heads, rows[:SHOWN_ROWS], FIGURES)
        if len(rows) > SHOWN_ROWS:
            say(f"… and {len(rows) - SHOWN_ROWS:,} more; --json has all")
