"""`tidegate recover`: the lost or damaged pointer to the live revision is made again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from tidegate.cli.columns import confirmed, say
from tidegate.cli.control import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.cli.rules.options import AS_JSON, print_json
from tidegate.cli.working import run_on_plane

if TYPE_CHECKING:
    from tidegate.control.plane import ControlPlane
    from tidegate.control.recover import Recovery


@click.command()
@click.option("--revision", help="Revision to make live, or its first digits; the last that was live where left out.")
@click.option("--dry-run", is_flag=True, help="Show what was found and would be made live, and change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@STORE_OPTIONS
@AS_JSON
def recover(stores: StoreOptions, revision: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Make the pointer to the live revision again, where it is gone or damaged.

    Looks for what was live in the history, in older versions of the pointer, and in what gateways report; sees that its
    bundle, its assignment and its models are stored; shows all that, asks, and writes the pointer as it was, with the
    marks of bad revisions. Where there is a pointer it does nothing. Exit code 1: there is no pointer still.
    """
    from tidegate.bootstrap.control import author

    if as_json and not (yes or dry_run):
        raise click.UsageError("--json does not ask: add --yes, or --dry-run to see what would be done")
    settings = resolve_settings(stores)

    async def look(plane: ControlPlane) -> Recovery:
        return await plane.recoverer.look(author(), revision)

    async def write(plane: ControlPlane) -> Recovery:
        return await plane.recoverer.recover(found)

    found = run_on_plane(settings, look)
    if not as_json:
        for line in _lines(found):
            say(line)
    if found.status == "planned" and not dry_run:
        if not yes and not confirmed("make it live?"):
            raise click.exceptions.Exit(1)
        found = run_on_plane(settings, write)
        if not as_json:
            say(f"revision {_revision(found)} is live again; `tidegate status` shows the fleet")
    if as_json:
        print_json({"dry_run": dry_run, **found.as_dict()})
    if found.status == "impossible":
        if not as_json:
            say(f"error: {found.reason}", err=True)
        raise click.exceptions.Exit(1)


def _lines(found: Recovery) -> Iterator[str]:
    """What was found, in words."""
    if found.status == "unchanged":
        yield f"the pointer is there: revision {_revision(found)} is live; nothing is to be recovered"
        return
    yield found.damage or "the pointer to the live revision is gone"
    for each in found.candidates:
        lacking = f"; lacks {'; '.join(each.lacking)}" if each.lacking else ""
        yield f"  {each.revision[:12]}: {', '.join(each.shown_by)}{lacking}"
        if each.missing_models:
            yield f"    not in the store, push them again: {', '.join(each.missing_models)}"
    if found.pointer is not None:
        live = found.pointer.live
        yield f"to make live: revision {live.revision[:12]} (flip {live.sequence})"
        if found.pointer.bad:
            yield f"still marked bad: {', '.join(mark.revision[:12] for mark in found.pointer.bad)}"


def _revision(found: Recovery) -> str:
    return "" if found.pointer is None else found.pointer.live.revision[:12]
