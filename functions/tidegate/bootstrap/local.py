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
from tidegate.aws.provision import provision, provision_copies
from tidegate.aws.shadow_tallies import TallyWriter
from tidegate.bootstrap import build_transport
from tidegate.bootstrap.compiled import find_compiled
from tidegate.bootstrap.console import build_console, local_sources
from tidegate.bootstrap.control import build_launcher, control_config, control_ports, shadow_tallies_of
from tidegate.bootstrap.gateway_supervisor import GatewayContact, GatewaySupervisor
from tidegate.bootstrap.incidents import Incidents
from tidegate.bootstrap.local_stack import LocalStack
from tidegate.bootstrap.local_stores import SHADOW_QUEUE, LocalStores, seed_local_facts
from tidegate.bootstrap.log_file import OFF, check_log
from tidegate.bootstrap.model_sources import ModelErrors, check_served
from tidegate.bootstrap.operator_socket import operator_socket
from tidegate.bootstrap.rules_sources import GivenRules
from tidegate.bootstrap.shadow_function import ShadowFunction, require_parts
from tidegate.bootstrap.stack_metrics import StackMetrics
from tidegate.control.following import FollowMode, describe_pause, pause_of
from tidegate.control.plane import ControlPlane
from tidegate.control.status import read_status
from tidegate.errors import PublishError, StackError
from tidegate.fleet.local_fleet import LocalFleet
from tidegate.ports import (
    LiveEntry,
    ModelRepository,
    RegisteredEndpoint,
    Transport,
)
from tidegate.ports.sources import CheckedRules
from tidegate.rules.bundle import short_revision
from tidegate.settings import Settings
from tidegate.shadows.tallies import Tallies
from tidegate.stack_file import StackFile
from tidegate.tasks import cancel
from tidegate.tracing.environment import check_tracing, traces_endpoint
from tidegate.triton.installation import find_installation

logger = logging.getLogger(__name__)

BUCKET = "tidegate"
REGISTRY_TABLE = "tidegate-registry"
FACTS_TABLE = "tidegate-facts"
GATEWAY = "local"

BEAT_S = 2.0
SILENCE_S = 15.0
LOOK_S = 0.5
TALLIES_S = 5.0
"""How often the tallies of shadows are stored, where they changed."""


@contextlib.asynccontextmanager
async def local_stack(
    settings: Settings,
    rules: Path,
    models: Path,
    checked: CheckedRules,
    listener: socket.socket,
    mode: FollowMode = FollowMode.CHECKED,
    rpc_port: int | None = None,
) -> AsyncIterator[LocalStack]:
    """Start a stack and publish its first rules; requests are answered from then on. Leaving stops everything that was
    started, last first.

    Args:
        settings: where they name a bucket and a table these are used, else AWS is started in memory.
        models: the folder that models are pushed from.
        checked: the compiled rules, which are published first, unless somebody else made others live in stores that the
            settings name.
        listener: the bound socket that the gateway serves.
        rpc_port: the port that it serves gRPC on; None: it serves none.

    Raises:
        StackError: it could not start; whatever had started is gone again.
        ModelConfigError: the models that the rules serve have errors; nothing had started.
    """
    if settings.access_log not in (None, OFF):
        check_log(settings.access_log)
    if settings.tracing != "off":
        check_tracing(os.environ)
        logger.info("exporting traces to %s", traces_endpoint(os.environ))
    if settings.shadow_carrier == "queue":
        require_parts()
        if settings.bucket is not None and settings.registry_table is not None:
            raise StackError(
                "TIDEGATE_SHADOW_CARRIER=queue makes a queue in the stack's own AWS in memory, which it has none of with "
                "TIDEGATE_BUCKET and TIDEGATE_REGISTRY_TABLE: unset these, or set it to process"
            )
    # First, since nothing can start without it, and the next steps take seconds.
    await asyncio.to_thread(find_installation, settings.triton_home, settings.cache_dir)
    if settings.bucket is None:
        # Every model will be pushed. The check takes a second; servers and a publish, which would find the same, take ten.
        logger.info("checking the models that the rules serve in %s", models)
        await check_served(models, checked.bundle)
    async with contextlib.AsyncExitStack() as started:
        given = settings
        settings, aws = await _with_aws(_with_secrets(settings), started)
        # While the servers start. A table that the settings name is seeded by its owner.
        seeding = asyncio.create_task(seed_local_facts(settings, models) if settings is not given else asyncio.sleep(0))
        started.push_async_callback(cancel, seeding)
        transport = build_transport(settings)
        started.push_async_callback(transport.aclose)
        stack = _start_servers(
            settings, rules, models, transport, mode, started, has_temporary_stores=given is not settings
        )
        await _start_gateway(stack, listener, rpc_port, started)
        # Before any model answers: it would keep in mind that a member has no history.
        await seeding
        pointer = await stack.plane.reader.pointer()
        if pointer is None or (mode is not FollowMode.OFF and pause_of(pointer, stack.directory) is None):
            await stack.unless_ended(_first_publish(stack, checked))
        else:
            await stack.unless_ended(_serve_live(stack, pointer.live))
        if aws is not None:
            stores = asyncio.create_task(LocalStores(aws, settings, models, stack.plane).run())
            started.push_async_callback(cancel, stores)
        await stack.gateway.ready()
        await _make_known(stack, listener, started)
        yield stack


def _with_secrets(settings: Settings) -> Settings:
    return replace(
        settings,
        operator_token=settings.operator_token or secrets.token_urlsafe(32),
        management_secret=settings.management_secret or secrets.token_urlsafe(32),
        # Its servers are new, and have no sequence that another key would lose.
        sequence_key=settings.sequence_key or secrets.token_urlsafe(32),
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
            await started.enter_async_context(operator_socket(path, stack.status, stack.metrics))
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
        clients = AwsClients(AwsConfig.from_settings(settings))
        await provision(clients, settings.bucket, settings.registry_table)
        if settings.shadow_carrier == "queue":
            settings = replace(settings, shadow_queue_url=await provision_copies(clients, SHADOW_QUEUE))
            function = asyncio.create_task(ShadowFunction(settings).run())
            started.push_async_callback(cancel, function)
    return settings, aws


def _start_servers(
    settings: Settings,
    rules: Path,
    models: Path,
    transport: Transport,
    mode: FollowMode,
    started: contextlib.AsyncExitStack,
    *,
    has_temporary_stores: bool,
) -> LocalStack:
    launcher = build_launcher(settings, models, transport)
    ports = control_ports(settings, transport)

    def repository_of(entry: RegisteredEndpoint) -> ModelRepository:
        # A server of this process has one that can read its log.
        return fleet.repository_of(entry.endpoint) or ports.repository_of(entry)

    plane = ControlPlane(replace(ports, repository_of=repository_of), control_config(settings))
    fleet = LocalFleet(
        plane,
        launcher,
        beat_s=BEAT_S,
        reconcile_s=settings.reconcile_interval_s,
        self_test_s=settings.self_test_interval_s,
    )
    stack = LocalStack(settings, plane, fleet, rules, models, has_temporary_stores, Incidents(), mode)
    started.push_async_callback(cancel, stack.supervise())
    return stack


async def _start_gateway(
    stack: LocalStack, listener: socket.socket, rpc_port: int | None, started: contextlib.AsyncExitStack
) -> None:
    settings = stack.settings
    # Another name with every start: stores that outlive a stack keep what an earlier one counted.
    tallies = TallyWriter(shadow_tallies_of(settings), f"stack-{secrets.token_hex(8)}")
    storing = asyncio.create_task(_store_tallies(tallies))
    started.push_async_callback(cancel, storing)
    metrics = StackMetrics(stack)
    stack.metrics = metrics.answer
    measuring = asyncio.create_task(metrics.run())
    started.push_async_callback(cancel, measuring)
    contact = GatewayContact(
        settings=replace(settings, report_interval_s=min(settings.report_interval_s, SILENCE_S / 3)),
        gateway_id=GATEWAY,
        bundles=stack.plane.ports.bundles,
        registry=stack.plane.ports.registry,
        report=stack.status,
        suspect=stack.fleet.healer.suspect,
        tally=lambda data: tallies.add(Tallies.from_json(data)),
        count=tallies.count,
        console=None if not settings.console else build_console(local_sources(stack), settings.operator_token),
        rpc_port=rpc_port,
        rpc_port_of=stack.fleet.directory.rpc_port,
    )
    stack.gateway = GatewaySupervisor(listener, contact, stack.incidents, await asyncio.to_thread(find_compiled))
    stack.fleet.directory.subscribe(stack.gateway.show)
    stack.serve()
    started.push_async_callback(stack.stop_serving)


async def _store_tallies(tallies: TallyWriter) -> None:
    try:
        while True:
            await asyncio.sleep(TALLIES_S)
            await tallies.store()
    finally:
        # What was counted last, where the stores outlive this stack.
        await tallies.store()


async def _first_publish(stack: LocalStack, checked: CheckedRules) -> None:
    rules = GivenRules(checked.bundle, checked.demand)
    try:
        errors = ModelErrors.REPORT if stack.mode is FollowMode.UNCHECKED else ModelErrors.REFUSE
        await stack.publish(rules, "the stack was started", errors)
    except PublishError as error:
        raise StackError(f"not every target can be served\n{error}") from error
    await stack.fleet.directory.refresh()


async def _serve_live(stack: LocalStack, live: LiveEntry) -> None:
    """Serve what is live already, once every shard has its servers; without them, serve what can be in the end."""
    what = "following is off" if stack.mode is FollowMode.OFF else f"following is paused {describe_pause(live)}"
    logger.warning("revision %s is live and stays so: %s", short_revision(live.revision), what)
    deadline = asyncio.get_running_loop().time() + stack.settings.load_timeout_s
    while any(shard.short for shard in (await read_status(stack.plane)).shards):
        if asyncio.get_running_loop().time() > deadline:
            logger.warning("not every server is ready after %g s; see `tidegate status`", stack.settings.load_timeout_s)
            break
        await asyncio.sleep(LOOK_S)
    await stack.gateway.poll()
    await stack.fleet.directory.refresh()
