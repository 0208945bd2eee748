"""`tidegate reconcile`: the servers are made to hold what they must."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from tidegate.cli.columns import say
from tidegate.cli.control import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.cli.rules.options import AS_JSON, print_json
from tidegate.cli.working import run_on_plane

if TYPE_CHECKING:
    from tidegate.control.plane import ControlPlane
    from tidegate.control.reconcile import Action, ReconcileResult


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be changed, and change nothing.")
@STORE_OPTIONS
@AS_JSON
def reconcile(stores: StoreOptions, dry_run: bool, as_json: bool) -> None:
    """Compare what every server holds with what it must hold, once, and make it so.

    Safe at any time, from anywhere. Exit code 1: something could not be done, or with --dry-run would have to be.
    """
    from tidegate.bootstrap.control import author

    settings = resolve_settings(stores)

    async def work(plane: ControlPlane) -> ReconcileResult:
        return await plane.reconciler.reconcile(author(), dry_run=dry_run)

    result = run_on_plane(settings, work)
    if as_json:
        print_json({"dry_run": dry_run, **result.as_dict()})
    else:
        for line in _lines(result, dry_run=dry_run):
            say(line)
    if result.undone or (dry_run and result.actions):
        raise click.exceptions.Exit(1)


def _lines(result: ReconcileResult, *, dry_run: bool) -> Iterator[str]:
    """What was found and done, in words."""
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
        yield "stopped early: publishers came one after the other; run it again"
    if result.converged:
        yield f"{result.endpoints} servers hold what they must"


def _of(action: Action) -> str:
    versions = f"/{','.join(map(str, action.versions))}" if action.versions else ""
    return f"{action.model}{versions} on {action.url} of shard {action.shard}"
