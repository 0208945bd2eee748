"""The wiring of the control plane: the same for the command line, the functions and the local stack."""

from __future__ import annotations

import getpass
import ipaddress
import secrets
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.facts import facts_damage
from tidegate.aws.layout import MODELS
from tidegate.aws.model_store import S3ModelStore
from tidegate.aws.objects import Objects
from tidegate.aws.registry import DynamoRegistry, Network
from tidegate.control.config import ControlConfig, ControlPorts, nothing_wrong
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
from tidegate.triton.repository import TritonRepository

if TYPE_CHECKING:
    from tidegate.triton.server import TritonLauncher


def build_control_plane(settings: Settings, transport: Transport) -> ControlPlane:
    """The control plane over the stores that the settings name: see `control_ports`.

    Raises:
        SettingsError: the bucket or the registry's table is not named.
    """
    return ControlPlane(control_ports(settings, transport), control_config(settings))


def control_ports(settings: Settings, transport: Transport) -> ControlPorts:
    """The stores and servers of the control plane.

    Args:
        settings: name the stores.
        transport: reaches the servers.

    Raises:
        SettingsError: the bucket or the registry's table is not named.
    """
    # Here, as the probe's function and a shard's registry need none of it.
    from tidegate.triton.catalog import StoreFiles, TritonCatalog
    from tidegate.triton.diagnosis import StoredDiagnosis
    from tidegate.triton.golden.asking import StoredGoldenRequests

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
        facts_damage=partial(facts_damage, clients, settings.facts_table) if settings.facts_table else nothing_wrong,
        scratch=build_scratch(settings, transport, models),
    )


def registry_of(settings: Settings, clients: AwsClients | None = None) -> Registry:
    """The registry alone; `clients` are those that it shares with others.

    Raises:
        SettingsError: its table is not named, or a network is malformed.
    """
    if settings.registry_table is None:
        raise SettingsError("TIDEGATE_REGISTRY_TABLE must name the registry's table")
    clients = AwsClients(AwsConfig.from_settings(settings)) if clients is None else clients
    networks = endpoint_networks(settings.endpoint_networks)
    return DynamoRegistry(clients, settings.registry_table, settings.silence_timeout_s, networks=networks)


def endpoint_networks(text: str | None) -> tuple[Network, ...]:
    """The networks that registered endpoints may be in, from the setting.

    Raises:
        SettingsError: it names none, or one is malformed.
    """
    try:
        networks = tuple(ipaddress.ip_network(each) for each in (text or "").split(","))
    except ValueError as error:
        raise SettingsError(
            f"TIDEGATE_ENDPOINT_NETWORKS must be address ranges such as 10.42.0.0/16, separated by commas: {error}"
        ) from error
    return networks


def control_config(settings: Settings) -> ControlConfig:
    """The times and bounds of the control plane."""
    return ControlConfig(
        keep_revisions=settings.keep_revisions,
        drain_s=settings.drain_timeout_s,
        load_timeout_s=settings.load_timeout_s,
        hung_after_s=settings.hung_after_s,
        confirm_s=max(10.0, 3 * settings.poll_interval_s),
        require_samples=settings.require_samples == "true",
    )


def author() -> str:
    """Who runs this process, for the history: user and machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def build_scratch(settings: Settings, transport: Transport, store: ModelStore) -> ScratchServers | None:
    """What starts servers to try models on; None where the fleet is not on this machine, or has no Triton.

    A Triton here says little of servers elsewhere, whose hardware and backends are others.
    """
    if not AwsConfig.from_settings(settings).is_local:
        return None
    from tidegate.triton.installation import has_triton
    from tidegate.triton.scratch import ScratchLauncher

    if not has_triton(settings.triton_home):
        return None
    return ScratchLauncher(lambda: _launcher(settings, transport, lambda: True), store, settings.scratch_memory_mb)


def build_launcher(settings: Settings, models: Path, transport: Transport) -> ServerLauncher:
    """What starts this machine's Triton servers over the models in S3.

    Args:
        settings: name the bucket.
        models: the folder that models come from: its configs say whether Triton has any to complete.
        transport: reaches the servers.

    Raises:
        StackError: there is no Triton on this machine.
    """
    from tidegate.triton.model_directory import ModelDirectory

    directory = ModelDirectory(models)
    return _launcher(settings, transport, lambda: not directory.complete())


def _launcher(settings: Settings, transport: Transport, auto_complete: Callable[[], bool]) -> TritonLauncher:
    from tidegate.triton.installation import find_installation
    from tidegate.triton.server import TritonLauncher

    return TritonLauncher(
        find_installation(settings.triton_home, settings.cache_dir),
        repository_address(settings),
        transport,
        auto_complete,
        settings.server_start_timeout_s,
        server_variables(settings),
        secret=settings.management_secret or secrets.token_urlsafe(32),
    )


def repository_address(settings: Settings) -> str:
    """The pushed models as Triton's `--model-repository` takes them."""
    path = f"{settings.bucket}/{MODELS.rstrip('/')}"
    return f"s3://{settings.aws_endpoint_url.rstrip('/')}/{path}" if settings.aws_endpoint_url else f"s3://{path}"


def server_variables(settings: Settings) -> Mapping[str, str]:
    """What a Triton server and the models in it need to reach AWS; on this machine the credentials are made up."""
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
