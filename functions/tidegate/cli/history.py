"""`tidegate history`: what was live when, by whom and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.control import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.cli.rules.options import AS_JSON, print_json
from tidegate.cli.working import run_on_plane
from tidegate.rules.bundle import revision_json, rules_of

if TYPE_CHECKING:
    from tidegate.control.plane import ControlPlane
    from tidegate.ports import Pointer


@click.command()
@click.option("--limit", type=click.IntRange(1, 50), default=20, show_default=True, help="Show the last so many flips.")
@STORE_OPTIONS
@AS_JSON
def history(stores: StoreOptions, limit: int, as_json: bool) -> None:
    """List what was made live, newest first: when, by whom, why, and what a rollback to it would take.

    A revision that was rolled back is marked bad, and goes live again only with --even-if-bad.
    """
    from tidegate.control.desired import rollback_revisions
    from tidegate.errors import StoreError

    settings = resolve_settings(stores)

    async def work(plane: ControlPlane) -> Pointer | None:
        pointer = await plane.reader.pointer()
        if pointer is None and (remains := await plane.reader.remains()).possible:
            raise StoreError(str(remains))
        return pointer

    pointer = run_on_plane(settings, work)
    kept = rollback_revisions(pointer, settings.keep_revisions)
    rows: list[dict[str, Any]] = [
        {
            "flip": entry.sequence,
            "at": datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="seconds"),
            "action": entry.action,
            **revision_json(entry.revision),
            "by": entry.by,
            "why": entry.why,
            "live": pointer is not None and entry == pointer.live,
            "bad": _mark(pointer, entry.revision),
            "marked_bad": rules_of(entry.marked_bad) or None,
            "cleared": entry.cleared,
            "follows": entry.follows or None,
            "loaded": pointer is not None and entry.revision in (pointer.live.revision, *kept),
        }
        for entry in (() if pointer is None else pointer.entries[:limit])
    ]
    if as_json:
        print_json({"history": rows})
    elif not rows:
        click.echo("nothing was ever published here")
    else:
        _show(rows)


def _mark(pointer: Pointer | None, revision: str) -> dict[str, str] | None:
    mark = None if pointer is None else pointer.mark(revision)
    if mark is None:
        return None
    at = datetime.fromtimestamp(mark.at, UTC).isoformat(timespec="seconds")
    return {"by": mark.by, "at": at, "why": mark.why}


def _show(rows: list[dict[str, Any]]) -> None:
    from tidegate.cli.columns import console, show_table
    from tidegate.cli.fleet_tables import shown_revision

    heads = ("flip", "revision", "", "at", "action", "by", "why")
    cells = []
    for row in rows:
        takes = "live" if row["live"] else "rollback at once" if row["loaded"] else "rollback loads first"
        takes = "marked bad" if row["bad"] else takes
        shown = (str(row["flip"]), shown_revision(row, rows), takes, row["at"], row["action"], row["by"], row["why"])
        cells.append(shown)
    show_table(console(), heads, cells, ("flip",))
