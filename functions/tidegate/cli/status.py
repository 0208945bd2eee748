"""`tidegate status`: the fleet at a glance."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli.control import STORE_OPTIONS, StoreOptions, find_stack, read_fleet, resolve_settings
from tidegate.cli.json_output import write_json
from tidegate.cli.rules.options import print_json
from tidegate.errors import TidegateError

if TYPE_CHECKING:
    from tidegate.control.plane import ControlPlane

INSPECTION_S = 20.0
"""How long a look from outside of a stack waits for what is live to be looked at."""

Fleet = Mapping[str, Any]
Read = Callable[[], Fleet]


@click.command()
@click.option("--url", help="Gateway to ask for its own view, in place of the stores.")
@click.option("--models", is_flag=True, help="Show every model on every server.")
@click.option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@click.option(
    "--interval-s", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Time between two looks."
)
@STORE_OPTIONS
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON; with --watch one line for each look.")
def status(stores: StoreOptions, url: str | None, models: bool, watch: bool, interval_s: float, as_json: bool) -> None:
    """Show the fleet: what is live, its shards, servers and models, what stays loaded, and what is not as it should be.

    Reads the stores and asks every server; a stack that runs on this machine, or that --stack names, is asked itself and
    tells its processes too. Exit code 1: the fleet is not well, or cannot be read.
    """
    read = _reader(stores, url)
    if watch:
        _watch(read, interval_s, models=models, as_json=as_json)
        return
    fleet = read()
    if as_json:
        print_json(fleet)
    else:
        from tidegate.cli.columns import console
        from tidegate.cli.fleet_tables import fleet_view

        console().print(fleet_view(fleet, models=models))
    if not fleet.get("well", True):
        raise click.exceptions.Exit(1)


def _reader(stores: StoreOptions, url: str | None) -> Read:
    """What reads the fleet. Raises as `resolve_settings`."""
    if url is not None and not url.startswith(("http://", "https://")):
        raise click.BadParameter(f"{url!r} is no http:// or https:// address", param_hint="--url")
    if url is not None and (stores.named or stores.stack is not None):
        raise click.UsageError("--url asks a gateway: leave it, or what names the stores, out")
    address = url or find_stack(stores)
    if address is not None:
        return lambda: read_fleet(address)
    settings = resolve_settings(stores)

    async def work(plane: ControlPlane) -> Fleet:
        return (await plane.status.read(inspection_s=INSPECTION_S)).as_dict()

    def read() -> Fleet:
        from tidegate.cli.working import run_on_plane

        return run_on_plane(settings, work)

    return read


def _watch(read: Read, interval_s: float, *, models: bool, as_json: bool) -> None:
    """Show the fleet until Ctrl-C; what cannot be read now is reported, and asked again."""
    from rich.live import Live
    from rich.text import Text

    from tidegate.cli.columns import console
    from tidegate.cli.fleet_tables import fleet_view

    out = console()
    live = None if as_json or not out.is_terminal else Live(console=out, auto_refresh=False, screen=True)
    try:
        if live is not None:
            live.start()
        while True:
            try:
                fleet = read()
                line, view = fleet, fleet_view(fleet, models=models)
            except TidegateError as error:
                line, view = {"ok": False, "error": str(error)}, Text(f"error: {error}", "red")
            if live is not None:
                live.update(view, refresh=True)
            elif as_json:
                write_json(line)
            else:
                out.print(view)
            time.sleep(interval_s)
    except KeyboardInterrupt:
        pass
    finally:
        if live is not None:
            live.stop()
