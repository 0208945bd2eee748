"""`tidegate rules diff`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from tidegate.cli.control import STACK
from tidegate.cli.rules.compiled import check_objective
from tidegate.cli.rules.live import check_stack
from tidegate.cli.rules.log_file import LOG, open_log, progress
from tidegate.cli.rules.options import AS_JSON, at_option, print_json
from tidegate.cli.rules.revisions import as_files, read_revision
from tidegate.cli.rules.skipped import Skipped
from tidegate.rules.bundle import resolution_of
from tidegate.rules.compare.report import FORMAT_VERSION, Diff, LoggedComparison, compare
from tidegate.rules.replay.records import records
from tidegate.rules.times import utc_text

OTHER_OBJECTIVE = "of no objective that is compared"


@click.command()
@click.argument("old")
@click.argument("new")
@click.option(
    "--log", type=LOG, help="Weigh contexts as this log has them: JSON lines, plain or gzip; - is standard input."
)
@click.option("--objective", help="Compare this objective alone; it is also that of lines of the log which name none.")
@at_option("Compare at this time, ISO 8601 (UTC where it has no offset); now where left out.")
@click.option("--svg", type=click.Path(dir_okay=False, path_type=Path), help="Draw the flows into this file.")
@STACK
@AS_JSON
def diff(
    old: str,
    new: str,
    log: Path | None,
    objective: str | None,
    at: float | None,
    svg: Path | None,
    stack: str | None,
    as_json: bool,
) -> None:
    """Tell what changed from OLD to NEW, and exactly which share of the traffic moves to another target.

    OLD and NEW are rules directories, compiled bundles, either in a git revision (HEAD~1:routing_rules), or what is
    live (`live:`, and `live:~1` before that). The share is
    exact over members; over contexts every case of every attribute counts alike, or each context as often as the log has
    it. Exit code 1: something changed, or the rules of one side have errors.
    """
    check_stack(stack, old, new)
    before = read_revision(old, "OLD", as_json=as_json, stack=stack)
    after = read_revision(new, "NEW", as_json=as_json, stack=stack)
    if any(resolution_of(each.bundle.revision) is None for each in (before, after)):
        before, after = as_files(before), as_files(after)
    if objective is not None:
        check_objective(objective, {*before.objectives, *after.objectives})
    if log is None:
        moment = time.time() if at is None else at
        found, skipped = compare(before, after, moment, objective=objective, with_examples=True), None
    else:
        found, skipped = _with_log(LoggedComparison(before, after, objective), log, objective, at)
    if as_json:
        print_json(_as_dict(found, (old, new), at, skipped))
    else:
        from tidegate.cli.rules.diff_tables import show_diff

        show_diff(found, old, new, skipped)
    if svg is not None:
        _draw(svg, found, as_json=as_json)
    if not found.is_empty:
        raise click.exceptions.Exit(1)


def _with_log(
    comparison: LoggedComparison, path: Path, objective: str | None, at_s: float | None
) -> tuple[Diff, Skipped]:
    skipped, now_s, contexts = Skipped(), time.time(), 0
    with open_log(path) as log, progress(log) as on_block:
        for number, name, context, moment_s in records(log, objective, on_block):
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
    return comparison.diff(), skipped


def _draw(file: Path, found: Diff, *, as_json: bool) -> None:
    from tidegate.rules.pictures.flows_svg import flows_svg

    try:
        file.write_text(flows_svg(found.shares), encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"{file} cannot be written: {error.strerror}", param_hint="--svg") from error
    click.echo(f"{file}: written", err=as_json)


def _as_dict(found: Diff, names: tuple[str, str], at_s: float | None, skipped: Skipped | None) -> dict[str, Any]:
    revisions = (found.old_revision, found.new_revision)
    old, new = ({"name": name, "revision": revision} for name, revision in zip(names, revisions, strict=True))
    return {
        "format_version": FORMAT_VERSION,
        "ok": True,
        "old": old,
        "new": new,
        "at": None if at_s is None else utc_text(at_s),
        "weighting": "uniform" if skipped is None else "log",
        "skipped": [] if skipped is None else skipped.as_list(),
        **found.as_dict(),
    }
