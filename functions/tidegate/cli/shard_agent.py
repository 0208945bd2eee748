"""`tidegate shard-agent`: looks after the Triton server beside it, in a deployed fleet."""

from __future__ import annotations

import click

from tidegate.cli.logs import LOG_OPTIONS, log_to_stderr

PORT = click.IntRange(1, 65535)


@click.command(name="shard-agent")
@LOG_OPTIONS
@click.option("--triton-host", default="127.0.0.1", show_default=True, help="Where this process reaches Triton.")
@click.option("--host", help="Where others reach Triton; this machine's address where left out.")
@click.option("--http-port", type=PORT, default=8000, show_default=True)
@click.option("--grpc-port", type=PORT, default=8001, show_default=True)
@click.option("--metrics-port", type=PORT, default=8002, show_default=True)
@click.option("--port", type=PORT, default=8003, show_default=True, help="Port of GET /ready.")
def shard_agent(
    triton_host: str, host: str | None, http_port: int, grpc_port: int, metrics_port: int, port: int
) -> None:
    """Load what the shard must hold on the Triton server beside this process, and register it.

    TIDEGATE_SHARD, TIDEGATE_BUCKET and TIDEGATE_REGISTRY_TABLE say which. GET /ready answers 200 while the server holds
    what it must. Ends with exit code 1 where the server ended or is wedged: both are then started again.
    """
    import asyncio
    import signal

    from tidegate.bootstrap.agent import own_address, run_agent
    from tidegate.settings import Settings
    from tidegate.triton.attached import Doors

    settings = Settings.from_environment()
    log_to_stderr("info")
    doors = Doors(triton_host, host or own_address(), http_port, grpc_port, metrics_port)

    async def until_signal() -> None:
        work = asyncio.create_task(run_agent(settings, doors, port))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, work.cancel)
        await asyncio.wait([work])
        if not work.cancelled():
            work.result()

    asyncio.run(until_signal())
