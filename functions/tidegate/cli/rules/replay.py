"""`tidegate rules replay`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from tidegate.cli.columns import say
from tidegate.cli.control import STACK
from tidegate.cli.group import INTERRUPTED
from tidegate.cli.rules.live import check_stack
from tidegate.cli.rules.log_file import LOG, STANDARD_INPUT, open_log, progress
from tidegate.cli.rules.options import AS_JSON, at_option, print_json
from tidegate.cli.rules.revisions import as_files, read_revision
from tidegate.rules.bundle import resolution_of
from tidegate.rules.pictures.shares_svg import shares_svg
from tidegate.rules.replay.as_json import report_json
from tidegate.rules.replay.races import configured
from tidegate.rules.replay.records import records
from tidegate.rules.replay.report import ReplayReport, Shares, report
from tidegate.rules.replay.tally import Replayer

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command()
@click.argument("rules")
@click.option("--log", type=LOG, required=True, help="JSON lines of contexts, plain or gzip; - is standard input.")
@click.option("--against", help="Earlier rules: also tell what moves, and from where to where.")
@click.option("--objective", help="Replay this objective alone; it is also that of lines which name none.")
@at_option("Decide every context at this time, ISO 8601 (UTC where it has no offset).")
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
    """Tell what the contexts of a log would have got from RULES: a rules directory, a compiled bundle, either in
    a git revision (HEAD~1:routing_rules), or `live:`, what is live (`live:~1`: what was before).

    Counts what each rule, target and cell got, and the lines that got no decision; tests whether the members of each
    split and experiment fell as configured. A context is decided at its own time, else at the present. Exit code 1: the
    log is empty, a line got no decision, or shares mismatch; 130: Ctrl-C, after what was counted so far.
    """
    try:
        found = _replayed(rules, log, against, objective, at, stack, as_json=as_json)
        _show(found, log, as_json=as_json)
        for file in (*_draw(svg, found.shares), *_draw_each(plots, found.shares)):
            say(f"{file}: written", err=as_json)
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None
    if not found.complete:
        raise click.exceptions.Exit(INTERRUPTED)
    if not found.is_clean:
        raise click.exceptions.Exit(1)


def _show(found: ReplayReport, log: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(report_json(found))
        return
    from tidegate.cli.rules.replay_tables import show_report

    show_report(found, "standard input" if log == STANDARD_INPUT else str(log))


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
    check_stack(stack, rules, against)
    revision = read_revision(rules, "RULES", as_json=as_json, stack=stack)
    earlier = None
    if against is not None:
        before = read_revision(against, "--against", as_json=as_json, stack=stack)
        if any(resolution_of(each.bundle.revision) is None for each in (before, revision)):
            before, revision = as_files(before), as_files(revision)
        earlier = before.engine
    if objective is not None:
        from tidegate.cli.rules.compiled import check_objective

        check_objective(objective, revision.engine.objectives)
    races = configured(revision)
    replayer = Replayer(revision.engine, races, now=time.time(), at=at, only=objective, against=earlier)
    complete = True
    with open_log(log) as stream, progress(stream) as on_block:
        try:
            replayer.run(records(stream, objective, on_block))
        except KeyboardInterrupt:
            complete = False
    return report(revision, replayer.tally(), races, None if earlier is None else earlier.rules, complete=complete)


def _draw(file: Path | None, shares: Sequence[Shares]) -> Iterator[Path]:
    if file is not None:
        yield _write(file, shares_svg(shares), "--svg")


def _draw_each(folder: Path | None, shares: Sequence[Shares]) -> Iterator[Path]:
    if folder is not None:
        for each in shares:
            file = folder / each.race.objective / f"{each.race.rule}.svg"
            yield _write(file, shares_svg([each]), "--plots")


def _write(file: Path, text: str, option: str) -> Path:
    try:
        if option == "--plots":
            file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"{file} cannot be written: {error.strerror}", param_hint=option) from error
    return file
