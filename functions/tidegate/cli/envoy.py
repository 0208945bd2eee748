"""`tidegate envoy`: Envoy as the data plane."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate.cli import progress
from tidegate.cli.columns import say
from tidegate.cli.logs import LOG_OPTIONS, log_to_stderr
from tidegate.cli.options import DIRECTORY, FOLDER
from tidegate.cli.resolve_server import STATE, WORKERS, listen_place
from tidegate.cli.stacks import STORE_OPTIONS, StoreOptions, resolve_settings
from tidegate.errors import StackError
from tidegate.interrupts import held_back

if TYPE_CHECKING:
    from tidegate.envoy.config import EnvoyOptions
    from tidegate.envoy.in_process import InProcessOptions
    from tidegate.settings import Settings

PORT = click.option("--port", type=click.IntRange(1, 65535), default=8088, show_default=True, help="Port of Envoy.")
HOST = click.option("--host", default="127.0.0.1", show_default=True, help="Address that Envoy binds.")
ENVOY = click.option("--envoy", "program", help="Envoy's program. Default: beside Python, else on the path.")


@click.group()
def envoy() -> None:
    """Carry requests by Envoy, and let Tidegate decide."""


@envoy.command()
@click.option("--rules", type=DIRECTORY, default="routing_rules", show_default=True, help="Directory of the rules.")
@click.option(
    "--fleet",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="File of the servers: JSON with a list of {host, http_port, grpc_port} by shard.",
)
@click.option(
    "--resolver", "resolvers", multiple=True, required=True, callback=listen_place,
    help="Where a resolver answers, HOST:PORT or unix:/PATH; may be given again.",
)  # fmt: skip
@PORT
@HOST
@click.option("--out", type=FOLDER, required=True, help="Folder of the files that are written.")
@ENVOY
def config(
    rules: Path, fleet: Path, resolvers: tuple[str, ...], port: int, host: str, out: Path, program: str | None
) -> None:
    """Write Envoy's configuration for rules and a fleet, and have Envoy check it.

    Start it with `envoy -c OUT/envoy.json`. It follows the other files of the folder when they are replaced.
    """
    with held_back():
        from tidegate.bootstrap.envoy import prepare_folder
        from tidegate.bootstrap.envoy_server import bound_address, find_envoy
        from tidegate.bootstrap.saved_bundle import replace_file
        from tidegate.envoy.checking import check
        from tidegate.envoy.config import whole
        from tidegate.envoy.fleet import check_places, read_fleet
        from tidegate.envoy.notes import fleet_notes, notes
        from tidegate.rules import compile_directory, load_bundle
        from tidegate.settings import Settings

    settings = Settings.from_environment()
    engine = load_bundle(compile_directory(rules))
    options = _options(settings, out.absolute(), host, port, resolvers)
    servers = read_fleet(fleet.read_bytes())
    check_places(servers)
    bound_address(host)
    # Before anything is written: an Envoy may follow the files that are there.
    check(find_envoy(program), engine, servers, options)
    try:
        out.mkdir(parents=True, exist_ok=True)
        prepare_folder(out)
        for name, content in whole(engine, servers, options).items():
            replace_file(out / name, json.dumps(content, indent=1).encode())
    except OSError as error:
        raise StackError(f"{out} cannot be written: {error.strerror}") from error
    for note in (*notes(engine), *fleet_notes(engine, servers)):
        say(f"note: {note}", err=True)
    click.echo(str(out / "envoy.json"))


@envoy.command()
@PORT
@HOST
@ENVOY
@WORKERS
@click.option(
    "--in-process/--no-in-process",
    "is_in_process",
    default=True,
    show_default=True,
    help="Decide in Envoy's own process, where that is possible; else resolvers are asked about every request.",
)
@STATE
@STORE_OPTIONS
@LOG_OPTIONS
def run(
    stores: StoreOptions,
    port: int,
    host: str,
    program: str | None,
    workers: int | None,
    is_in_process: bool,
    state: Path,
) -> None:
    """Run Envoy and its resolvers, beside a stack or in a deployment, until a signal comes.

    They follow the live rules and the servers of the registry without a restart. The only line on standard output is
    `ready http://HOST:PORT`, once requests are answered.
    """
    with held_back():
        from tidegate.bootstrap.envoy_server import check_listening, find_envoy
        from tidegate.bootstrap.resolver_places import state_folder
        from tidegate.bootstrap.resolvers import check_log

    log_to_stderr("info")
    settings = resolve_settings(stores)
    check_log(settings)
    progress.end()
    found = find_envoy(program)
    check_listening(host, port)
    folder = state_folder(state.absolute())
    in_process = _in_process(settings, folder, found) if is_in_process else None
    count = workers or len(os.sched_getaffinity(0))
    asyncio.run(_until_signal(settings, folder, host, port, found, count, in_process))


def _in_process(settings: Settings, folder: Path, program: Path) -> InProcessOptions | None:
    from tidegate.bootstrap.in_process_place import in_process_options
    from tidegate.errors import SettingsError

    try:
        return in_process_options(settings, folder, program)
    except SettingsError as error:
        say(f"note: resolvers are asked about every request: {error}", err=True)
        return None


def _options(
    settings: Settings,
    folder: Path,
    host: str,
    port: int,
    resolvers: tuple[str, ...],
    in_process: InProcessOptions | None = None,
) -> EnvoyOptions:
    from tidegate.envoy.config import EnvoyOptions
    from tidegate.envoy.tokens import tokens_of

    log = settings.access_log
    return EnvoyOptions(
        folder=folder,
        address=host,
        port=port,
        resolvers=resolvers,
        log=None if log in (None, "off") else "/dev/stdout" if log == "stdout" else log,
        log_percent=settings.access_log_percent,
        default_timeout_ms=settings.default_timeout_ms,
        stream_idle_ms=settings.stream_idle_ms,
        resolver_timeout_ms=settings.resolver_timeout_ms,
        connect_timeout_ms=settings.connect_timeout_ms,
        idle_timeout_s=settings.idle_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        most_connections=settings.max_connections,
        most_buffered_bytes=settings.max_buffered_bytes,
        tokens=tokens_of(settings),
        in_process=in_process,
    )


async def _until_signal(
    settings: Settings,
    folder: Path,
    host: str,
    port: int,
    program: Path,
    workers: int,
    in_process: InProcessOptions | None,
) -> None:
    from dataclasses import replace

    from tidegate.bootstrap.adoption import resolver_stores, running
    from tidegate.bootstrap.envoy import EnvoyPlane
    from tidegate.bootstrap.envoy_server import Admin, EnvoyProcess
    from tidegate.bootstrap.resolver_places import reserved
    from tidegate.bootstrap.resolvers import Resolvers
    from tidegate.envoy.config import ADMIN
    from tidegate.tasks import cancel

    signalled = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled.set)
    bundles, registry = resolver_stores(settings)
    assert registry is not None
    # A place for each, so that Envoy leaves out one that hangs.
    with reserved(["127.0.0.1:0"] * workers, is_shared=False) as places:
        listening = tuple(f"{place}:{number}" for place, number in places.ports)
        options = _options(settings, folder, host, port, listening, in_process)
        # Requests are logged once, by what carries them.
        resolvers = Resolvers(replace(settings, access_log=None), folder, places, workers)
        admin = Admin(folder / ADMIN)
        plane = EnvoyPlane(bundles, resolvers, f"envoy-{os.urandom(4).hex()}", registry, settings, options, admin)
        proxy = EnvoyProcess(program, options, admin, plane.without_in_process)
        async with running(plane, resolvers) as ended:
            serving = asyncio.create_task(proxy.run())
            stopped = asyncio.create_task(signalled.wait())

            async def ready() -> None:
                await proxy.live()
                await resolvers.ready()
                while plane.follower.revision is None:
                    await resolvers.changed()
                await plane.active(plane.follower.revision)
                await plane.served()

            starting = asyncio.create_task(ready())
            await asyncio.wait([starting, serving, ended, stopped], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                click.echo(f"ready http://{f'[{host}]' if ':' in host else host}:{port}")
                await asyncio.wait([serving, ended, stopped], return_when=asyncio.FIRST_COMPLETED)
            await cancel(starting, stopped)
            # Before the resolvers, which its requests still need.
            has_ended = serving.done()
            await cancel(serving)
            if has_ended:
                serving.result()
            if ended.done():
                ended.result()
