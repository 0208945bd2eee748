"""`tidegate rollback`: an earlier revision becomes live again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.columns import say
from tidegate.cli.control import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.cli.step_lines import announcer, with_result
from tidegate.cli.working import run_on_plane

if TYPE_CHECKING:
    from tidegate.control.plane import ControlPlane
    from tidegate.control.rollback import RollbackResult


@click.command()
@click.argument("revision", required=False)
@click.option("--from", "leaving", help="Roll back only if this revision (or its first digits) is live still.")
@click.option("--even-if-bad", is_flag=True, help="Take a REVISION that is marked bad, and clear its mark.")
@click.option("--why", default="", help="Why, for the history.")
@click.option("--by", help="Who rolls back, for the history; user and machine where left out.")
@STORE_OPTIONS
@click.option("--json", "as_json", is_flag=True, help="Print each event, and last the result, as a line of JSON.")
def rollback(
    stores: StoreOptions,
    revision: str | None,
    leaving: str | None,
    even_if_bad: bool,
    why: str,
    by: str | None,
    as_json: bool,
) -> None:
    """Make an earlier revision live again: REVISION, or its first digits, else the last one that is not marked bad.

    The revision that is left is marked bad: neither another rollback nor a publish of the same rules makes it live again,
    unless told so with --even-if-bad. Where somebody else, or an alarm, rolled back already, nothing is done: --from with
    the revision that is live now goes one further back. `tidegate history` lists the revisions. One whose models are still
    loaded is made live at once; for an older one they are loaded and validated first.
    """
    from tidegate.bootstrap.control import author
    from tidegate.control.rollback import RollbackRequest

    settings = resolve_settings(stores)
    request = RollbackRequest(by=by or author(), why=why, revision=revision, leaving=leaving, even_if_bad=even_if_bad)

    async def work(plane: ControlPlane) -> RollbackResult:
        return await plane.rollbacker.roll_back(request, announcer(as_json=as_json))

    def rolled_back() -> Mapping[str, Any]:
        result = run_on_plane(settings, work)
        if not as_json:
            _show(result)
        return result.as_dict()

    with_result(as_json, rolled_back)


def _show(result: RollbackResult) -> None:
    revision, before = result.revision[:12], result.before[:12]
    if result.earlier is not None:
        say(f"{result.earlier.by} rolled revision {before} back already, and {revision} is live")
        say(f"to go one further back: tidegate rollback --from {revision}")
        return
    if result.activated is None:
        say(f"revision {revision} is live already")
        return
    entry = result.activated.entry
    say(f"revision {revision} is live, in place of {before}{', which is marked bad' * bool(entry.marked_bad)}")
    if entry.cleared:
        say(f"revision {revision} is not marked bad any more")
    if result.activated.pauses:
        say("the rules directory is not followed any more: correct it, then `tidegate follow resume`")
    for warning in result.activated.warnings:
        say(f"warning: {warning}", err=True)
