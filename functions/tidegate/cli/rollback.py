"""`tidegate rollback`: an earlier revision becomes live again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.control import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.cli.step_lines import announcer, with_result
from tidegate.cli.working import run_on_plane

if TYPE_CHECKING:
    from tidegate.control.plane import ControlPlane
    from tidegate.control.rollback import RollbackResult


@click.command()
@click.argument("revision", required=False)
@click.option("--why", default="", help="Why, for the history.")
@click.option("--by", help="Who rolls back, for the history; user and machine where left out.")
@STORE_OPTIONS
@click.option("--json", "as_json", is_flag=True, help="Print each event, and last the result, as a line of JSON.")
def rollback(stores: StoreOptions, revision: str | None, why: str, by: str | None, as_json: bool) -> None:
    """Make an earlier revision live again: REVISION, or its first digits, else the one that was live before.

    `tidegate history` lists the revisions. One whose models are still loaded is made live at once; for an older one
    they are loaded and validated first.
    """
    from tidegate.bootstrap.control import author

    settings = resolve_settings(stores)

    async def work(plane: ControlPlane) -> RollbackResult:
        return await plane.rollbacker.roll_back(
            revision, by=by or author(), why=why, announce=announcer(as_json=as_json)
        )

    def rolled_back() -> Mapping[str, Any]:
        result = run_on_plane(settings, work)
        if not as_json:
            _show(result)
        return result.as_dict()

    with_result(as_json, rolled_back)


def _show(result: RollbackResult) -> None:
    if result.activated is None:
        click.echo(f"revision {result.revision[:12]} is live already")
        return
    click.echo(f"revision {result.revision[:12]} is live, in place of {result.before[:12]}")
    for warning in result.activated.warnings:
        click.echo(f"warning: {warning}", err=True)
