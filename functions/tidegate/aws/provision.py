"""Creates missing buckets and tables for the local stack; on AWS, CDK does."""

from __future__ import annotations

import json
from typing import Any

from tidegate.aws.clients import LOCAL_REGION, AwsClients, error_code
from tidegate.aws.layout import EXPIRY, PARTITION_KEY, SORT_KEY

KEPT_PARTS_DAYS = 7
"""How long the parts of an interrupted upload are kept, in days."""

MAX_COPY_RECEIVES = 3
"""After these, a message that cannot be read, or whose batches did not end, goes to the dead letters."""

COPY_VISIBILITY_S = 180
COPY_RETENTION_S = 3600

WAIT = {"Delay": 1, "MaxAttempts": 30}


async def provision(clients: AwsClients, bucket: str, table: str) -> None:
    """Create the bucket and the registry's table, if they are missing. Raises `StoreError`."""
    await clients.call("s3", f"bucket {bucket}", lambda s3: _create_bucket(s3, bucket))
    await clients.call("dynamodb", f"table {table}", lambda dynamodb: _create_registry(dynamodb, table))


async def provision_facts(clients: AwsClients, table: str) -> None:
    """Create the table of facts, if it is missing. Raises `StoreError`."""
    await clients.call("dynamodb", f"table {table}", lambda dynamodb: _create_table(dynamodb, table))


async def provision_copies(clients: AwsClients, name: str) -> str:
    """Create the queue of copies for shadows and its dead-letter queue, if they are missing, and return the queue's address. Raises
    `StoreError`."""
    return await clients.call("sqs", f"queue {name}", lambda sqs: _create_copies(sqs, name))


def _create_copies(sqs: Any, name: str) -> str:
    dead = sqs.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    attributes = {
        "RedrivePolicy": json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": MAX_COPY_RECEIVES}),
        "VisibilityTimeout": str(COPY_VISIBILITY_S),
        "MessageRetentionPeriod": str(COPY_RETENTION_S),
    }
    return str(sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])


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
