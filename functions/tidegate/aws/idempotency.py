"""Handles each event once, however often it is delivered, by Powertools' Idempotency in the registry's table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from tidegate.aws.layout import EXPIRY, ONCE, PARTITION_KEY, SORT_KEY
from tidegate.errors import SettingsError
from tidegate.settings import Settings

KEPT_S = 24 * 3600


def once_per(
    function: str, settings: Settings, identity: Mapping[str, str], work: Callable[[], dict[str, Any]], context: Any
) -> dict[str, Any]:
    """Call `work` once a day for each `identity`, and return the stored result after that.

    An exception is not stored, so that the next delivery tries again, as it does after a time-out of the invocation. The
    records are in the partition of the short name `function`, since the function's role may write no other.

    Raises:
        SettingsError: the registry's table is not set.
    """
    if settings.registry_table is None:
        raise SettingsError("TIDEGATE_REGISTRY_TABLE must be set")
    from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig, idempotent_function

    def called(*, data: Mapping[str, str]) -> dict[str, Any]:  # noqa: ARG001  # the key of the record
        return work()

    store = _store(function, settings.registry_table, settings.aws_endpoint_url, settings.aws_region)
    config = IdempotencyConfig(expires_after_seconds=KEPT_S)
    config.register_lambda_context(context)
    once = idempotent_function(called, data_keyword_argument="data", persistence_store=store, config=config)
    result: dict[str, Any] = once(data=dict(identity))
    return result


@functools.cache
def _store(function: str, table: str, endpoint_url: str | None, region: str | None) -> Any:
    import boto3
    from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer

    client = boto3.client("dynamodb", endpoint_url=endpoint_url, region_name=region) if endpoint_url else None
    return DynamoDBPersistenceLayer(
        table_name=table,
        key_attr=PARTITION_KEY,
        sort_key_attr=SORT_KEY,
        static_pk_value=ONCE + function,
        expiry_attr=EXPIRY,
        boto3_client=client,
    )
