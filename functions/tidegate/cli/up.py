"""`tidegate up`: run Triton servers, their models and the gateway on this machine until a signal comes;
`tidegate shard-agent`: manage the Triton server beside it, in a deployed fleet."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import click

from tidegate.cli import progress
from tidegate.cli.logs import LOG_OPTIONS, log_to_stderr
from tidegate.errors import StackError
from tidegate.interrupts import held_back

OF_EXTRA = ("moto", "numpy", "onnx", "onnxruntime", "uvloop", "watchfiles")


class ProjectFolder(click.Path):
    """A folder of a project, which `tidegate init` writes."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; the error of a missing folder says how to get one."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(f"{error.message} Name another, or write a first project with `tidegate init`.", param, ctx)


def _need_extra() -> None:
    missing = [name for name in OF_EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        raise StackError(
            f"a stack on this machine needs {', '.join(missing)}, which are in the extra `local` of the package: install "
            "tidegate[local]"
        )


FOLDER = ProjectFolder(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option("--rules", type=FOLDER, default="routing_rules", show_default=True, help="Directory of the rules.")
@click.option("--models", type=FOLDER, default="triton_models", show_default=True, help="Triton model repository.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port; 0: any free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), help="Port for gRPC; 0: any free one. Default: no gRPC.")
@LOG_OPTIONS
@click.option(
    "--follow",
    type=click.Choice(["checked", "unchecked", "off"]),
    default="checked",
    show_default=True,
    help="What the rules, and each change of them, must pass to go live; off: changes are not followed.",
)
@click.option(
    "--load-timeout-s", type=click.FloatRange(0.1, 3600), help="Time limit for loading one model, in seconds."
)
def up(rules: Path, models: Path, port: int, grpc_port: int | None, follow: str, load_timeout_s: float | None) -> None:
    """Start the whole stack on this machine.

    Runs one Triton server per replica of each shard, loaded with what the rules need, and the gateway in front. The only line
    on standard output is `ready http://127.0.0.1:PORT`, once requests are answered. Each change of the rules goes live once it
    passes the checks of `tidegate publish`: rules, cases and models; with `--follow unchecked` it only has to compile. A
    publish or a rollback by hand pauses that: see `tidegate follow`. SIGTERM and Ctrl-C stop everything within 10 seconds.
    """
    import dataclasses
    import logging

    with held_back():
        from tidegate.settings import Settings

    log_to_stderr("info")
    _need_extra()
    logging.getLogger(__name__).info("starting a stack of %s and %s", rules, models)
    with held_back():
        # Imported late: it takes a second.
        from tidegate.cli.serve import Ports, run
        from tidegate.control.following import FollowMode

    settings = Settings.from_environment()
    if load_timeout_s is not None:
        settings = dataclasses.replace(settings, load_timeout_s=load_timeout_s)
    run(settings, rules, models, Ports(port, grpc_port), FollowMode(follow))


PORT = click.IntRange(1, 65535)


@click.command(name="shard-agent")
@LOG_OPTIONS
@click.option("--triton-host", default="127.0.0.1", show_default=True, help="Where this process reaches Triton.")
@click.option("--host", help="Where others reach Triton. Default: the address of this machine.")
@click.option("--http-port", type=PORT, default=8000, show_default=True, help="HTTP port of Triton.")
@click.option("--grpc-port", type=PORT, default=8001, show_default=True, help="gRPC port of Triton.")
@click.option("--metrics-port", type=PORT, default=8002, show_default=True, help="Metrics port of Triton.")
@click.option("--port", type=PORT, default=8003, show_default=True, help="Port of GET /ready.")
def shard_agent(
    triton_host: str, host: str | None, http_port: int, grpc_port: int, metrics_port: int, port: int
) -> None:
    """Load what the shard must hold on the Triton server beside this process, and register it.

    TIDEGATE_SHARD, TIDEGATE_BUCKET and TIDEGATE_REGISTRY_TABLE name the shard and the stores. GET /ready answers 200 while
    the server holds what it must. Ends with exit code 1 if the server ended or hangs, so that both are restarted.
    """
    import asyncio
    import signal

    from tidegate.bootstrap.agent import own_address, run_agent
    from tidegate.settings import Settings
    from tidegate.triton.attached import Addresses

    settings = Settings.from_environment()
    log_to_stderr("info")
    progress.end()
    addresses = Addresses(triton_host, host or own_address(), http_port, grpc_port, metrics_port)

    async def until_signal() -> None:
        work = asyncio.create_task(run_agent(settings, addresses, port))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, work.cancel)
        await asyncio.wait([work])
        if not work.cancelled():
            work.result()

    asyncio.run(until_signal())
