"""Wires to AWS without boto3, from the settings and the variables of a process: for the functions that answer HTTP, and the gateway of
a local stack that sends copies to a queue."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.aws.container_credentials import TOKEN_VARIABLE, URL_VARIABLE, ContainerCredentials
from tidegate.aws.shadow_queue import ShadowQueue
from tidegate.aws.signing import Credentials, Signer
from tidegate.aws.wire import Wire
from tidegate.errors import SettingsError
from tidegate.settings import Settings


def shadow_queue_of(settings: Settings, environment: Mapping[str, str]) -> ShadowQueue | None:
    """Return what sends copies for shadows to the queue; None where no queue is set.

    Raises:
        SettingsError: a setting is missing.
    """
    if settings.shadow_queue_url is None:
        return None
    if settings.bucket is None:
        raise SettingsError("TIDEGATE_BUCKET must be set where TIDEGATE_SHADOW_QUEUE_URL is: it takes large copies")
    timeout_s = settings.shadow_send_timeout_ms / 1000
    queue, store = (wire_to(service, settings, environment, timeout_s) for service in ("sqs", "s3"))
    return ShadowQueue(queue, settings.shadow_queue_url, store, settings.bucket)


def wire_to(service: str, settings: Settings, environment: Mapping[str, str], timeout_s: float | None = None) -> Wire:
    """Return a wire to a service of AWS. Raises `SettingsError`: region or credentials are missing."""
    region = settings.aws_region or environment.get("AWS_REGION")
    if not region:
        raise SettingsError("AWS_REGION must be set, as Lambda sets it")
    credentials = _credentials(environment, settings.store_timeout_s)
    url = settings.aws_endpoint_url or f"https://{service}.{region}.amazonaws.com"
    return Wire(url, Signer(credentials, region, service), timeout_s or settings.store_timeout_s)


def _credentials(environment: Mapping[str, str], timeout_s: float) -> Credentials | ContainerCredentials:
    """Return the credentials of the variables, or those of the endpoint beside the process, as in a snapshot."""
    key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if key and secret:
        return Credentials(key, secret, environment.get("AWS_SESSION_TOKEN"))
    url, token = environment.get(URL_VARIABLE), environment.get(TOKEN_VARIABLE)
    if url and token:
        return ContainerCredentials(url, token, timeout_s)
    raise SettingsError(
        f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or {URL_VARIABLE} and {TOKEN_VARIABLE}, must be set, as Lambda sets them"
    )
