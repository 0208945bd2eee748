"""Creates missing buckets and tables for the local stack; on AWS, CDK does."""

from __future__ import annotations

from typing import Any

from tidegate.aws.clients import LOCAL_REGION, AwsClients, error_code
from tidegate.aws.layout import EXPIRY, PARTITION_KEY, SORT_KEY

KEPT_PARTS_DAYS = 7
"""How long the parts of an interrupted upload are kept, in days."""

WAIT = {"Delay": 1, "MaxAttempts": 30}


async def provision(clients: AwsClients, bucket: str, table: str) -> None:
    """Create the bucket and the registry's table, if they are missing. Raises `StoreError`."""
    await clients.call("s3", f"bucket {bucket}", lambda s3: _create_bucket(s3, bucket))
    await clients.call("dynamodb", f"table {table}", lambda dynamodb: _create_registry(dynamodb, table))


async def provision_facts(clients: AwsClients, table: str) -> None:
    """Create the table of facts, if it is missing. Raises `StoreError`."""
    await clients.call("dynamodb", f"table {table}", lambda dynamodb: _create_table(dynamodb, table))


def _create_bucket(s3: Any, bucket: str) -> None:
    from botocore.exceptions import ClientError

    region = s3.meta.region_name
    place = {} if region == LOCAL_REGION else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error_code(error) not in ("404", "NoSuchBucket"):
            raise
    else:
        return
    try:
        s3.create_bucket(Bucket=bucket, **place)
    except ClientError as error:
        if error_code(error) != "BucketAlreadyOwnedByYou":
            raise
    rule = {
        "ID": "interrupted-uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": KEPT_PARTS_DAYS},
    }
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [rule]})


def _create_table(dynamodb: Any, table: str) -> None:
    from botocore.exceptions import ClientError

    keys = {PARTITION_KEY: "HASH", SORT_KEY: "RANGE"}
    try:
        dynamodb.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in keys],
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys.items()],
        )
    except ClientError as error:
        if error_code(error) != "ResourceInUseException":
            raise
    dynamodb.get_waiter("table_exists").wait(TableName=table, WaiterConfig=WAIT)


def _create_registry(dynamodb: Any, table: str) -> None:
    _create_table(dynamodb, table)
    expiry = dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"]["TimeToLiveStatus"]
    if expiry == "DISABLED":
        dynamodb.update_time_to_live(
            TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": EXPIRY}
        )
