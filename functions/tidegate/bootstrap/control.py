"""The wiring of the control plane: the same for the command line, the functions and the local stack."""

from __future__ import annotations

import getpass
import ipaddress
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.facts import facts_damage
from tidegate.aws.layout import MODELS
from tidegate.aws.model_store import S3ModelStore
from tidegate.aws.objects import Objects
from tidegate.aws.registry import DynamoRegistry, Network
from tidegate.control.config import ControlConfig, ControlPorts
from tidegate.control.plane import ControlPlane
from tidegate.errors import SettingsError
from tidegate.ports import (
    ModelRepository,
    ModelStore,
    RegisteredEndpoint,
    Registry,
    ScratchServers,
    ServerLauncher,
    Transport,
)
from tidegate.settings import Settings
from tidegate.tracing.environment import traces_endpoint
from tidegate.triton.repository import TritonRepository

if TYPE_CHECKING:
    from tidegate.aws.shadow_tallies import S3ShadowTallies
    from tidegate.triton.server import TritonLauncher

PAIRS_S = 24 * 3600.0


def build_control_plane(settings: Settings, transport: Transport) -> ControlPlane:
    return ControlPlane(control_ports(settings, transport), control_config(settings))


def control_ports(settings: Settings, transport: Transport) -> ControlPorts:
    """Wire the stores and servers of the control plane. Raises `SettingsError`: the settings do not name the stores."""
    # Here, as the probe's function and a shard's registry need none of it.
    from tidegate.models.catalog import TritonCatalog
    from tidegate.models.diagnosis import StoredDiagnosis
    from tidegate.models.folder import StoreFiles
    from tidegate.models.golden.asking import StoredGoldenRequests

    if settings.bucket is None or settings.registry_table is None:
        raise SettingsError("TIDEGATE_BUCKET and TIDEGATE_REGISTRY_TABLE must name the stores")
    clients = AwsClients(AwsConfig.from_settings(settings))
    objects = Objects(clients, settings.bucket)
    models = S3ModelStore(objects)

    def repository_of(entry: RegisteredEndpoint) -> ModelRepository:
        return TritonRepository(transport, entry.endpoint, entry.grpc_port, secret=settings.management_secret)

    return ControlPorts(
        bundles=S3BundleStore(objects),
        models=models,
        registry=registry_of(settings, clients),
        repository_of=repository_of,
        catalog=TritonCatalog(StoreFiles(models)),
        golden=StoredGoldenRequests(models, transport),
        # With a store of its own, which forgets what it read of drafts at times that are not those of a publish.
        diagnose=StoredDiagnosis(S3ModelStore(objects)),
        facts_damage=partial(facts_damage, clients, settings.facts_table) if settings.facts_table else None,
        scratch=build_scratch(settings, transport, models),
    )


def registry_of(settings: Settings, clients: AwsClients | None = None) -> Registry:
    """Wire only the registry; `clients` may be shared with other stores."""
    if settings.registry_table is None:
        raise SettingsError("TIDEGATE_REGISTRY_TABLE must name the registry's table")
    clients = AwsClients(AwsConfig.from_settings(settings)) if clients is None else clients
    networks = endpoint_networks(settings.endpoint_networks)
    return DynamoRegistry(clients, settings.registry_table, settings.silence_timeout_s, networks=networks)


def shadow_tallies_of(settings: Settings) -> S3ShadowTallies:
    """Wire only the store of the tallies of shadows."""
    # Here, as the functions of the control plane do not have ddsketch.
    from tidegate.aws.shadow_tallies import S3ShadowTallies

    if settings.bucket is None:
        raise SettingsError("TIDEGATE_BUCKET must name the bucket of the tallies")
    return S3ShadowTallies(Objects(AwsClients(AwsConfig.from_settings(settings)), settings.bucket))


async def shadow_pairs(settings: Settings) -> Sequence[Mapping[str, Any]]:
    """Return the pairs of shadows of the last day, as `tidegate shadow report --json` has them."""
    # Here, for the same reason.
    from tidegate.shadows.report import pair_json

    found, _ = await shadow_tallies_of(settings).read(time.time() - PAIRS_S)
    return [pair_json(tally) for tally in found.pairs.values()]


def endpoint_networks(text: str) -> tuple[Network, ...]:
    try:
        networks = tuple(ipaddress.ip_network(each) for each in text.split(","))
    except ValueError as error:
        raise SettingsError(
            f"TIDEGATE_ENDPOINT_NETWORKS must be address ranges such as 10.42.0.0/16, separated by commas: {error}"
        ) from error
    return networks


def control_config(settings: Settings) -> ControlConfig:
    return ControlConfig(
        keep_revisions=settings.keep_revisions,
        drain_s=settings.drain_timeout_s,
        load_timeout_s=settings.load_timeout_s,
        hung_after_s=settings.hung_after_s,
        confirm_s=max(10.0, 3 * settings.poll_interval_s),
        require_samples=settings.require_samples,
    )


def author() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def build_scratch(settings: Settings, transport: Transport, store: ModelStore) -> ScratchServers | None:
    """Return the launcher of servers to try models on; None if the fleet is not on this machine, or has no Triton.

    A Triton here proves little about servers elsewhere, with other hardware and backends.
    """
    if not AwsConfig.from_settings(settings).is_local:
        return None
    from tidegate.triton.installation import has_triton
    from tidegate.triton.scratch import ScratchLauncher

    if not has_triton(settings.triton_home):
        return None
    return ScratchLauncher(lambda: _launcher(settings, transport, lambda: True), store, settings.scratch_memory_mb)


def build_launcher(settings: Settings, models: Path, transport: Transport) -> ServerLauncher:
    """Return the launcher of this machine's Triton servers, which load models from S3.

    `models` is the folder that these come from: its configs say whether Triton has any to complete.

    Raises:
        StackError: there is no Triton on this machine.
    """
    from tidegate.models.folder import are_complete

    return _launcher(settings, transport, lambda: not are_complete(models))


def _launcher(settings: Settings, transport: Transport, auto_complete: Callable[[], bool]) -> TritonLauncher:
    from tidegate.triton.installation import find_installation
    from tidegate.triton.server import TritonLauncher

    endpoint, path = (settings.aws_endpoint_url or "").rstrip("/"), f"{settings.bucket}/{MODELS.rstrip('/')}"
    return TritonLauncher(
        find_installation(settings.triton_home, settings.cache_dir),
        f"s3://{endpoint}/{path}" if endpoint else f"s3://{path}",
        transport,
        auto_complete,
        settings.server_start_timeout_s,
        server_variables(settings),
        secret=settings.management_secret or secrets.token_urlsafe(32),
        traces=None if settings.tracing == "off" else traces_endpoint(os.environ),
    )


def server_variables(settings: Settings) -> Mapping[str, str]:
    """Return the variables by which a Triton server and its models reach AWS; on this machine the credentials are made up."""
    config = AwsConfig.from_settings(settings)
    named = {
        "TIDEGATE_AWS_ENDPOINT_URL": settings.aws_endpoint_url,
        "TIDEGATE_FACTS_TABLE": settings.facts_table,
        "TIDEGATE_FACTS_TIMEOUT_MS": f"{settings.facts_timeout_ms:g}",
    }
    variables = {name: value for name, value in named.items() if value is not None}
    if config.is_local:
        variables |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
    region = settings.aws_region or ("us-east-1" if config.is_local else None)
    if region is not None:
        variables |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    if urlsplit(settings.aws_endpoint_url or "").scheme == "http":
        # The address is of this machine or of a test network; a proxy would not know it.
        variables["NO_PROXY"] = urlsplit(settings.aws_endpoint_url or "").hostname or ""
    return variables
