"""Reads the management secret of deployed Triton servers with Powertools' Parameters."""

from __future__ import annotations

from dataclasses import replace

from tidegate.errors import SettingsError, StoreError
from tidegate.settings import Settings


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
