"""Starts the whole stack on one machine: AWS in memory, Triton servers that load from it, the control plane, and the gateway
in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from tidegate import stack_file
from tidegate.aws.clients import LOCAL_REGION, AwsClients, AwsConfig
from tidegate.aws.local_server import LocalAws
from tidegate.aws.provision import provision
from tidegate.bootstrap import build_transport
from tidegate.bootstrap.control import build_launcher, control_config, control_ports
from tidegate.bootstrap.gateway_supervisor import GatewayContact, GatewaySupervisor
from tidegate.bootstrap.incidents import Incidents
from tidegate.bootstrap.known_servers import KnownServers
from tidegate.bootstrap.local_facts import seed_local_facts
from tidegate.bootstrap.local_stack import LocalStack
from tidegate.bootstrap.local_stores import LocalStores
from tidegate.bootstrap.operator_socket import operator_socket
from tidegate.bootstrap.sources import check_served
from tidegate.bootstrap.tasks import cancel
from tidegate.control.fleet import LocalFleet
from tidegate.control.following import FollowMode, describe_pause, pause_of
from tidegate.control.plane import ControlPlane
from tidegate.control.sources import CheckedRules, GivenRules
from tidegate.errors import PublishError, StackError
from tidegate.ports import LiveEntry, Transport
from tidegate.settings import Settings
from tidegate.stack_file import StackFile
from tidegate.triton.installation import find_installation

logger = logging.getLogger(__name__)

BUCKET = "tidegate"
REGISTRY_TABLE = "tidegate-registry"
FACTS_TABLE = "tidegate-facts"
GATEWAY = "local"

BEAT_S = 2.0
SILENCE_S = 15.0
LOOK_S = 0.5


@contextlib.asynccontextmanager
async def local_stack(
    settings: Settings,
    rules: Path,
    models: Path,
    checked: CheckedRules,
    listener: socket.socket,
    mode: FollowMode = FollowMode.CHECKED,
) -> AsyncIterator[LocalStack]:
    """Start a stack and publish its first rules; requests are answered from then on. Leaving stops everything that was
    started, last first.

    Args:
        settings: where they name a bucket and a table these are used, else AWS is started in memory.
        rules: the rules directory.
        models: the folder that models are pushed from.
        checked: the compiled rules, which are published first, unless somebody else made others live in stores that the
            settings name.
        listener: the bound socket that the gateway serves.
        mode: what the rules directory must pass before a change of it goes live.

    Raises:
        StackError: it could not start; whatever had started is gone again.
        ModelConfigError: the models that the rules serve have errors; nothing had started.
    """
    # First of all, as nothing can start without it, and what comes next takes seconds.
    await asyncio.to_thread(find_installation, settings.triton_home, settings.cache_dir)
    if settings.bucket is None:
        # Every model will be pushed. The check takes a second; servers and a publish, which would find the same, take ten.
        logger.info("checking the models that the rules serve in %s", models)
        await check_served(models, checked.bundle)
    async with contextlib.AsyncExitStack() as started:
        given = settings
        settings, aws = await _with_aws(_with_secrets(settings), started)
        # Beside the start of the servers. A table that was given belongs to somebody, who seeds it.
        seeding = asyncio.create_task(seed_local_facts(settings, models) if settings is not given else asyncio.sleep(0))
        started.push_async_callback(cancel, seeding)
        transport = build_transport(settings)
        started.push_async_callback(transport.aclose)
        stack, running = await _started(settings, rules, models, transport, started, forgets=given is not settings)
        stack.mode = mode
        _start_gateway(stack, listener, started)
        # Before any model answers: it would keep in mind that a member has no history.
        await seeding
        pointer = await stack.plane.reader.pointer()
        if pointer is None or (mode is not FollowMode.OFF and pause_of(pointer, stack.directory) is None):
            await _first_publish(stack, checked, running)
        else:
            await _serve_live(stack, pointer.live, running)
        if aws is not None:
            stores = asyncio.create_task(LocalStores(aws, settings, models, stack.plane).run())
            started.push_async_callback(cancel, stores)
        await stack.gateway.ready()
        await _make_known(stack, listener, started)
        yield stack


def _with_secrets(settings: Settings) -> Settings:
    """The settings with the secrets of a stack: those that they name, or new ones."""
    return replace(
        settings,
        operator_token=settings.operator_token or secrets.token_urlsafe(32),
        management_secret=settings.management_secret or secrets.token_urlsafe(32),
    )


async def _make_known(stack: LocalStack, listener: socket.socket, started: contextlib.AsyncExitStack) -> None:
    """Let commands of this user find the stack, with what opens it to operators."""
    host, port = listener.getsockname()
    assert stack.settings.operator_token is not None
    assert stack.settings.management_secret is not None
    try:
        stack_file.prepare()
        path = stack_file.socket_of(port)
        if path is not None:
            await started.enter_async_context(operator_socket(path, stack.status))
        known = StackFile(
            f"http://{host}:{port}",
            os.getpid(),
            stack.settings.operator_token,
            stack.settings.management_secret,
            path,
        )
        started.enter_context(stack_file.written(known))
    except (OSError, StackError) as error:
        logger.warning(
            "commands cannot find this stack (%s): give it and them TIDEGATE_OPERATOR_TOKEN and TIDEGATE_MANAGEMENT_SECRET",
            error,
        )


async def _with_aws(settings: Settings, started: contextlib.AsyncExitStack) -> tuple[Settings, LocalAws | None]:
    """The settings with stores in them: those that they name, or new ones in memory, with the process that has them."""
    aws = None
    if settings.bucket is None or settings.registry_table is None:
        logger.info("starting S3 and DynamoDB in memory")
        aws = await LocalAws.start()
        started.push_async_callback(aws.stop)
        settings = replace(
            settings,
            aws_endpoint_url=aws.url,
            aws_region=settings.aws_region or LOCAL_REGION,
            bucket=BUCKET,
            registry_table=REGISTRY_TABLE,
            facts_table=FACTS_TABLE,
            silence_timeout_s=SILENCE_S,
        )
        assert settings.bucket is not None
        assert settings.registry_table is not None
        await provision(AwsClients(AwsConfig.from_settings(settings)), settings.bucket, settings.registry_table)
    return settings, aws


async def _started(
    settings: Settings,
    rules: Path,
    models: Path,
    transport: Transport,
    started: contextlib.AsyncExitStack,
    *,
    forgets: bool,
) -> tuple[LocalStack, asyncio.Task[None]]:
    launcher = KnownServers(build_launcher(settings, models, transport))
    ports = control_ports(settings, transport)
    plane = ControlPlane(
        replace(ports, repository_of=launcher.repository_of(ports.repository_of)), control_config(settings)
    )
    fleet = LocalFleet(
        plane,
        launcher,
        beat_s=BEAT_S,
        reconcile_s=settings.reconcile_interval_s,
        self_test_s=settings.self_test_interval_s,
    )
    stack = LocalStack(settings, plane, fleet, rules, models, forgets, Incidents())
    running = stack.supervise()
    started.push_async_callback(cancel, running)
    return stack, running


def _start_gateway(stack: LocalStack, listener: socket.socket, started: contextlib.AsyncExitStack) -> None:
    """Start the gateway's process, which answers once there are rules and endpoints."""
    settings = stack.settings
    contact = GatewayContact(
        settings=replace(settings, report_interval_s=min(settings.report_interval_s, SILENCE_S / 3)),
        gateway_id=GATEWAY,
        bundles=stack.plane.ports.bundles,
        registry=stack.plane.ports.registry,
        report=stack.status,
        suspect=stack.fleet.suspect,
    )
    stack.gateway = GatewaySupervisor(listener, contact, stack.incidents)
    stack.fleet.directory.tell(stack.gateway.show)
    stack.serve()
    started.push_async_callback(stack.stop_serving)


async def _first_publish(stack: LocalStack, checked: CheckedRules, running: asyncio.Task[None]) -> None:
    """Publish the first rules while the fleet starts."""
    rules = GivenRules(checked.bundle, checked.demand)
    strict = stack.mode is not FollowMode.UNCHECKED
    publishing = asyncio.create_task(stack.publish(rules, "the stack was started", strict=strict))
    try:
        await asyncio.wait([publishing, running], return_when=asyncio.FIRST_COMPLETED)
        if not publishing.done():
            running.result()
            raise StackError("the fleet ended by itself")
        publishing.result()
    except PublishError as error:
        raise StackError(f"not every target can be served\n{error}") from error
    finally:
        await cancel(publishing)
    await stack.fleet.directory.refresh()


async def _serve_live(stack: LocalStack, live: LiveEntry, running: asyncio.Task[None]) -> None:
    """Serve what is live already, once every shard has its servers; without them, serve what can be in the end."""
    what = "following is off" if stack.mode is FollowMode.OFF else f"following is paused {describe_pause(live)}"
    logger.warning("revision %s is live and stays so: %s", live.revision[:12], what)
    deadline = asyncio.get_running_loop().time() + stack.settings.load_timeout_s
    while any(shard.short for shard in (await stack.plane.status.read()).shards):
        if running.done():
            running.result()
            raise StackError("the fleet ended by itself")
        if asyncio.get_running_loop().time() > deadline:
            logger.warning("not every server is ready after %g s; see `tidegate status`", stack.settings.load_timeout_s)
            break
        await asyncio.sleep(LOOK_S)
    await stack.gateway.poll()
    await stack.fleet.directory.refresh()
