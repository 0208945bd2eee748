"""`tidegate resolve-server`: the processes that decide, for a proxy such as Envoy that carries the requests."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.cli import progress
from tidegate.cli.logs import LOG_OPTIONS, log_to_stderr
from tidegate.cli.options import FOLDER
from tidegate.cli.stacks import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.interrupts import held_back

if TYPE_CHECKING:
    from tidegate.settings import Settings

WORKERS = click.option(
    "--workers", type=click.IntRange(1, 256), help="Processes that decide. Default: one for each core."
)
STATE = click.option(
    "--state",
    type=FOLDER,
    required=True,
    help="Folder of the last live rules, which are served while the store does not answer, also after a restart.",
)


def listen_place(_context: click.Context, option: click.Parameter, places: tuple[str, ...]) -> tuple[str, ...]:
    """Check the places of `--listen` or `--resolver`."""
    from tidegate.envoy.fleet import is_host

    # Any free port is one to listen on, but none to ask.
    ports = range(0 if option.name == "listen" else 1, 65_536)
    for place in places:
        host, _, port = place.rpartition(":")
        is_port = host != "unix" and is_host(host.strip("[]")) and port.isdecimal() and int(port) in ports
        if not is_port and not (place.startswith("unix:/") and len(os.fsencode(place)) <= 105):
            raise click.BadParameter(
                f"{place!r} is neither HOST:PORT nor unix:/PATH of at most 100 bytes", param=option
            )
        if places.count(place) > 1 and not place.endswith(":0"):
            raise click.BadParameter(f"{place!r} is given twice", param=option)
    return places


@click.command(name="resolve-server")
@click.option(
    "--listen",
    multiple=True,
    default=("127.0.0.1:8090",),
    show_default=True,
    callback=listen_place,
    help="HOST:PORT (0: any free port) or unix:/PATH; may be given again.",
)
@WORKERS
@STATE
@STORE_OPTIONS
@LOG_OPTIONS
def resolve_server(stores: StoreOptions, listen: tuple[str, ...], workers: int | None, state: Path) -> None:
    """Decide for a proxy that carries the requests, until a signal comes.

    Answers `/authorize/…` as Envoy's filter ext_authz asks, and `POST /v1/objectives/{objective}/resolve`; follows the live rules of
    the stores. The only line on standard output is `ready` with the places that it listens at.
    """
    with held_back():
        from tidegate.bootstrap.resolver_places import state_folder
        from tidegate.bootstrap.resolvers import check_log

    log_to_stderr("info")
    settings = resolve_settings(stores, registry=False)
    check_log(settings)
    progress.end()
    asyncio.run(
        _until_signal(settings, listen, workers or len(os.sched_getaffinity(0)), state_folder(state.absolute()))
    )


async def _until_signal(settings: Settings, listen: tuple[str, ...], workers: int, state: Path) -> None:
    from tidegate.bootstrap.adoption import Adoption, resolver_stores, running
    from tidegate.bootstrap.resolver_places import reserved
    from tidegate.bootstrap.resolvers import Resolvers

    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled.set)
    bundles, registry = resolver_stores(settings)
    with reserved(listen) as places:
        resolvers = Resolvers(settings, state, places, workers)
        adoption = Adoption(bundles, state, resolvers, f"resolver-{os.urandom(4).hex()}", registry, settings)
        async with running(adoption, resolvers) as ended:

            async def serve() -> None:
                await resolvers.ready()
                await adoption.served()

            ready = asyncio.create_task(serve())
            stopped = asyncio.create_task(signalled.wait())
            await asyncio.wait([ready, ended, stopped], return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                shown = [
                    *(f"{host}:{port}" for host, port in places.ports),
                    *(each for each in listen if each.startswith("unix:")),
                ]
                click.echo(f"ready {' '.join(shown)}")
                await asyncio.wait([ended, stopped], return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            stopped.cancel()
            if ended.done():
                ended.result()
