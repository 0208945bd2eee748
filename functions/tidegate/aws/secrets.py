"""Reads secrets from Secrets Manager: the management secret of Triton servers with Powertools' Parameters, and the key of
sequence ids by HTTP, as the function that needs it does without boto3."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

from tidegate.aws.wire import Wire
from tidegate.errors import SettingsError, StoreError, UnavailableError
from tidegate.settings import Settings

_KEY = "TIDEGATE_SEQUENCE_KEY"
_UNREADABLE = "the key of sequence ids cannot be read now; try again in a moment"
_MOST_OF_AN_ERROR = 500

_log = logging.getLogger("tidegate.function")


def with_management_secret(settings: Settings) -> Settings:
    """Add the secret that `management_secret_arn` names, unless the settings have one.

    Raises:
        StoreError: it cannot be read.
        SettingsError: it is binary.
    """
    if settings.management_secret is not None or settings.management_secret_arn is None:
        return settings
    from aws_lambda_powertools.utilities.parameters import SecretsProvider
    from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError

    client = None
    if settings.aws_endpoint_url is not None:
        import boto3

        client = boto3.client("secretsmanager", endpoint_url=settings.aws_endpoint_url, region_name=settings.aws_region)
    try:
        secret = SecretsProvider(boto3_client=client).get(settings.management_secret_arn)
    except GetParameterError as error:
        raise StoreError("the management secret cannot be read from Secrets Manager") from error
    if not isinstance(secret, str):
        raise SettingsError("the management secret must be a text")
    return replace(settings, management_secret=secret)


def read_sequence_key(wire: Wire, arn: str, version: str | None) -> str:
    """Read the key of sequence ids.

    Args:
        wire: to Secrets Manager
            (https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html).
        arn: names the secret.
        version: its version; None: the current one.

    Raises:
        UnavailableError: it cannot be read, or is no key. The log has the reason.
    """
    asked = {"SecretId": arn} if version is None else {"SecretId": arn, "VersionId": version}
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": "secretsmanager.GetSecretValue"}
    try:
        response = wire.send("POST", "/", None, headers, json.dumps(asked).encode())
        if response.status != 200:
            # An error names the secret or the role, and holds no value.
            reason = response.body[:_MOST_OF_AN_ERROR].decode(errors="replace")
            raise StoreError(f"Secrets Manager answered {response.status}: {reason}")
        key = Settings.from_environment({_KEY: json.loads(response.body).get("SecretString") or ""}).sequence_key
    except (StoreError, SettingsError, ValueError) as error:
        _log.error("the secret %s cannot be used: %s", arn, error)
        raise UnavailableError(_UNREADABLE) from error
    if key is None:
        _log.error("the secret %s cannot be used: it is empty, or binary", arn)
        raise UnavailableError(_UNREADABLE)
    return key
