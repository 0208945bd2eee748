"""A replay's report as text: what each rule got, errors, shares with their tests, what moved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console

from tidegate.cli import columns
from tidegate.rules.replay.report import MISMATCH_BELOW, Moved, ObjectiveCounts, ReplayReport, Shares
from tidegate.rules.replay.tally import Counted, Fault
from tidegate.rules.replay.words import counted_words, percent, race_words, verdict_words

SHOWN_ROWS = 50
SHOWN_SHARES = 30
SHOWN_UNREACHED = 10
REVISION_DIGITS = 12


def show_report(report: ReplayReport, log: str) -> None:
    """Print a report on standard output; `log` is what to call the log."""
    console = columns.console()
    _show_head(console, report, log)
    _show_faults(console, report.tally.faults)
    for objective in report.objectives:
        decisions = [each for each in report.tally.counted if each.decision.objective == objective.objective]
        _show_objective(console, objective, decisions)
    if report.shares:
        _show_all_shares(console, report.shares)
        _show_tests(console, report)
    if report.against is not None:
        _show_moved(console, report.moved, report.against)


def _show_head(console: Console, report: ReplayReport, log: str) -> None:
    tally = report.tally
    columns.line(
        console,
        f"{log}: {_count(report.contexts, 'context')} in {_count(tally.lines, 'line')}, "
        f"{tally.decided:,} decided by revision {report.revision[:REVISION_DIGITS]}",
    )
    if tally.skipped:
        columns.line(console, f"skipped: {_count(tally.skipped, 'line')} of other objectives")
    if not report.complete:
        columns.line(
            console, f"interrupted: what follows is of the first {_count(tally.lines, 'line')}", style="bold red"
        )
    elif tally.lines == 0:
        columns.line(console, "error: the log is empty: nothing was replayed", style="bold red")
    elif report.contexts == 0 and tally.skipped:
        columns.line(console, "error: the log has no context of this objective: nothing was replayed", style="bold red")
    elif report.contexts == 0:
        hint = 'JSON lines such as {"objective": "…", "context": {…}}, plain or gzip'
        columns.line(console, f"error: no line of the log is a record; a log is {hint}", style="bold red")


def _show_faults(console: Console, faults: Sequence[Fault]) -> None:
    table = _Rows("lines without a decision", "lines", "first at")
    for fault in faults[:SHOWN_ROWS]:
        detail = f"{fault.objective}: {fault.detail}" if fault.objective else fault.detail
        lines = ", ".join(str(line) for line in fault.lines) + (" …" if fault.count > len(fault.lines) else "")
        table.add_row(detail, f"{fault.count:,}", lines)
    _print(console, table, len(faults))


def _show_objective(console: Console, objective: ObjectiveCounts, decisions: list[Counted]) -> None:
    table = _Rows(objective.objective, "contexts", "share", "target", "variant", "reason")
    for each in decisions[:SHOWN_ROWS]:
        decision = each.decision
        table.add_row(
            decision.rule,
            f"{each.requests:,}",
            percent(each.requests / objective.contexts),
            decision.target.name,
            decision.variant or "",
            decision.reason if decision.experiment is None else f"experiment {decision.experiment}",
        )
    _print(console, table, len(decisions))
    if objective.unreached:
        names = ", ".join(objective.unreached[:SHOWN_UNREACHED])
        more = len(objective.unreached) - SHOWN_UNREACHED
        rest = f" and {more:,} more" if more > 0 else ""
        columns.line(
            console, f"no context reached {len(objective.unreached):,} of {objective.rules:,} rules: {names}{rest}"
        )


def _show_all_shares(console: Console, shares: Iterable[Shares]) -> None:
    ordered = sorted(shares, key=lambda each: each.verdict != "mismatch")
    for each in ordered[:SHOWN_SHARES]:
        _show_shares(console, each)
    if len(ordered) > SHOWN_SHARES:
        columns.line(console, f"… and {len(ordered) - SHOWN_SHARES:,} more splits and experiments; --json has all")


def _show_shares(console: Console, shares: Shares) -> None:
    heading = f"{shares.race.objective}, rule {shares.race.rule}"
    table = _Rows(heading, shares.unit, "counted", "95 % interval", "configured", "requests")
    for variant in shares.variants:
        table.add_row(
            variant.variant,
            f"{variant.count:,}",
            percent(variant.actual),
            f"{percent(variant.low)} – {percent(variant.high)}",
            percent(variant.expected),
            f"{variant.requests:,}",
        )
    _print(console, table, 0)
    style = "bold red" if shares.verdict == "mismatch" else ""
    columns.line(console, f"{race_words(shares.race)}, {counted_words(shares)}: {verdict_words(shares)}", style=style)


def _show_tests(console: Console, report: ReplayReport) -> None:
    mismatches = sum(each.verdict == "mismatch" for each in report.shares)
    columns.line(console)
    columns.line(
        console,
        f"{_count(report.tests, 'test')} of shares made, {_count(mismatches, 'mismatch', 'mismatches')} "
        f"(p < {MISMATCH_BELOW}); by chance alone {report.tests * MISMATCH_BELOW:.2g} would be expected",
    )


def _show_moved(console: Console, moved: Iterable[Moved], against: str) -> None:
    for each in moved:
        table = _Rows(f"{each.objective}, from", "to", "contexts", "share", "change")
        for old, new, retuned, count in each.flows[:SHOWN_ROWS]:
            change = "moved" if old != new else "retuned" if retuned else ""
            table.add_row(old, new, f"{count:,}", percent(count / each.contexts), change)
        _print(console, table, len(each.flows))
        share = percent(each.moved / each.contexts)
        columns.line(
            console,
            f"{share} move, {each.moved:,} of {_count(each.contexts, 'context')}, from revision "
            f"{against[:REVISION_DIGITS]}" + (f"; {each.retuned:,} are retuned" if each.retuned else ""),
        )


_FIGURES = frozenset({"lines", "contexts", "share", "members", "requests", "counted", "configured", "95 % interval"})


class _Rows:
    """Rows under the names of their columns, before they are printed."""

    def __init__(self, *heads: str) -> None:
        self.heads = heads
        self.rows: list[tuple[str, ...]] = []

    def add_row(self, *cells: str) -> None:
        """Add a row."""
        self.rows.append(cells)


def _print(console: Console, table: _Rows, rows: int) -> None:
    if table.rows:
        columns.line(console)
        columns.show_table(console, table.heads, table.rows, _FIGURES)
        if rows > SHOWN_ROWS:
            columns.line(console, f"… and {rows - SHOWN_ROWS:,} more; --json has all")


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
