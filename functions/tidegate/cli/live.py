"""`tidegate rollback|recover|history|reconcile`: what is live, and the servers that hold it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.columns import confirmed, say, show_table
from tidegate.cli.json_output import AS_JSON, EVENTS_AS_JSON, print_json
from tidegate.cli.options import BY, WHY
from tidegate.cli.plane import run_on_plane, run_steps, show_activated
from tidegate.cli.stacks import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.errors import StoreError
from tidegate.rules.bundle import short_revision

if TYPE_CHECKING:
    from tidegate.control.observe import Action
    from tidegate.control.plane import ControlPlane
    from tidegate.control.reconcile import ReconcileResult
    from tidegate.control.recover import Recovery
    from tidegate.control.rollback import RollbackResult
    from tidegate.ports import Pointer


@click.command()
@click.argument("revision", required=False)
@click.option("--from", "leaving", help="Roll back only if this revision (or its first digits) is still live.")
@click.option("--even-if-bad", is_flag=True, help="Accept a REVISION that is marked bad, and clear its mark.")
@WHY
@BY
@STORE_OPTIONS
@EVENTS_AS_JSON
def rollback(stores: StoreOptions, by: str | None, as_json: bool, **options: Any) -> None:
    """Make an earlier revision live again: REVISION, or its first digits, else the last one that is not marked bad.

    The revision that was live is marked bad: neither another rollback nor a publish of the same rules makes it live again
    without --even-if-bad. If somebody else, or an alarm, has already rolled back, nothing is done; --from with the revision
    that is live now goes one further back. `tidegate history` lists the revisions. A revision whose models are still loaded
    is live at once; for an older one they are loaded and validated first.
    """
    from tidegate.bootstrap.control import author
    from tidegate.control.rollback import RollbackRequest, roll_back

    settings = resolve_settings(stores)
    request = RollbackRequest(by=by or author(), **options)
    run_steps(settings, lambda plane, announce: roll_back(plane, request, announce), _show_rollback, as_json=as_json)


def _show_rollback(result: RollbackResult) -> None:
    revision = short_revision(result.revision, [result.before])
    before = short_revision(result.before, [result.revision])
    if result.earlier is not None:
        say(f"{result.earlier.by} rolled revision {before} back already, and {revision} is live")
        say(f"to go one further back: tidegate rollback --from {revision}")
        return
    if result.activated is None:
        say(f"revision {revision} is live already")
        return
    entry = result.activated.entry
    say(f"revision {revision} is live, in place of {before}{', which is marked bad' * (entry.marked_bad is not None)}")
    show_activated(
        result.activated, "the rules directory is no longer followed: correct it, then `tidegate follow resume`"
    )


@click.command()
@click.option("--revision", help="Revision to make live, or its first digits. Default: the last one that was live.")
@click.option("--dry-run", is_flag=True, help="Show what was found and would be made live, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@STORE_OPTIONS
@AS_JSON
def recover(stores: StoreOptions, revision: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Restore the pointer to the live revision, if it is gone or damaged.

    Looks for the last live revision in the history, in older versions of the pointer and in the reports of gateways, and
    checks that its bundle, its assignment and its models are stored. Shows what it found, asks, and writes the pointer, with
    the marks of bad revisions. Does nothing if there is a pointer. Exit code 1: there is still no pointer.
    """
    if as_json and not (yes or dry_run):
        raise click.UsageError("--json does not ask: add --yes, or --dry-run to see what would change")
    from tidegate.bootstrap.control import author
    from tidegate.control.recover import plan_recovery, recover_pointer

    settings = resolve_settings(stores)
    found = run_on_plane(settings, lambda plane: plan_recovery(plane, author(), revision))
    if not as_json:
        for line in _recovery_lines(found):
            say(line)
    if found.status == "planned" and not dry_run:
        if not yes and not confirmed("make it live?"):
            raise click.exceptions.Exit(1)
        planned = found
        found = run_on_plane(settings, lambda plane: recover_pointer(plane, planned))
        if not as_json:
            say(f"revision {_recovered(found)} is live again; `tidegate status` shows the fleet")
    if as_json:
        print_json({"dry_run": dry_run, **found.as_dict()})
    if found.status == "impossible":
        if not as_json:
            say(f"error: {found.reason}", err=True)
        raise click.exceptions.Exit(1)


def _recovery_lines(found: Recovery) -> Iterator[str]:
    if found.status == "unchanged":
        yield f"the pointer is there: revision {_recovered(found)} is live; nothing is to be recovered"
        return
    yield found.damage or "the pointer to the live revision is gone"
    for each in found.candidates:
        lacking = f"; lacks {'; '.join(each.lacking)}" if each.lacking else ""
        yield f"  {short_revision(each.revision)}: {', '.join(each.shown_by)}{lacking}"
        if each.missing_models:
            yield f"    not in the store, push them again: {', '.join(each.missing_models)}"
    if found.pointer is not None:
        live = found.pointer.live
        yield f"to make live: revision {short_revision(live.revision)} (flip {live.sequence})"
        if found.pointer.bad:
            yield f"still marked bad: {', '.join(short_revision(mark.revision) for mark in found.pointer.bad)}"


def _recovered(found: Recovery) -> str:
    return "" if found.pointer is None else short_revision(found.pointer.live.revision)


@click.command()
@click.option("--limit", type=click.IntRange(1, 50), default=20, show_default=True, help="How many flips to show.")
@STORE_OPTIONS
@AS_JSON
def history(stores: StoreOptions, limit: int, as_json: bool) -> None:
    """List what was made live, newest first: when, by whom, why, and what a rollback to it would need.

    A revision that was rolled back is marked bad, and is made live again only with --even-if-bad.
    """
    from tidegate.control.history import history as history_of

    settings = resolve_settings(stores)

    async def work(plane: ControlPlane) -> Pointer | None:
        pointer = await plane.reader.pointer()
        if pointer is None and (remains := await plane.reader.remains()).possible:
            raise StoreError(remains.problem)
        return pointer

    pointer = run_on_plane(settings, work)
    rows = history_of(pointer, settings.keep_revisions, limit)
    if as_json:
        print_json({"history": rows})
    elif not rows:
        say("nothing was ever published here")
    else:
        _show_history(rows)


def _show_history(rows: list[dict[str, Any]]) -> None:
    from tidegate.cli.status import shown_revision

    heads = ("flip", "revision", "", "at", "action", "by", "why")
    cells = []
    for row in rows:
        takes = "live" if row["live"] else "rollback at once" if row["loaded"] else "rollback loads first"
        takes = "marked bad" if row["bad"] else takes
        shown = (str(row["flip"]), shown_revision(row, rows), takes, row["at"], row["action"], row["by"], row["why"])
        cells.append(shown)
    show_table(heads, cells, ("flip",))


@click.command()
@click.option("--dry-run", is_flag=True, help="Print what would change, and change nothing.")
@STORE_OPTIONS
@AS_JSON
def reconcile(stores: StoreOptions, dry_run: bool, as_json: bool) -> None:
    """Load and unload models until every server holds what it must, once.

    Safe to run at any time, from anywhere. Exit code 1: a step failed or, with --dry-run, steps are needed.
    """
    from tidegate.bootstrap.control import author
    from tidegate.control.reconcile import plan_reconcile, reconcile_fleet

    settings = resolve_settings(stores)
    result = run_on_plane(
        settings, lambda plane: plan_reconcile(plane) if dry_run else reconcile_fleet(plane, author())
    )
    if as_json:
        print_json({"dry_run": dry_run, **result.as_dict()})
    else:
        for line in _reconcile_lines(result, dry_run=dry_run):
            say(line)
    if result.undone or (dry_run and result.actions):
        raise click.exceptions.Exit(1)


def _reconcile_lines(result: ReconcileResult, *, dry_run: bool) -> Iterator[str]:
    would = "would " if dry_run else ""
    for action in result.actions:
        yield f"{would}{action.action} {_of(action)}"
    for action in result.failed:
        yield f"failed: {action.action} {_of(action)}: {action.error}"
    for url, why in result.unreachable.items():
        yield f"not reached: {url}: {why}"
    yield from (f"refused: {text}" for text in result.refused)
    yield from (f"waiting: {text}" for text in result.waiting)
    yield from (f"problem: {text}" for text in result.problems)
    if result.interrupted:
        yield "stopped early: one publish followed the other; run it again"
    if result.converged:
        yield f"{result.endpoints} servers hold what they must"


def _of(action: Action) -> str:
    versions = f"/{','.join(map(str, action.versions))}" if action.versions else ""
    return f"{action.model}{versions} on {action.url} of shard {action.shard}"
