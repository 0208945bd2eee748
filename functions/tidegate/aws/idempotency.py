"""Doing something once for each event, however often it is delivered, by Powertools' Idempotency in the registry's table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from tidegate.aws.layout import EXPIRY, ONCE, PARTITION_KEY, SORT_KEY
from tidegate.errors import SettingsError
from tidegate.settings import Settings

KEPT_S = 24 * 3600

Work = Callable[[Mapping[str, Any]], dict[str, Any]]


def once_per(function: str, settings: Settings, work: Work, context: Any) -> Work:
    """`work`, which gives the first result again for data that it was called with within a day.

    A result that was an exception is not kept: the next delivery tries again. So does one that comes after the invocation
    of `context`, Lambda's, ran out of time. The records are in the partition of the `function` of that short name: its
    role may write no other.

    Raises:
        SettingsError: the registry's table is not named.
    """
    if settings.registry_table is None:
        raise SettingsError("TIDEGATE_REGISTRY_TABLE must be set")
    store = _store(function, settings.registry_table, settings.aws_endpoint_url, settings.aws_region)

    from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig, idempotent_function

    def called(*, data: Mapping[str, Any]) -> dict[str, Any]:
        return work(data)

    config = IdempotencyConfig(expires_after_seconds=KEPT_S)
    config.register_lambda_context(context)
    decorated = idempotent_function(
        called,
        data_keyword_argument="data",
        persistence_store=store,
        config=config,
    )
    return lambda data: decorated(data=dict(data))


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
